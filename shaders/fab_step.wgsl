// x = (1 - a) (x + eta d) + a (clean + eta d_clean), clipped to [0, 1], with a = length / (length +
// length_clean), at most `most`: a step over the boundary that is drawn back towards the clean image.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | d | read | batch * per_image |
// | 2 | d_clean | read | batch * per_image |
// | 3 | length_of | read | batch |
// | 4 | length_clean | read | batch |
// | 5 | x | read_write | batch * per_image |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
    eta: f32,
    most: f32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> d: array<f32>;
@group(0) @binding(2) var<storage, read> d_clean: array<f32>;
@group(0) @binding(3) var<storage, read> length_of: array<f32>;
@group(0) @binding(4) var<storage, read> length_clean: array<f32>;
@group(0) @binding(5) var<storage, read_write> x: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

const SHORTEST: f32 = 1e-8;

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
    let own = max(length_of[n], SHORTEST);
    let a = min(own / (own + max(length_clean[n], SHORTEST)), params.most);
    let moved = (x[i] + params.eta * d[i]) * (1.0 - a) + (clean[i] + params.eta * d_clean[i]) * a;
    x[i] = clamp(moved, 0.0, 1.0);
}
