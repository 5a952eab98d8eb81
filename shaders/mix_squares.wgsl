// partial[part][n] = sum of (mixed - clean)^2 over the elements of image n in the part, where mixed is what
// mix_l2 projects.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | candidate | read | batch * per_image |
// | 2 | x | read | batch * per_image |
// | 3 | previous | read | batch * per_image |
// | 4 | partial | read_write | parts * batch |
// | 5 | params | uniform | |
//
// Dispatch: one thread for each part and image.
// Sums are taken in blocks, which keeps f32 rounding small.

struct Params {
    batch: u32,
    per_image: u32,
    parts: u32,
    keep: f32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> candidate: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> previous: array<f32>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const BLOCK: u32 = 64u;

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
    for (var first = part * per_part; first < end; first += BLOCK) {
        var block = 0.0;
        for (var i = first; i < min(first + BLOCK, end); i++) {
            let at = start + i;
            let old = x[at];
            let mixed = old + params.keep * (candidate[at] - old)
                + (1.0 - params.keep) * (old - previous[at]);
            let v = mixed - clean[at];
            block += v * v;
        }
        sum += block;
    }
    partial[index] = sum;
}
