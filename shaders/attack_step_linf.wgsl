// x = x + step * sign(gradient), projected onto the ball around clean, clipped to [0, 1]. sign(0) = 0.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | gradient | read | batch * per_image |
// | 2 | radius | read | batch |
// | 3 | step_length | read | batch |
// | 4 | x | read_write | batch * per_image |
// | 5 | params | uniform | |
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
    let g = gradient[i];
    let direction = select(select(0.0, -1.0, g < 0.0), 1.0, g > 0.0);
    let center = clean[i];
    let moved = clamp(x[i] + step_length[n] * direction, center - radius[n], center + radius[n]);
    x[i] = clamp(moved, 0.0, 1.0);
}
