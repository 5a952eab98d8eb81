// y = a + b.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | a | read | len (in fours) |
// | 1 | b | read | len (in fours) |
// | 2 | y | read_write | len (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each four elements. Buffers end on a multiple of four; past `len` lies padding.

struct Params {
    len: u32,
}

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
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
    y[i] = a[i] + b[i];
}
