// y[n,k] = z[n,k] - log(sum over j of exp(z[n,j])).
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | logits | read | batch * classes |
// | 1 | y | read_write | batch * classes |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each image.

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
    for (var k = 0u; k < params.classes; k++) {
        y[row + k] = logits[row + k] - largest - log_sum;
    }
}
