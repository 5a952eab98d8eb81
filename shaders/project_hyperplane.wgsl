// d = the smallest move, in the linf or l2 norm, that takes point onto the hyperplane
// <w, point + d - base> + offset = 0 without leaving [0, 1]; where there is none, the one that gets nearest.
//
// Each element moves against or along the sign of its weight, by `reach` (linf) or by reach * |weight| (l2),
// as far as there is room. What that takes off the offset is a concave function of `reach` made of straight
// pieces: Newton's method reaches its solution from below in finitely many steps.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | point | read | batch * per_image |
// | 1 | base | read | batch * per_image |
// | 2 | w | read | batch * per_image |
// | 3 | offset | read | batch |
// | 4 | d | read_write | batch * per_image |
// | 5 | params | uniform | |
//
// Dispatch: one workgroup for each image.

struct Params {
    batch: u32,
    per_image: u32,
    l2: u32,
    rounds: u32,
}

@group(0) @binding(0) var<storage, read> point: array<f32>;
@group(0) @binding(1) var<storage, read> base: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> offset: array<f32>;
@group(0) @binding(4) var<storage, read_write> d: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

var<workgroup> parts: array<vec2<f32>, 64>;

// The sum of every thread's part, in a fixed order.
fn total(part: vec2<f32>, local: u32) -> vec2<f32> {
    workgroupBarrier();
    parts[local] = part;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            parts[local] += parts[local + half];
        }
    }
    workgroupBarrier();
    return parts[0];
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
    var part = vec2<f32>();
    for (var i = local; i < params.per_image; i += WORKGROUP) {
        let at = start + i;
        part.x += w[at] * (point[at] - base[at]);
    }
    let away = offset[n] + total(part, local).x;
    let side = select(-1.0, 1.0, away >= 0.0);
    var reach = 0.0;
    for (var round = 0u; round < params.rounds; round++) {
        // What `reach` takes off, and how fast that grows.
        part = vec2<f32>();
        for (var i = local; i < params.per_image; i += WORKGROUP) {
            let at = start + i;
            let size = abs(w[at]);
            let speed = select(1.0, size, params.l2 == 1u);
            let room = select(1.0 - point[at], point[at], side * w[at] > 0.0);
            if reach * speed < room {
                part += vec2<f32>(size * reach * speed, size * speed);
            } else {
                part.x += size * room;
            }
        }
        let found = total(part, local);
        if found.y > 0.0 {
            reach += max(abs(away) - found.x, 0.0) / found.y;
        }
    }
    for (var i = local; i < params.per_image; i += WORKGROUP) {
        let at = start + i;
        let size = abs(w[at]);
        let speed = select(1.0, size, params.l2 == 1u);
        let down = side * w[at] > 0.0;
        let room = select(1.0 - point[at], point[at], down);
        let moved = min(reach * speed, room);
        d[at] = select(0.0, select(moved, -moved, down), size > 0.0);
    }
}
