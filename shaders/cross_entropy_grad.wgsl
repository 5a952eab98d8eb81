// dz[n,k] = dloss[n] * (softmax(z[n])[k] - [k = label[n]]).
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | logits | read | batch * classes |
// | 1 | labels | read | batch (u32) |
// | 2 | dloss | read | batch |
// | 3 | dlogits | read_write | batch * classes |
// | 4 | params | uniform | |
//
// Dispatch: one workgroup for each image.

struct Params {
    batch: u32,
    classes: u32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> dloss: array<f32>;
@group(0) @binding(3) var<storage, read_write> dlogits: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

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
    let label = labels[n];
    let factor = dloss[n];
    for (var k = local; k < params.classes; k += 64u) {
        let wanted = select(0.0, 1.0, k == label);
        dlogits[row + k] = factor * (exp(logits[row + k] - most - log_sum) - wanted);
    }
}
