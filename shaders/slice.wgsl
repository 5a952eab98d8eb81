// y[n,p,q,k] = x[n, before_h + p * step_h, before_w + q * step_w, before_c + k * step_c].
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c |
// | 1 | y | read_write | batch * out_h * out_w * out_c |
// | 2 | params | uniform | |
//
// Elements and channels are counted in T: one channel, or four.
//
// Dispatch: one thread for each element of y.

@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read_write> y: array<T>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    if i >= params.batch * params.out_h * params.out_w * params.out_c {
        return;
    }
    let c = i % params.out_c;
    let q = i / params.out_c % params.out_w;
    let row = i / params.out_c / params.out_w;
    let p = row % params.out_h;
    let n = row / params.out_h;

    let i_h = params.before_h + p * params.step_h;
    let j = params.before_w + q * params.step_w;
    let channel = params.before_c + c * params.step_c;
    y[i] = x[((n * params.in_h + i_h) * params.in_w + j) * params.in_c + channel];
}
