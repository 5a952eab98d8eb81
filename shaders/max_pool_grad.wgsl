// dx[n,i,j,c] = sum of dy over the windows whose first maximum, in row-major order, is x[n,i,j,c].
// A gather: each element looks for the windows that it belongs to and finds their maxima again.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * channels |
// | 1 | dy | read | batch * out_h * out_w * channels |
// | 2 | dx | read_write | batch * in_h * in_w * channels |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each element of dx.
// A position before the image wraps to a huge one, so one comparison finds both edges.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const NOWHERE: u32 = 0xffffffffu;

// Where the first maximum of a window is.
fn first_maximum(n: u32, p: u32, q: u32, c: u32) -> u32 {
    var largest = 0.0;
    var position = NOWHERE;
    for (var r = 0u; r < params.kernel_h; r++) {
        let i_h = p * params.stride_h + r * params.dilation_h - params.pad_top;
        if i_h >= params.in_h {
            continue;
        }
        for (var s = 0u; s < params.kernel_w; s++) {
            let j = q * params.stride_w + s * params.dilation_w - params.pad_left;
            if j >= params.in_w {
                continue;
            }
            let at = ((n * params.in_h + i_h) * params.in_w + j) * params.channels + c;
            let v = x[at];
            if position == NOWHERE || v > largest {
                largest = v;
                position = at;
            }
        }
    }
    return position;
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
            if first_maximum(n, p, q, c) == i {
                sum += dy[((n * params.out_h + p) * params.out_w + q) * params.channels + c];
            }
        }
    }
    dx[i] = sum;
}
