// What all convolution kernels need to know.
//
// Activations are [batch][height][width][channel], weights
// [kernel_h][kernel_w][input channel of the group][output channel].
// `in_c` and `out_c` count the channels of all groups.
// `option` is the kernel's own: conv2d's epilogue (see conv_epilogue.wgsl), or the number of parts of a
// weight gradient. `max` is the upper bound of conv2d's activation.

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    pad_top: u32,
    pad_left: u32,
    dilation_h: u32,
    dilation_w: u32,
    groups: u32,
    option: u32,
    max: f32,
}
