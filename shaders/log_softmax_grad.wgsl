// dz[n,k] = dy[n,k] - exp(y[n,k]) * sum over j of dy[n,j].
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | y | read | batch * classes |
// | 1 | dy | read | batch * classes |
// | 2 | dlogits | read_write | batch * classes |
// | 3 | params | uniform | |
//
// Dispatch: one workgroup for each image.

struct Params {
    batch: u32,
    classes: u32,
}

@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dlogits: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let n = workgroup_index(group, groups);
    if n >= params.batch {
        return;
    }
    let row = n * params.classes;
    var sum = 0.0;
    for (var k = local; k < params.classes; k += 64u) {
        sum += dy[row + k];
    }
    sum = total(sum, params.classes, local);
    for (var k = local; k < params.classes; k += 64u) {
        dlogits[row + k] = dy[row + k] - exp(y[row + k]) * sum;
    }
}
