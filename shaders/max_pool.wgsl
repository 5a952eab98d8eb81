// y[n,p,q,c] = the largest x of the window, the padding left out. NaN wins.
// A window that lies in the padding entirely gives the lowest finite number.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * channels |
// | 1 | y | read_write | batch * out_h * out_w * channels |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each element of y.
// A position before the image wraps to a huge one, so one comparison finds both edges.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

const LOWEST: f32 = -3.4028234663852886e38;

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

    var largest = LOWEST;
    var found = false;
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
            let v = x[((n * params.in_h + i_h) * params.in_w + j) * params.channels + c];
            if !found || v > largest || is_nan(v) {
                largest = v;
                found = true;
            }
        }
    }
    y[i] = largest;
}
