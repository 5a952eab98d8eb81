//! The WGSL compute kernels of Adamant, as text.
//!
//! A kernel is one file, preceded by the files of `shared/` that it needs; the list is beside the
//! kernel's launch in the runtime. `README.md` says what each computes and binds.

pub const INDEX: &str = include_str!("shared/index.wgsl");
pub const RANDOM: &str = include_str!("shared/random.wgsl");
pub const CONV_PARAMS: &str = include_str!("shared/conv_params.wgsl");
pub const POOL_PARAMS: &str = include_str!("shared/pool_params.wgsl");
pub const PAD_PARAMS: &str = include_str!("shared/pad_params.wgsl");

pub const CONV2D: &str = include_str!("conv2d.wgsl");
pub const CONV2D_LANES8: &str = include_str!("conv2d_lanes8.wgsl");
pub const CONV2D_TILED: &str = include_str!("conv2d_tiled.wgsl");
pub const CONV2D_GRAD_INPUT: &str = include_str!("conv2d_grad_input.wgsl");
pub const CONV2D_GRAD_INPUT_LANES8: &str = include_str!("conv2d_grad_input_lanes8.wgsl");
pub const CONV2D_GRAD_INPUT_TILED: &str = include_str!("conv2d_grad_input_tiled.wgsl");
pub const CONV2D_GRAD_WEIGHT: &str = include_str!("conv2d_grad_weight.wgsl");
pub const CONV2D_GRAD_WEIGHT_LANES8: &str = include_str!("conv2d_grad_weight_lanes8.wgsl");
pub const CONV2D_GRAD_WEIGHT_TILED: &str = include_str!("conv2d_grad_weight_tiled.wgsl");
pub const RELU: &str = include_str!("relu.wgsl");
pub const RELU_GRAD: &str = include_str!("relu_grad.wgsl");
pub const ADD: &str = include_str!("add.wgsl");
pub const ACCUMULATE: &str = include_str!("accumulate.wgsl");
pub const SCALE: &str = include_str!("scale.wgsl");
pub const FILL: &str = include_str!("fill.wgsl");
pub const SPREAD: &str = include_str!("spread.wgsl");
pub const NORMALIZE: &str = include_str!("normalize.wgsl");
pub const NORMALIZE_GRAD: &str = include_str!("normalize_grad.wgsl");
pub const CHANNEL_AFFINE: &str = include_str!("channel_affine.wgsl");
pub const CHANNEL_AFFINE_GRAD: &str = include_str!("channel_affine_grad.wgsl");
pub const FLATTEN: &str = include_str!("flatten.wgsl");
pub const UNFLATTEN: &str = include_str!("unflatten.wgsl");
pub const BATCH_NORM: &str = include_str!("batch_norm.wgsl");
pub const BATCH_NORM_BY_FOUR: &str = include_str!("batch_norm_by_four.wgsl");
pub const BATCH_NORM_GRAD_BY_FOUR: &str = include_str!("batch_norm_grad_by_four.wgsl");
pub const BATCH_NORM_GRAD: &str = include_str!("batch_norm_grad.wgsl");
pub const BATCH_NORM_GRAD_SUMS: &str = include_str!("batch_norm_grad_sums.wgsl");
pub const CHANNEL_SUM: &str = include_str!("channel_sum.wgsl");
pub const CHANNEL_SQUARES: &str = include_str!("channel_squares.wgsl");
pub const ADD_PARTS: &str = include_str!("add_parts.wgsl");
pub const BATCH_NORM_TRAIN_GRAD: &str = include_str!("batch_norm_train_grad.wgsl");
pub const RUNNING_STATISTICS: &str = include_str!("running_statistics.wgsl");
pub const MAX_POOL: &str = include_str!("max_pool.wgsl");
pub const MAX_POOL_GRAD: &str = include_str!("max_pool_grad.wgsl");
pub const AVG_POOL: &str = include_str!("avg_pool.wgsl");
pub const AVG_POOL_GRAD: &str = include_str!("avg_pool_grad.wgsl");
pub const PAD: &str = include_str!("pad.wgsl");
pub const SLICE: &str = include_str!("slice.wgsl");
pub const CROSS_ENTROPY: &str = include_str!("cross_entropy.wgsl");
pub const CROSS_ENTROPY_GRAD: &str = include_str!("cross_entropy_grad.wgsl");
pub const CORRECT: &str = include_str!("correct.wgsl");
pub const SGD: &str = include_str!("sgd.wgsl");
pub const ADAM: &str = include_str!("adam.wgsl");
pub const ATTACK_START_LINF: &str = include_str!("attack_start_linf.wgsl");
pub const ATTACK_START_L2: &str = include_str!("attack_start_l2.wgsl");
pub const NORMAL_SQUARES: &str = include_str!("normal_squares.wgsl");
pub const IMAGE_SQUARES: &str = include_str!("image_squares.wgsl");
pub const ATTACK_STEP_LINF: &str = include_str!("attack_step_linf.wgsl");
pub const ATTACK_STEP_SQUARES: &str = include_str!("attack_step_squares.wgsl");
pub const ATTACK_STEP_L2: &str = include_str!("attack_step_l2.wgsl");
pub const KEEP_WORST_IMAGE: &str = include_str!("keep_worst_image.wgsl");
pub const KEEP_WORST: &str = include_str!("keep_worst.wgsl");
