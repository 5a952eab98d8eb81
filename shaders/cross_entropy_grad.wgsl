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
// Dispatch: one thread for each image.

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
    let n = thread_index(group, groups, local);
    if n >= params.batch {
        return;
    }
    let row = n * params.classes;
    // Written so that NaN stays NaN.
    var largest = logits[row];
    for (var k = 1u; k < params.classes; k++) {
        let z = logits[row + k];
        largest = select(z, largest, largest >= z);
    }
    var sum = 0.0;
    for (var k = 0u; k < params.classes; k++) {
        sum += exp(logits[row + k] - largest);
    }
    let log_sum = log(sum);
    let label = labels[n];
    let factor = dloss[n];
    for (var k = 0u; k < params.classes; k++) {
        let wanted = select(0.0, 1.0, k == label);
        dlogits[row + k] = factor * (exp(logits[row + k] - largest - log_sum) - wanted);
    }
}
