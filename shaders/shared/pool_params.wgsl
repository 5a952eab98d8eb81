// What all pooling kernels need to know, and the size of a window.

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    out_h: u32,
    out_w: u32,
    channels: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    pad_top: u32,
    pad_left: u32,
    pad_bottom: u32,
    pad_right: u32,
    dilation_h: u32,
    dilation_w: u32,
    include_pad: u32,
}

// How many of the positions start, start + dilation, ... of a window lie below `limit`.
fn taps_below(start: u32, limit: u32, size: u32, dilation: u32) -> u32 {
    // Where the subtraction wraps, the other value is taken.
    return select(min(size, (limit - 1u - start) / dilation + 1u), 0u, start >= limit);
}

// The positions along one axis that an average divides by. `start` is the first one, counted from
// the edge of the padding; `length` is the image's; `size` is the window's.
fn divisor(start: u32, length: u32, before: u32, after: u32, size: u32, dilation: u32, include_pad: u32) -> u32 {
    let padded = taps_below(start, before + length + after, size, dilation);
    let inside = taps_below(start, before + length, size, dilation) - taps_below(start, before, size, dilation);
    return select(inside, padded, include_pad != 0u);
}
