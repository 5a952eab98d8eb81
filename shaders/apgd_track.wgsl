// What APGD remembers of each image after a step: the best loss so far, whether this step improved it, and
// a balance that is not positive exactly when the loss rose in at most three quarters of the steps since the
// last checkpoint.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | loss | read | batch |
// | 1 | best | read_write | batch |
// | 2 | last | read_write | batch |
// | 3 | balance | read_write | batch |
// | 4 | improved | read_write | batch |
// | 5 | params | uniform | |
//
// Dispatch: one thread for each image.

struct Params {
    batch: u32,
}

@group(0) @binding(0) var<storage, read> loss: array<f32>;
@group(0) @binding(1) var<storage, read_write> best: array<f32>;
@group(0) @binding(2) var<storage, read_write> last: array<f32>;
@group(0) @binding(3) var<storage, read_write> balance: array<f32>;
@group(0) @binding(4) var<storage, read_write> improved: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

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
    let now = loss[n];
    balance[n] += select(-3.0, 1.0, now > last[n]);
    last[n] = now;
    let better = now > best[n];
    improved[n] = select(0.0, 1.0, better);
    if better {
        best[n] = now;
    }
}
