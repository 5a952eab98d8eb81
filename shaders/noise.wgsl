// noise = a random number for each element of each image: uniform in [-1, 1), or standard normal.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | indices | read | batch (u32) |
// | 1 | key | read | 2 (u32) |
// | 2 | noise | read_write | batch * per_image |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
    normal: u32,
}

@group(0) @binding(0) var<storage, read> indices: array<u32>;
@group(0) @binding(1) var<storage, read> key: array<u32>;
@group(0) @binding(2) var<storage, read_write> noise: array<f32>;
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
    let stream = vec2<u32>(key[0], key[1]);
    let image = indices[i / params.per_image];
    let position = i % params.per_image;
    if params.normal == 1u {
        noise[i] = random_normal(stream, image, position);
    } else {
        noise[i] = 2.0 * random_uniform(stream, image, position) - 1.0;
    }
}
