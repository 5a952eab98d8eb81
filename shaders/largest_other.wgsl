// y[n] = the largest x[n,k] over the classes k other than label[n].
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * classes |
// | 1 | labels | read | batch (u32) |
// | 2 | y | read_write | batch |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each image.

struct Params {
    batch: u32,
    classes: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

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
    let label = labels[n];
    // Written so that NaN stays NaN.
    var largest = x[row + select(0u, 1u, label == 0u)];
    for (var k = 0u; k < params.classes; k++) {
        let v = x[row + k];
        largest = select(select(v, largest, largest >= v), largest, k == label);
    }
    y[n] = largest;
}
