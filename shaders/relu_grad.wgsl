// dx = dy where 0 < y < max, else 0. y is the activation's output.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | y | read | len |
// | 1 | dy | read | len |
// | 2 | dx | read_write | len |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    len: u32,
    max: f32,
}

@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

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
    let v = y[i];
    dx[i] = select(0.0, dy[i], v > 0.0 && v < params.max);
}
