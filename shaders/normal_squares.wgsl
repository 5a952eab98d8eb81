// squares[n] = sum over the image of g^2, where g is the standard normal number of each element.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | indices | read | batch (u32) |
// | 1 | key | read | 2 (u32) |
// | 2 | squares | read_write | batch |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each image.
// Sums are taken in blocks, which keeps f32 rounding small.

struct Params {
    batch: u32,
    per_image: u32,
}

@group(0) @binding(0) var<storage, read> indices: array<u32>;
@group(0) @binding(1) var<storage, read> key: array<u32>;
@group(0) @binding(2) var<storage, read_write> squares: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const BLOCK: u32 = 64u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let n = thread_index(group, groups, local);
    if n >= params.batch {
        return;
    }
    let stream = vec2<u32>(key[0], key[1]);
    let index = indices[n];
    var sum = 0.0;
    for (var first = 0u; first < params.per_image; first += BLOCK) {
        var block = 0.0;
        for (var i = first; i < min(first + BLOCK, params.per_image); i++) {
            let g = random_normal(stream, index, i);
            block += g * g;
        }
        sum += block;
    }
    squares[n] = sum;
}
