// x = clean + length * g / |g|, clipped to [0, 1], where g is standard normal and length is uniform in
// [0, radius]. squares holds |g|^2 of each image, from normal_squares.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | radius | read | batch |
// | 2 | indices | read | batch (u32) |
// | 3 | key | read | 2 (u32) |
// | 4 | squares | read | batch |
// | 5 | x | read_write | batch * per_image |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> radius: array<f32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> key: array<u32>;
@group(0) @binding(4) var<storage, read> squares: array<f32>;
@group(0) @binding(5) var<storage, read_write> x: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

// The random number of the length: past every pixel.
const RADIUS_POSITION: u32 = 0xffffffffu;

// Keeps a division by a vanishing length finite.
const TINY: f32 = 1e-10;

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
    let stream = vec2<u32>(key[0], key[1]);
    let index = indices[n];
    let factor = radius[n] * random_uniform(stream, index, RADIUS_POSITION) / (sqrt(squares[n]) + TINY);
    x[i] = clamp(clean[i] + factor * random_normal(stream, index, i % params.per_image), 0.0, 1.0);
}
