// y[n,k] = z[n,k] - log(sum over j of exp(z[n,j])).
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | logits | read | batch * classes |
// | 1 | y | read_write | batch * classes |
// | 2 | params | uniform | |
//
// Dispatch: one workgroup for each image.

struct Params {
    batch: u32,
    classes: u32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

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
    var most = logits[row + min(local, params.classes - 1u)];
    for (var k = local + 64u; k < params.classes; k += 64u) {
        most = larger(most, logits[row + k]);
    }
    most = largest(most, params.classes, local);
    var sum = 0.0;
    for (var k = local; k < params.classes; k += 64u) {
        sum += exp(logits[row + k] - most);
    }
    let log_sum = log(total(sum, params.classes, local));
    for (var k = local; k < params.classes; k += 64u) {
        y[row + k] = logits[row + k] - most - log_sum;
    }
}
