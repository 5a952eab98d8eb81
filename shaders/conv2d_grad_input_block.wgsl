// dx[n,i,j,c] = sum over r,s,o of dy[n,p,q,o] * weight[r,s,c,o],
// where i = p * stride_h + r * dilation_h - pad_top and j = q * stride_w + s * dilation_w - pad_left.
// One group; in_c and out_c are multiples of 4.
//
// Pixels that are a stride apart, of one phase, meet the same taps: each phase is a product of matrices of its own.
// Rows are its pixels of dx, columns the channels of dx, and the sum runs over the taps that it meets and the
// channels of dy, in units of four.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | batch * out_h * out_w * out_c (in fours) |
// | 1 | weight | read | kernel_h * kernel_w * in_c * out_c (in fours) |
// | 2 | dx | read_write | batch * in_h * in_w * in_c (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: one workgroup for each phase, BLOCK_ROWS pixels of it and BLOCK_COLUMNS input channels.
// A position before the image wraps to a huge one, so one comparison finds both edges.

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

// What the phase of a workgroup meets of the kernel, in one direction: `count` taps, the first and then every
// `step`-th. From one to the next of them it is `back` pixels of dy back.
struct Taps {
    first: u32,
    step: u32,
    count: u32,
    back: u32,
}

// Pixels i, j of dx with i % stride_h = h and j % stride_w = w.
struct Phase {
    h: u32,
    w: u32,
    taps_h: Taps,
    taps_w: Taps,
}

// The taps that the pixels of a phase meet: `start` minus the tap's place is a multiple of the stride.
fn taps_of(start: u32, stride: u32, dilation: u32, kernel: u32) -> Taps {
    var step = 1u;
    while step * dilation % stride != 0u {
        step++;
    }
    var first = 0u;
    while first < min(step, kernel) && (start + first * (stride - dilation % stride)) % stride != 0u {
        first++;
    }
    if first >= min(step, kernel) {
        return Taps(0u, step, 0u, 0u);
    }
    return Taps(first, step, (kernel - first + step - 1u) / step, step * dilation / stride);
}

// First pixel of dy's image, and the position there of the first tap.
struct Place {
    image: u32,
    top: u32,
    left: u32,
}

fn phases() -> u32 {
    return params.stride_h * params.stride_w;
}

fn phase_of(index: u32) -> Phase {
    let h = index / params.stride_w;
    let w = index % params.stride_w;
    return Phase(
        h,
        w,
        taps_of(h + params.pad_top, params.stride_h, params.dilation_h, params.kernel_h),
        taps_of(w + params.pad_left, params.stride_w, params.dilation_w, params.kernel_w),
    );
}

// Rows and columns of a phase: the last ones of some phases are past the image.
fn phase_rows() -> u32 {
    return (params.in_h + params.stride_h - 1u) / params.stride_h;
}

fn phase_columns() -> u32 {
    return (params.in_w + params.stride_w - 1u) / params.stride_w;
}

fn pixels() -> u32 {
    return params.batch * phase_rows() * phase_columns();
}

fn columns() -> u32 {
    return params.in_c;
}

fn depth() -> u32 {
    return params.out_c / 4u;
}

fn taps(phase: Phase) -> u32 {
    return phase.taps_w.count;
}

fn units(phase: Phase) -> u32 {
    return phase.taps_h.count * phase.taps_w.count * (params.out_c / 4u);
}

// Exact, also where the first tap is before the image.
fn position(pixel: u32, pad: u32, tap: u32, dilation: u32, stride: u32) -> u32 {
    return u32((i32(pixel + pad) - i32(tap * dilation)) / i32(stride));
}

fn place(phase: Phase, pixel: u32) -> Place {
    let row = pixel / phase_columns();
    let n = row / phase_rows();
    if n >= params.batch {
        // No tap leads back into an image from there.
        return Place(0u, 0x80000000u, 0u);
    }
    let i = row % phase_rows() * params.stride_h + phase.h;
    let j = pixel % phase_columns() * params.stride_w + phase.w;
    return Place(
        n * params.out_h * params.out_w,
        position(i, params.pad_top, phase.taps_h.first, params.dilation_h, params.stride_h),
        position(j, params.pad_left, phase.taps_w.first, params.dilation_w, params.stride_w),
    );
}

fn load_x(phase: Phase, place: Place, unit: Unit) -> vec4<f32> {
    let p = place.top - unit.r * phase.taps_h.back;
    let q = place.left - unit.s * phase.taps_w.back;
    if unit.r < phase.taps_h.count && p < params.out_h && q < params.out_w {
        return dy[(place.image + p * params.out_w + q) * (params.out_c / 4u) + unit.c];
    }
    return vec4<f32>();
}

// Weights of the four channels of the unit and the column 4c + k.
fn load_weight(phase: Phase, unit: Unit, k: u32, c: u32) -> vec4<f32> {
    if unit.r < phase.taps_h.count {
        let r = phase.taps_h.first + unit.r * phase.taps_h.step;
        let s = phase.taps_w.first + unit.s * phase.taps_w.step;
        return weight[((r * params.kernel_w + s) * params.in_c + 4u * c + k) * (params.out_c / 4u) + unit.c];
    }
    return vec4<f32>();
}

fn by_column(w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(w0, w1, w2, w3));
}

fn start(c: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn store_at(phase: Phase, pixel: u32, c: u32, sum: vec4<f32>) {
    let row = pixel / phase_columns();
    let i = row % phase_rows() * params.stride_h + phase.h;
    let j = pixel % phase_columns() * params.stride_w + phase.w;
    if pixel < pixels() && i < params.in_h && j < params.in_w {
        dx[((row / phase_rows() * params.in_h + i) * params.in_w + j) * (params.in_c / 4u) + c] = sum;
    }
}
