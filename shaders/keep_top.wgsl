// y = moved at the `keep` elements of each image with the largest |weight|, clean elsewhere; of equal ones
// the earliest come first, so that the number is exact. Not a number counts as larger than all.
//
// The bits of a positive float are in the order of its value: the bound is found a hexadecimal digit at a
// time, from the highest, by counting the elements that share the digits found so far. The place up to which
// elements at the bound itself are taken is found in the same way.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | moved | read | batch * per_image |
// | 2 | weight | read | batch * per_image |
// | 3 | y | read_write | batch * per_image |
// | 4 | params | uniform | |
//
// Dispatch: one workgroup for each image.

struct Params {
    batch: u32,
    per_image: u32,
    keep: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> moved: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const DIGITS: u32 = 16u;

// For each thread and digit, the elements with that digit; then their sums.
var<workgroup> counts: array<u32, 1024>;
var<workgroup> totals: array<u32, 16>;

fn size_bits(at: u32) -> u32 {
    return bitcast<u32>(weight[at]) & 0x7fffffffu;
}

fn clear(local: u32) {
    workgroupBarrier();
    for (var d = 0u; d < DIGITS; d++) {
        counts[local * DIGITS + d] = 0u;
    }
}

fn total(local: u32) {
    workgroupBarrier();
    if local < DIGITS {
        var sum = 0u;
        for (var thread = 0u; thread < WORKGROUP; thread++) {
            sum += counts[thread * DIGITS + local];
        }
        totals[local] = sum;
    }
    workgroupBarrier();
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let n = thread_index(group, groups, 0u) / WORKGROUP;
    if n >= params.batch {
        return;
    }
    let start = n * params.per_image;
    // Elements still to be taken among those that share the digits found.
    var left = min(params.keep, params.per_image);
    var bound = 0u;
    for (var round = 0u; round < 8u; round++) {
        let shift = 28u - 4u * round;
        clear(local);
        for (var i = local; i < params.per_image; i += WORKGROUP) {
            let bits = size_bits(start + i);
            // In two shifts, for one of 32 is not defined. The highest bit is 0.
            if ((bits >> shift) >> 4u) == bound {
                counts[local * DIGITS + ((bits >> shift) & 15u)] += 1u;
            }
        }
        total(local);
        var digit = DIGITS - 1u;
        while digit > 0u && left > totals[digit] {
            left -= totals[digit];
            digit -= 1u;
        }
        bound = (bound << 4u) | digit;
    }
    var last = 0u;
    for (var round = 0u; round < 6u; round++) {
        let shift = 20u - 4u * round;
        clear(local);
        for (var i = local; i < params.per_image; i += WORKGROUP) {
            if ((i >> shift) >> 4u) == last && size_bits(start + i) == bound {
                counts[local * DIGITS + ((i >> shift) & 15u)] += 1u;
            }
        }
        total(local);
        var digit = 0u;
        while digit < DIGITS - 1u && left > totals[digit] {
            left -= totals[digit];
            digit += 1u;
        }
        last = (last << 4u) | digit;
    }
    for (var i = local; i < params.per_image; i += WORKGROUP) {
        let at = start + i;
        let bits = size_bits(at);
        let kept = params.keep > 0u && (bits > bound || (bits == bound && i <= last));
        y[at] = select(clean[at], moved[at], kept);
    }
}
