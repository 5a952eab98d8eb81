// partial[part][n] = sum over the elements of image n in the part.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * per_image |
// | 1 | partial | read_write | parts * batch |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each part and image.

struct Params {
    batch: u32,
    per_image: u32,
    parts: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = thread_index(group, groups, local);
    if index >= params.parts * params.batch {
        return;
    }
    let n = index % params.batch;
    let part = index / params.batch;
    let per_part = (params.per_image + params.parts - 1u) / params.parts;
    let end = min((part + 1u) * per_part, params.per_image);
    let start = n * params.per_image;
    var sum = 0.0;
    for (var i = part * per_part; i < end; i++) {
        sum += x[start + i];
    }
    partial[index] = sum;
}
