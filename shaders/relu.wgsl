// y = min(max(x, 0), max). NaN stays NaN.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | len |
// | 1 | y | read_write | len |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    len: u32,
    max: f32,
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
    let v = x[i];
    y[i] = select(select(v, params.max, v > params.max), 0.0, v < 0.0);
}
