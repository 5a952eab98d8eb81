// x = x + keep * (candidate - x) + (1 - keep) * (x - previous), projected onto the l2 ball around clean,
// clipped to [0, 1]; previous = the old x. squares holds the squared length of what is projected, from
// mix_squares.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | candidate | read | batch * per_image |
// | 2 | radius | read | batch |
// | 3 | squares | read | batch |
// | 4 | x | read_write | batch * per_image |
// | 5 | previous | read_write | batch * per_image |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
    keep: f32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> candidate: array<f32>;
@group(0) @binding(2) var<storage, read> radius: array<f32>;
@group(0) @binding(3) var<storage, read> squares: array<f32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;
@group(0) @binding(5) var<storage, read_write> previous: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

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
    let length = sqrt(squares[n]);
    var shrink = 1.0;
    if length > radius[n] {
        shrink = radius[n] / length;
    }
    let old = x[i];
    let mixed = old + params.keep * (candidate[i] - old) + (1.0 - params.keep) * (old - previous[i]);
    let center = clean[i];
    x[i] = clamp(center + shrink * (mixed - center), 0.0, 1.0);
    previous[i] = old;
}
