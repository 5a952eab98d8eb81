// partial[part][n] = sum of (x + step * gradient / |gradient| - clean)^2 over the elements of image n in
// the part.
// squares holds |gradient|^2 of each image, from image_squares.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | gradient | read | batch * per_image |
// | 2 | step_length | read | batch |
// | 3 | squares | read | batch |
// | 4 | x | read | batch * per_image |
// | 5 | partial | read_write | parts * batch |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each part and image.
// Sums are taken in blocks, which keeps f32 rounding small.

struct Params {
    batch: u32,
    per_image: u32,
    parts: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> step_length: array<f32>;
@group(0) @binding(3) var<storage, read> squares: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<f32>;
@group(0) @binding(5) var<storage, read_write> partial: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

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
    var rate = 0.0;
    if squares[n] != 0.0 {
        rate = step_length[n] / sqrt(squares[n]);
    }
    var sum = 0.0;
    for (var first = part * per_part; first < end; first += BLOCK) {
        var block = 0.0;
        for (var i = first; i < min(first + BLOCK, end); i++) {
            let at = start + i;
            let v = x[at] + rate * gradient[at] - clean[at];
            block += v * v;
        }
        sum += block;
    }
    partial[index] = sum;
}
