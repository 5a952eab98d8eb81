// x = best, moved by twice the radius up or down (one random sign for each channel) in a square at a random
// place, projected onto the linf ball around clean, clipped to [0, 1].
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | best | read | batch * per_image |
// | 2 | radius | read | batch |
// | 3 | indices | read | batch (u32) |
// | 4 | key | read | 2 (u32) |
// | 5 | side | read | 1 (u32) |
// | 6 | x | read_write | batch * per_image |
// | 7 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    channels: u32,
    height: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> best: array<f32>;
@group(0) @binding(2) var<storage, read> radius: array<f32>;
@group(0) @binding(3) var<storage, read> indices: array<u32>;
@group(0) @binding(4) var<storage, read> key: array<u32>;
@group(0) @binding(5) var<storage, read> side: array<u32>;
@group(0) @binding(6) var<storage, read_write> x: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

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
    let stream = vec2<u32>(key[0], key[1]);
    let row = i / params.width % params.height;
    let column = i % params.width;
    let channel = i / (params.height * params.width) % params.channels;
    // The upper bounds are exclusive, as in the reference: the last place is never drawn.
    let size = min(side[0], min(params.height, params.width));
    let free = vec2<f32>(f32(params.height - size), f32(params.width - size));
    let top = u32(free.x * random_uniform(stream, indices[n], 0u));
    let left = u32(free.y * random_uniform(stream, indices[n], 1u));
    var moved = best[i];
    if row >= top && row < top + size && column >= left && column < left + size {
        let positive = random_uniform(stream, indices[n], 2u + channel) >= 0.5;
        moved += select(-2.0 * radius[n], 2.0 * radius[n], positive);
    }
    let center = clean[i];
    x[i] = clamp(clamp(moved, center - radius[n], center + radius[n]), 0.0, 1.0);
}
