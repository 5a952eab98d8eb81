// y = x + distance * direction / norm, clipped to [0, 1]; distance and norm are of each image.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * per_image |
// | 1 | direction | read | batch * per_image |
// | 2 | norm | read | batch |
// | 3 | distance | read | batch |
// | 4 | y | read_write | batch * per_image |
// | 5 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> direction: array<f32>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read> distance_of: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

// Keeps a division by a vanishing norm finite.
const TINY: f32 = 1e-12;

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
    y[i] = clamp(x[i] + distance_of[n] * (direction[i] / (norm[n] + TINY)), 0.0, 1.0);
}
