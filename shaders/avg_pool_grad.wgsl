// dx[n,i,j,c] = sum of dy / (the divisor of the window) over the windows that hold position (i, j).
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | batch * out_h * out_w * channels |
// | 1 | dx | read_write | batch * in_h * in_w * channels |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each element of dx.

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;
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
    if i >= params.batch * params.in_h * params.in_w * params.channels {
        return;
    }
    let c = i % params.channels;
    let j = i / params.channels % params.in_w;
    let row = i / params.channels / params.in_w;
    let i_h = row % params.in_h;
    let n = row / params.in_h;

    var sum = 0.0;
    // Descending taps meet the windows in ascending order.
    for (var r = params.kernel_h; r > 0u; r--) {
        let top = i_h + params.pad_top - (r - 1u) * params.dilation_h;
        let p = top / params.stride_h;
        if top > i_h + params.pad_top || p >= params.out_h || p * params.stride_h != top {
            continue;
        }
        for (var s = params.kernel_w; s > 0u; s--) {
            let left = j + params.pad_left - (s - 1u) * params.dilation_w;
            let q = left / params.stride_w;
            if left > j + params.pad_left || q >= params.out_w || q * params.stride_w != left {
                continue;
            }
            let at = ((n * params.out_h + p) * params.out_w + q) * params.channels + c;
            sum += dy[at] / window_divisor(p, q);
        }
    }
    dx[i] = sum;
}
