// partial[part][n] = sum of |x|, sum of x^2, or largest |x|, over the elements of image n in the part.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * per_image |
// | 1 | partial | read_write | parts * batch |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each part and image.
// Sums are taken in blocks, which keeps f32 rounding small.

struct Params {
    batch: u32,
    per_image: u32,
    parts: u32,
    order: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

const BLOCK: u32 = 64u;
const L1: u32 = 1u;
const L2: u32 = 2u;

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
    var total = 0.0;
    for (var first = part * per_part; first < end; first += BLOCK) {
        var block = 0.0;
        for (var i = first; i < min(first + BLOCK, end); i++) {
            let v = abs(x[start + i]);
            if params.order == L1 {
                block += v;
            } else if params.order == L2 {
                block += v * v;
            } else {
                block = select(block, v, v > block || is_nan(v));
            }
        }
        if params.order == L1 || params.order == L2 {
            total += block;
        } else {
            total = select(total, block, block > total || is_nan(block));
        }
    }
    partial[index] = total;
}
