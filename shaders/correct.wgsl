// correct[n] = 1 if the largest logit is the label's, else 0. Ties go to the lowest class; an image
// with a logit that is not finite is never correct.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | logits | read | batch * classes |
// | 1 | labels | read | batch (u32) |
// | 2 | correct | read_write | batch |
// | 3 | params | uniform | |
//
// Dispatch: one workgroup for each image.

struct Params {
    batch: u32,
    classes: u32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> correct: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// By its bits: compilers may assume that there is no infinity and no NaN.
fn is_finite(z: f32) -> bool {
    return (bitcast<u32>(z) & 0x7f800000u) != 0x7f800000u;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let n = workgroup_index(group, groups);
    if n >= params.batch {
        return;
    }
    let row = n * params.classes;
    let label = labels[n];
    let own = logits[row + min(label, params.classes - 1u)];
    var against = 0.0;
    for (var k = local; k < params.classes; k += 64u) {
        let z = logits[row + k];
        let beaten = is_finite(z) && (z < own || (z == own && k >= label));
        against += select(1.0, 0.0, beaten);
    }
    against = total(against, params.classes, local);
    if local == 0u {
        correct[n] = select(0.0, 1.0, label < params.classes && against == 0.0);
    }
}
