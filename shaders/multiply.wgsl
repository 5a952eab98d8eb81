// y = a * b, element by element.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | a | read | len (in fours) |
// | 1 | b | read | len (in fours) |
// | 2 | y | read_write | len (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each four elements. The last may hold fewer.

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
    let v = a[i] * b[i];
    if 4u * i + 4u <= params.len {
        y[i] = v;
    } else {
        y[i] = select(y[i], v, inside(i, params.len));
    }
}
