// y[n, before_h + i * step_h, before_w + j * step_w, before_c + k * step_c] = x[n,i,j,k],
// and value everywhere else.
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

// Where position `at` of y comes from along one axis; past everything if from nowhere.
fn origin(at: u32, before: u32, step: u32) -> u32 {
    let distance = at - before;
    let source = distance / step;
    return select(0xffffffffu, source, at >= before && source * step == distance);
}

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
    let i = origin(strip.p, params.before_h, params.step_h);
    let k = origin(strip.c, params.before_c, params.step_c);
    let has_row = i < params.in_h && k < params.in_c;
    let row = (strip.n * params.in_h + i) * params.in_w;
    for (var q = strip.q; q < min(strip.q + 4u, params.out_w); q++) {
        let j = origin(q, params.before_w, params.step_w);
        let at = ((strip.n * params.out_h + strip.p) * params.out_w + q) * params.out_c + strip.c;
        if has_row && j < params.in_w {
            y[at] = x[(row + j) * params.in_c + k];
        } else {
            y[at] = T(params.value);
        }
    }
}
