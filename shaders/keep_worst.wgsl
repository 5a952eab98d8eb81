// Loss and correctness of the try where it is worse than the best so far; after keep_worst_image.
// A try is worse for the network, and kept, if it fools it where the best so far did not; or if both do
// or both do not and its loss is higher. A tie keeps the earlier try.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | loss | read | batch |
// | 1 | correct | read | batch |
// | 2 | best_loss | read_write | batch |
// | 3 | best_correct | read_write | batch |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each image.

struct Params {
    batch: u32,
    per_image: u32,
}

@group(0) @binding(0) var<storage, read> loss: array<f32>;
@group(0) @binding(1) var<storage, read> correct: array<f32>;
@group(0) @binding(2) var<storage, read_write> best_loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> best_correct: array<f32>;
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
    let fools = correct[n] < best_correct[n];
    if fools || (correct[n] == best_correct[n] && loss[n] > best_loss[n]) {
        best_loss[n] = loss[n];
        best_correct[n] = correct[n];
    }
}
