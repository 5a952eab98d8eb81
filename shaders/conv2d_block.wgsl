// y[n,p,q,o] = bias[o] + sum over r,s,c of
//     x[n, p * stride_h + r * dilation_h - pad_top, q * stride_w + s * dilation_w - pad_left, c] * weight[r,s,c,o],
// and then the epilogue. What the epilogue does without is bound but not read. One group; in_c and out_c
// are multiples of 4.
//
// As a product of matrices: rows are the pixels of y, columns its channels, and the sum runs over the
// elements (r,s,c) of the kernel, in units of four channels. Columns of x are not written anywhere: a thread
// finds its part of them where it is.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | weight | read | kernel_h * kernel_w * in_c * out_c (in fours) |
// | 2 | bias | read | out_c (in fours) |
// | 3 | residual | read | as y |
// | 4 | mask | read | as y |
// | 5 | y | read_write | batch * out_h * out_w * out_c (in fours) |
// | 6 | params | uniform | |
//
// Dispatch: one workgroup for each BLOCK_ROWS pixels and BLOCK_COLUMNS output channels.
// A position before the image wraps to a huge one, so one comparison finds both edges.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

// Where a pixel of y begins to look at x.
struct Place {
    // First pixel of its image.
    image: u32,
    top: u32,
    left: u32,
}

struct Phase {
    // The only one.
    index: u32,
}

fn phases() -> u32 {
    return 1u;
}

fn phase_of(index: u32) -> Phase {
    return Phase(index);
}

fn pixels() -> u32 {
    return params.batch * params.out_h * params.out_w;
}

fn columns() -> u32 {
    return params.out_c;
}

fn depth() -> u32 {
    return params.in_c / 4u;
}

fn taps(phase: Phase) -> u32 {
    return params.kernel_w;
}

fn units(phase: Phase) -> u32 {
    return params.kernel_h * params.kernel_w * (params.in_c / 4u);
}

fn place(phase: Phase, pixel: u32) -> Place {
    let row = pixel / params.out_w;
    let n = row / params.out_h;
    if n >= params.batch {
        // No row of the kernel leads back into an image from there.
        return Place(0u, 0x80000000u, 0u);
    }
    let top = row % params.out_h * params.stride_h - params.pad_top;
    let left = pixel % params.out_w * params.stride_w - params.pad_left;
    return Place(n * params.in_h * params.in_w, top, left);
}

fn load_x(phase: Phase, place: Place, unit: Unit) -> vec4<f32> {
    let i = place.top + unit.r * params.dilation_h;
    let j = place.left + unit.s * params.dilation_w;
    if unit.r < params.kernel_h && i < params.in_h && j < params.in_w {
        return x[(place.image + i * params.in_w + j) * (params.in_c / 4u) + unit.c];
    }
    return vec4<f32>();
}

// Weights of channel `k` of the unit and the columns 4o to 4o + 3.
fn load_weight(phase: Phase, unit: Unit, k: u32, o: u32) -> vec4<f32> {
    if unit.r < params.kernel_h {
        let element = ((unit.r * params.kernel_w + unit.s) * (params.in_c / 4u) + unit.c) * 4u + k;
        return weights_at(element * (params.out_c / 4u) + o);
    }
    return vec4<f32>();
}

fn by_column(w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(w0, w1, w2, w3);
}

fn start(o: u32) -> vec4<f32> {
    return first_sum(o);
}

fn store_at(phase: Phase, pixel: u32, o: u32, sum: vec4<f32>) {
    let filters = params.out_c / 4u;
    if pixel < pixels() {
        y[pixel * filters + o] = finish(sum, pixel * filters + o, o);
    }
}
