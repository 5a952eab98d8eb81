//! The operations. One file each holds everything about it: mathematics, attributes, shape rule,
//! GPU launch and CPU twin; this file is the list.

mod activation;
mod add;
mod apgd;
mod attack;
mod average;
mod batch_norm;
mod batch_norm_fused;
mod batch_norm_train;
mod channel_affine;
mod conv2d;
mod conv2d_compact;
mod conv2d_fused;
mod conv2d_grad_input;
mod conv2d_grad_weight;
mod conv2d_kernels;
mod cross_entropy;
mod direct;
mod direct_weight;
mod elementwise;
mod epilogue;
mod fab;
mod flatten;
mod fold_batch_norm;
mod image_sum;
mod keep_top;
mod largest_other;
mod launch;
mod log_softmax;
mod logit_loss;
mod map;
mod multiply;
mod normal_start;
mod normalize;
mod optimizer;
mod pad;
mod per_image;
mod pool;
mod reduce;
mod square;
mod square_l2;
mod tile;
mod transpose_weight;
mod weight;
mod winograd;

use serde::{Deserialize, Serialize};

pub use activation::{Relu, ReluGrad};
pub use add::Add;
pub use apgd::{ApgdCheckpoint, ApgdTrack, Mix};
pub use attack::{AttackStart, AttackStep, KeepWorst, Norm};
pub use average::Average;
pub use batch_norm::{BatchNorm, BatchNormGrad, BatchNormParameterGrad};
pub use batch_norm_fused::{FusedBatchNorm, FusedBatchNormTrain};
pub use batch_norm_train::{BatchNormTrain, BatchNormTrainGrad, RunningStatistics};
pub use channel_affine::{ChannelAffine, ChannelAffineGrad};
pub use conv2d::Conv2d;
pub use conv2d_compact::CompactConv2d;
pub use conv2d_fused::{Activation, FusedConv2d};
pub use conv2d_grad_input::Conv2dGradInput;
pub use conv2d_grad_weight::Conv2dGradWeight;
pub use cross_entropy::{Correct, CrossEntropy, CrossEntropyGrad};
pub use elementwise::{Accumulate, Copy, Fill, Scale};
pub use fab::{FabStep, ProjectHyperplane};
pub use flatten::{Flatten, Unflatten};
pub use fold_batch_norm::FoldBatchNorm;
pub use image_sum::{ImageSpread, ImageSum};
pub use keep_top::KeepTop;
pub use largest_other::{LargestOther, LargestOtherGrad};
pub use launch::{Argument, Dispatch, Kernel, Launch, TEXELS};
pub use log_softmax::{LogSoftmax, LogSoftmaxGrad};
pub use logit_loss::{LogitLoss, LogitLossGrad, LogitLossKind};
pub use map::{Function, Map};
pub use multiply::Multiply;
pub use normal_start::NormalStart;
pub use normalize::{Normalize, NormalizeGrad};
pub use optimizer::{Adam, Sgd};
pub use pad::{Pad, Slice};
pub use per_image::{AccumulateDirection, CopyWhere, ImageNorm, MoveAlong, Noise, Order};
pub use pool::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad, Window};
pub use reduce::{ChannelSum, Spread, Sum};
pub use square::{SquareStart, SquareWindow};
pub use square_l2::{SquareExchange, SquareTiles};
pub use transpose_weight::TransposeWeight;
pub(crate) use weight::Elements;
pub use weight::WeightFormat;

use crate::plan::Limits;
use crate::shape::Shape;

/// An input of a CPU twin.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub shape: Shape,
    pub data: &'a [f32],
}

/// An output of a CPU twin. An operation that updates in place finds the old values in it.
pub struct ViewMut<'a> {
    pub shape: Shape,
    pub data: &'a mut [f32],
}

/// What every operation can do. Closed: the implementors are the variants of [`Op`].
pub(crate) trait Operation {
    /// The shapes of the outputs, or why the inputs do not fit, without naming the node.
    ///
    /// An operation that only updates variables in place returns the shapes that it can tell from
    /// its inputs, possibly none.
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String>;

