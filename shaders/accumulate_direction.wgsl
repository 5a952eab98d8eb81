// total = decay * total + x * per_image / norm, with the l1 norm of each image: what is added has a mean
// magnitude of 1.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * per_image |
// | 1 | norm | read | batch |
// | 2 | total | read_write | batch * per_image |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
    decay: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> norm: array<f32>;
@group(0) @binding(2) var<storage, read_write> total: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

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
    let mean = norm[i / params.per_image] / f32(params.per_image);
    var direction = 0.0;
    // However small: a confident network's gradient is, and its direction counts as much.
    if mean != 0.0 {
        direction = x[i] / mean;
    }
    total[i] = params.decay * total[i] + direction;
}
