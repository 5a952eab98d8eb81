// dx = dy where 0 < y < max, else 0. y is the activation's output.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | y | read | len (in fours) |
// | 1 | dy | read | len (in fours) |
// | 2 | dx | read_write | len (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each four elements. Buffers end on a multiple of four; past `len` lies padding.

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
    let v = y[i];
    dx[i] = select(vec4<f32>(), dy[i], (v > vec4<f32>()) & (v < vec4<f32>(params.max)));
}