    /// The GPU dispatches that compute it.
    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch;

    /// The ways to compute it on a device, the best first as far as that is known without measuring.
    fn launches(&self, inputs: &[Shape], outputs: &[Shape], _limits: &Limits) -> Vec<Launch> {
        vec![self.launch(inputs, outputs)]
    }

    /// The CPU twin: the same mathematics, on the host.
    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]);

    /// The input that the CPU twin rearranges before it runs: where it stays the same from run to run,
    /// [`Operation::rearrange`] does that once.
    fn weight_input(&self) -> Option<usize> {
        None
    }

    /// The weight as [`Operation::run_rearranged`] takes it.
    fn rearrange(&self, _inputs: &[View<'_>], _output: Shape) -> Elements {
        unreachable!("the operation has no weight")
    }

    /// Elements of the weight as [`Operation::rearrange`] makes it, without the padding of small ones.
    fn rearranged_len(&self, inputs: &[Shape], _output: Shape) -> usize {
        self.weight_input().map_or(0, |weight| inputs[weight].len())
    }

    /// The CPU twin with a weight that was rearranged before.
    fn run_rearranged(&self, _inputs: &[View<'_>], _weight: &Elements, _outputs: &mut [ViewMut<'_>]) {
        unreachable!("the operation has no weight")
    }

    /// Multiplications and additions, counted as two operations a multiply-add.
    fn flops(&self, _inputs: &[Shape], outputs: &[Shape]) -> u64 {
        outputs.iter().map(|s| s.len() as u64).sum()
    }
}

