// dx[n,k] = dy[n] for the first class k, other than label[n], with the largest x[n,k]; 0 elsewhere.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * classes |
// | 1 | labels | read | batch (u32) |
// | 2 | dy | read | batch |
// | 3 | dx | read_write | batch * classes |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each image.

struct Params {
    batch: u32,
    classes: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
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
    let label = labels[n];
    var at = select(0u, 1u, label == 0u);
    for (var k = 0u; k < params.classes; k++) {
        at = select(at, k, k != label && x[row + k] > x[row + at]);
    }
    for (var k = 0u; k < params.classes; k++) {
        dx[row + k] = select(0.0, dy[n], k == at);
    }
}
