// y[n,p,q,c] = sum of x over the window / the number of its positions: those inside the padded image
// when include_pad is 1, those inside the image when it is 0.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * channels |
// | 1 | y | read_write | batch * out_h * out_w * channels |
// | 2 | params | uniform | |
//
// Elements and channels are counted in T: one channel, or four.
//
// Dispatch: one thread for each element of y.
// A position before the image wraps to a huge one, so one comparison finds both edges.

@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read_write> y: array<T>;
@group(0) @binding(2) var<uniform> params: Params;

// What the average of window (p, q) divides by.
fn window_divisor(p: u32, q: u32) -> f32 {
    let rows = divisor(
        p * params.stride_h,
        params.in_h,
        params.pad_top,
        params.pad_bottom,
        params.kernel_h,
        params.dilation_h,
        params.include_pad,
    );
    let columns = divisor(
        q * params.stride_w,
        params.in_w,
        params.pad_left,
        params.pad_right,
        params.kernel_w,
        params.dilation_w,
        params.include_pad,
    );
    return f32(max(rows * columns, 1u));
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    if i >= params.batch * params.out_h * params.out_w * params.channels {
        return;
    }
    let c = i % params.channels;
    let q = i / params.channels % params.out_w;
    let row = i / params.channels / params.out_w;
    let p = row % params.out_h;
    let n = row / params.out_h;

    var sum = T();
    for (var r = 0u; r < params.kernel_h; r++) {
        let i_h = p * params.stride_h + r * params.dilation_h - params.pad_top;
        if i_h >= params.in_h {
            continue;
        }
        var row_sum = T();
        for (var s = 0u; s < params.kernel_w; s++) {
            let j = q * params.stride_w + s * params.dilation_w - params.pad_left;
            if j < params.in_w {
                row_sum += x[((n * params.in_h + i_h) * params.in_w + j) * params.channels + c];
            }
        }
        sum += row_sum;
    }
    y[i] = sum / window_divisor(p, q);
}
