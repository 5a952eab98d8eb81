// APGD's checkpoint: halves the step of the images whose loss oscillates, or stands still although the step
// was not halved at the checkpoint before.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | best | read | batch |
// | 1 | balance | read_write | batch |
// | 2 | checked | read_write | batch |
// | 3 | reduced | read_write | batch |
// | 4 | step_length | read_write | batch |
// | 5 | params | uniform | |
//
// Dispatch: one thread for each image.

struct Params {
    batch: u32,
}

@group(0) @binding(0) var<storage, read> best: array<f32>;
@group(0) @binding(1) var<storage, read_write> balance: array<f32>;
@group(0) @binding(2) var<storage, read_write> checked: array<f32>;
@group(0) @binding(3) var<storage, read_write> reduced: array<f32>;
@group(0) @binding(4) var<storage, read_write> step_length: array<f32>;
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
    let stands = reduced[n] == 0.0 && checked[n] >= best[n];
    let halve = balance[n] <= 0.0 || stands;
    balance[n] = 0.0;
    checked[n] = best[n];
    reduced[n] = select(0.0, 1.0, halve);
    if halve {
        step_length[n] = 0.5 * step_length[n];
    }
}
