// x = x + keep * (candidate - x) + (1 - keep) * (x - previous), projected onto the linf ball around clean,
// clipped to [0, 1]; previous = the old x.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | candidate | read | batch * per_image |
// | 2 | radius | read | batch |
// | 3 | x | read_write | batch * per_image |
// | 4 | previous | read_write | batch * per_image |
// | 5 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
    keep: f32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> candidate: array<f32>;
@group(0) @binding(2) var<storage, read> radius: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> previous: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    if i >= params.batch * params.per_image {
        return;
    }
    let n = i / params.per_image;
    let old = x[i];
    let mixed = old + params.keep * (candidate[i] - old) + (1.0 - params.keep) * (old - previous[i]);
    let center = clean[i];
    x[i] = clamp(clamp(mixed, center - radius[n], center + radius[n]), 0.0, 1.0);
    previous[i] = old;
}
