// loss[n] = (z[n,rival] - z[n,label]) / scale[n], at most `confidence` where the scale is 1. The rival is
// the largest other logit, or the target's; shared/logit_loss.wgsl has the kinds.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | logits | read | batch * classes |
// | 1 | labels | read | batch (u32) |
// | 2 | targets | read | batch (u32) |
// | 3 | loss | read_write | batch |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each image.

@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
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
    let found = terms(n, params.kind, params.classes);
    let value = found.difference / found.scale;
    let capped = params.kind == MARGIN || params.kind == TARGET_MARGIN;
    // Written so that NaN stays NaN.
    loss[n] = select(value, params.confidence, capped && value > params.confidence);
}
