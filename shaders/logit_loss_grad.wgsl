// dz[n,k] = dloss[n] * d loss[n] / d z[n,k] for the losses of logit_loss.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | logits | read | batch * classes |
// | 1 | labels | read | batch (u32) |
// | 2 | targets | read | batch (u32) |
// | 3 | dloss | read | batch |
// | 4 | dlogits | read_write | batch * classes |
// | 5 | params | uniform | |
//
// Dispatch: one thread for each image.

@group(0) @binding(3) var<storage, read> dloss: array<f32>;
@group(0) @binding(4) var<storage, read_write> dlogits: array<f32>;
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
    let found = terms(n, params.kind, params.classes);
    let capped = params.kind == MARGIN || params.kind == TARGET_MARGIN;
    let factor = select(dloss[n] / found.scale, 0.0, capped && found.difference >= params.confidence);
    let loss = found.difference / found.scale;
    for (var k = 0u; k < params.classes; k++) {
        var slope = select(0.0, 1.0, k == found.rival) - select(0.0, 1.0, k == found.own);
        // What the scale adds.
        if params.kind == DLR {
            slope -= loss * (select(0.0, 1.0, k == found.ranks.x) - select(0.0, 1.0, k == found.ranks.z));
        } else if params.kind == TARGET_DLR {
            let others = select(0.0, 0.5, k == found.ranks.z) + select(0.0, 0.5, k == found.ranks.w);
            slope -= loss * (select(0.0, 1.0, k == found.ranks.x) - others);
        }
        dlogits[n * params.classes + k] = factor * slope;
    }
}
