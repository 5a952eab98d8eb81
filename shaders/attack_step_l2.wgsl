// x = x + step * gradient / |gradient|, projected onto the ball around clean, clipped to [0, 1].
// squares and moved hold the squared lengths of the gradient and of the new x - clean of each image,
// from image_squares and attack_step_squares.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | gradient | read | batch * per_image |
// | 2 | radius | read | batch |
// | 3 | step_length | read | batch |
// | 4 | squares | read | batch |
// | 5 | moved | read | batch |
// | 6 | x | read_write | batch * per_image |
// | 7 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> radius: array<f32>;
@group(0) @binding(3) var<storage, read> step_length: array<f32>;
@group(0) @binding(4) var<storage, read> squares: array<f32>;
@group(0) @binding(5) var<storage, read> moved: array<f32>;
@group(0) @binding(6) var<storage, read_write> x: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

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
    var rate = 0.0;
    if squares[n] != 0.0 {
        rate = step_length[n] / sqrt(squares[n]);
    }
    let length = sqrt(moved[n]);
    var shrink = 1.0;
    if length > radius[n] {
        shrink = radius[n] / length;
    }
    let center = clean[i];
    x[i] = clamp(center + shrink * (x[i] + rate * gradient[i] - center), 0.0, 1.0);
}
