// y[n][i] = factor * x[n]: the value of an image in each of its elements.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch |
// | 1 | y | read_write | batch * per_image |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each element of y.

struct Params {
    len: u32,
    per_image: u32,
    factor: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    if i >= params.len {
        return;
    }
    y[i] = params.factor * x[i / params.per_image];
}
