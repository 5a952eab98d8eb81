// best = x where the try is worse than the best so far.
// A try is worse for the network, and kept, if it fools it where the best so far did not; or if both do
// or both do not and its loss is higher. A tie keeps the earlier try.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * per_image |
// | 1 | loss | read | batch |
// | 2 | correct | read | batch |
// | 3 | best_loss | read | batch |
// | 4 | best_correct | read | batch |
// | 5 | best | read_write | batch * per_image |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    per_image: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> loss: array<f32>;
@group(0) @binding(2) var<storage, read> correct: array<f32>;
@group(0) @binding(3) var<storage, read> best_loss: array<f32>;
@group(0) @binding(4) var<storage, read> best_correct: array<f32>;
@group(0) @binding(5) var<storage, read_write> best: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

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
    let n = i / params.per_image;
    let fools = correct[n] < best_correct[n];
    if fools || (correct[n] == best_correct[n] && loss[n] > best_loss[n]) {
        best[i] = x[i];
    }
}
