// What the losses of logits need to know: the logits themselves, and for one image the two classes whose
// difference counts and what divides it.

struct Params {
    batch: u32,
    classes: u32,
    kind: u32,
    confidence: f32,
}

// Kinds of loss: the label's logit against the largest other one or against the target's, plain or
// divided by a distance between the largest logits.
const MARGIN: u32 = 0u;
const DLR: u32 = 1u;
const TARGET_MARGIN: u32 = 2u;
const TARGET_DLR: u32 = 3u;

// Keeps a division finite when the largest logits are equal.
const SMALLEST_SCALE: f32 = 1e-12;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;

struct Terms {
    own: u32,
    rival: u32,
    // The classes of the four largest logits, as far as there are four; ties go to the lowest class.
    ranks: vec4<u32>,
    difference: f32,
    scale: f32,
}

fn terms(n: u32, kind: u32, classes: u32) -> Terms {
    let row = n * classes;
    var ranks = vec4<u32>();
    for (var rank = 0u; rank < min(4u, classes); rank++) {
        var best = classes;
        for (var k = 0u; k < classes; k++) {
            let taken = (rank > 0u && k == ranks.x) || (rank > 1u && k == ranks.y)
                || (rank > 2u && k == ranks.z);
            if !taken && (best == classes || logits[row + k] > logits[row + best]) {
                best = k;
            }
        }
        ranks[rank] = best;
    }
    var found: Terms;
    found.ranks = ranks;
    found.own = min(labels[n], classes - 1u);
    found.rival = select(ranks.x, ranks.y, ranks.x == found.own);
    if kind == TARGET_MARGIN || kind == TARGET_DLR {
        found.rival = min(targets[n], classes - 1u);
    }
    found.difference = logits[row + found.rival] - logits[row + found.own];
    found.scale = 1.0;
    if kind == DLR {
        found.scale = logits[row + ranks.x] - logits[row + ranks.z];
    } else if kind == TARGET_DLR {
        found.scale = logits[row + ranks.x] - 0.5 * (logits[row + ranks.z] + logits[row + ranks.w]);
    }
    // Not a sum with the smallest: compilers may add in another order. NaN stays NaN.
    found.scale = select(found.scale, SMALLEST_SCALE, found.scale < SMALLEST_SCALE);
    return found;
}
