// dx = dy where 0 < y < max, else 0. y is the activation's output.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | y | read | len (in fours) |
// | 1 | dy | read | len (in fours) |
// | 2 | dx | read_write | len (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each four elements. The last may hold fewer.

struct Params {
    len: u32,
    max: f32,
}

@group(0) @binding(0) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    if i >= (params.len + 3u) / 4u {
        return;
    }
    let kept = y[i];
    let passes = (kept > vec4<f32>()) & (kept < vec4<f32>(params.max));
    let v = select(vec4<f32>(), dy[i], passes);
    if 4u * i + 4u <= params.len {
        dx[i] = v;
    } else {
        dx[i] = select(dx[i], v, inside(i, params.len));
    }
}
