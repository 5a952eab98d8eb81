// y = x for the images whose flag equals `wanted`; the others stay as they are.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * per_image |
// | 1 | flag | read | batch |
// | 2 | y | read_write | batch * per_image |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
    wanted: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> flag: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

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
    if flag[i / params.per_image] == params.wanted {
        y[i] = x[i];
    }
}
