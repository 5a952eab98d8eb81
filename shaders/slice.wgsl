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
// Dispatch: one thread for each channel of 4 neighbouring pixels of a row of y.

@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read_write> y: array<T>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let strip = strip_of(thread_index(group, groups, local));
    if strip.n >= params.batch {
        return;
    }
    let row = (strip.n * params.in_h + params.before_h + strip.p * params.step_h) * params.in_w;
    let channel = params.before_c + strip.c * params.step_c;
    for (var q = strip.q; q < min(strip.q + 4u, params.out_w); q++) {
        let at = ((strip.n * params.out_h + strip.p) * params.out_w + q) * params.out_c + strip.c;
        y[at] = x[(row + params.before_w + q * params.step_w) * params.in_c + channel];
    }
}
