// x = clean + radius or - radius, clipped to [0, 1]: one random sign for each column of each channel.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | radius | read | batch |
// | 2 | indices | read | batch (u32) |
// | 3 | key | read | 2 (u32) |
// | 4 | x | read_write | batch * per_image |
// | 5 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    channels: u32,
    height: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> radius: array<f32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> key: array<u32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let per_image = params.channels * params.height * params.width;
    if i >= params.batch * per_image {
        return;
    }
    let n = i / per_image;
    let channel = i / (params.height * params.width) % params.channels;
    let stripe = channel * params.width + i % params.width;
    let positive = random_uniform(vec2<u32>(key[0], key[1]), indices[n], stripe) >= 0.5;
    x[i] = clamp(clean[i] + select(-radius[n], radius[n], positive), 0.0, 1.0);
}
