// norm[n] from the parts of image_norm_parts: their sum, the root of their sum, or the largest.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | partial | read | parts * batch |
// | 1 | norm | read_write | batch |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each image.

struct Params {
    batch: u32,
    per_image: u32,
    parts: u32,
    order: u32,
}

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> norm: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

const L1: u32 = 1u;
const L2: u32 = 2u;

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
    var total = 0.0;
    for (var part = 0u; part < params.parts; part++) {
        let v = partial[part * params.batch + n];
        if params.order == L1 || params.order == L2 {
            total += v;
        } else {
            total = select(total, v, v > total || is_nan(v));
        }
    }
    norm[n] = select(total, sqrt(total), params.order == L2);
}
