// x = clean + deviation * g, g standard normal, at most radius away, clipped to [0, 1].
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
    per_image: u32,
    deviation: f32,
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
    if i >= params.batch * params.per_image {
        return;
    }
    let n = i / params.per_image;
    let noise = random_normal(vec2<u32>(key[0], key[1]), indices[n], i % params.per_image);
    let moved = clamp(params.deviation * noise, -radius[n], radius[n]);
    x[i] = clamp(clean[i] + moved, 0.0, 1.0);
}