/// Lists the operations: the enum, their names, and the way from a variant to its [`Operation`].
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// An operation with its attributes. Packages store it by position: append only.
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        pub enum Op { $($(#[$doc])* $name($name),)* }

        impl Op {
            /// The names of all operations, in order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];

            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            fn operation(&self) -> &dyn Operation {
                match self { $(Self::$name(op) => op,)* }
            }
        }
    };
}

operations! {
    /// Layers of a network.
    Normalize,
    Conv2d,
    BatchNorm,
    Relu,
    Add,
    MaxPool,
    AvgPool,
    Pad,
    Slice,
    Flatten,
    ChannelAffine,
    /// Training forms and gradients.
    BatchNormTrain,
    RunningStatistics,
    NormalizeGrad,
    Conv2dGradInput,
    Conv2dGradWeight,
    BatchNormGrad,
    BatchNormParameterGrad,
    BatchNormTrainGrad,
    ReluGrad,
    MaxPoolGrad,
    AvgPoolGrad,
    Unflatten,
    ChannelAffineGrad,
    ChannelSum,
    /// Losses and metrics.
    CrossEntropy,
    CrossEntropyGrad,
    Correct,
    Sum,
    Spread,
    Scale,
    Fill,
    Copy,
    Accumulate,
    /// Attacks.
    AttackStart,
    AttackStep,
    KeepWorst,
    /// Updates.
    Sgd,
    Adam,
    /// What the fusion of graphs makes of others.
    FusedConv2d,
    FoldBatchNorm,
    TransposeWeight,
    /// Losses composed of several operations, and averages of weights.
    Multiply,
    Map,
    ImageSum,
    ImageSpread,
    LogSoftmax,
    LogSoftmaxGrad,
    LargestOther,
    LargestOtherGrad,
    Average,
    NormalStart,
    /// More losses and attacks.
    LogitLoss,
    LogitLossGrad,
    CopyWhere,
    ImageNorm,
    Noise,
    MoveAlong,
    AccumulateDirection,
    Mix,
    ApgdTrack,
    ApgdCheckpoint,
    SquareStart,
    SquareWindow,
    ProjectHyperplane,
    FabStep,
    SquareTiles,
    SquareExchange,
    KeepTop,
    /// What inference makes of convolutions with compact weights.
    CompactConv2d,
    /// What the fusion of graphs makes of a BatchNorm and what follows it.
    FusedBatchNorm,
    FusedBatchNormTrain,
}

impl Op {
    /// Whether it may be a layer of a network. The rest belongs to graphs that Adamant itself builds
    /// around a network, and may count on what those guarantee: labels that are classes, for instance.
    pub(crate) const fn is_layer(&self) -> bool {
        matches!(
            self,
            Self::Normalize(_)
                | Self::Conv2d(_)
                | Self::BatchNorm(_)
                | Self::Relu(_)
                | Self::Add(_)
                | Self::MaxPool(_)
                | Self::AvgPool(_)
                | Self::Pad(_)
                | Self::Slice(_)
                | Self::Flatten(_)
                | Self::ChannelAffine(_)
        )
    }

    pub(crate) fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        self.operation().output_shapes(inputs)
    }

    /// The ways to compute it on a device, at least one, the best first as far as that is known without
    /// measuring.
    pub fn launches(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Vec<Launch> {
        self.operation().launches(inputs, outputs, limits)
    }

    pub(crate) fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        self.operation().run(inputs, outputs);
    }

    pub(crate) fn weight_input(&self) -> Option<usize> {
        self.operation().weight_input()
    }

    /// The convolution that it is, but for the weight, with or without something that follows.
    pub(crate) const fn convolution(&self) -> Option<Conv2d> {
        match self {
            Self::Conv2d(conv) => Some(*conv),
            Self::FusedConv2d(fused) => Some(fused.conv),
            Self::CompactConv2d(compact) => Some(compact.conv.conv),
            _ => None,
        }
    }

    pub(crate) fn rearranged_len(&self, inputs: &[Shape], output: Shape) -> usize {
        self.operation().rearranged_len(inputs, output)
    }

    pub(crate) fn rearrange(&self, inputs: &[View<'_>], output: Shape) -> Elements {
        self.operation().rearrange(inputs, output)
    }

    pub(crate) fn run_rearranged(&self, inputs: &[View<'_>], weight: &Elements, outputs: &mut [ViewMut<'_>]) {
        self.operation().run_rearranged(inputs, weight, outputs);
    }

    pub(crate) fn flops(&self, inputs: &[Shape], outputs: &[Shape]) -> u64 {
        self.operation().flops(inputs, outputs)
    }
}

/// Unpacks the inputs of an operation, or says how many it takes.
fn arity<const N: usize>(inputs: &[Shape]) -> Result<[Shape; N], String> {
    inputs.try_into().map_err(|_| format!("takes {N} inputs, got {}", inputs.len()))
}

/// Checks that a per-channel input has the channels of `x`.
fn per_channel(x: Shape, vectors: &[Shape]) -> Result<(), String> {
    match vectors.iter().find(|&&v| v != Shape::vector(x.channels())) {
        Some(v) => Err(format!("{} channels, but a per-channel input is {v:?}", x.channels())),
        None => Ok(()),
    }
}

/// Checks that two shapes are equal.
fn same(a: Shape, b: Shape) -> Result<(), String> {
    if a == b { Ok(()) } else { Err(format!("shapes {a:?} and {b:?} differ")) }
}

/// The largest kernel, stride, dilation or padding: attributes come from files, and kernels hold them
/// in 32 bits.
const LARGEST_WINDOW: usize = 1 << 16;

/// The output size of a sliding window along one axis, or why there is none.
fn window_size(
    size: usize,
    before: usize,
    after: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
) -> Result<usize, String> {
    if kernel == 0 || stride == 0 || dilation == 0 {
        return Err("kernel, stride and dilation are at least 1".into());
    }
    if [before, after, kernel, stride, dilation].iter().any(|&x| x > LARGEST_WINDOW) {
        return Err(format!(
            "a window of {kernel}, stride {stride}, dilation {dilation}, padding {before} and {after}: more than {LARGEST_WINDOW}"
        ));
    }
    let extent = (kernel - 1)
        .checked_mul(dilation)
        .and_then(|e| e.checked_add(1))
        .ok_or("kernel times dilation overflows")?;
    let padded = size.checked_add(before).and_then(|s| s.checked_add(after)).ok_or("padding overflows")?;
    if padded < extent {
        return Err(format!("a window of {extent} does not fit a padded size of {padded}"));
    }
    Ok((padded - extent) / stride + 1)
}
