// delta = best - clean with the contents of one random square moved to another: the proposal of Square in
// the l2 ball, before it is scaled to the radius. The second square is emptied; the first gets the pattern,
// with a random sign for each channel, added to what it has, scaled so that the channel takes up the length
// of both and its share of what the ball has left.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | clean | read | batch * per_image |
// | 1 | best | read | batch * per_image |
// | 2 | radius | read | batch |
// | 3 | indices | read | batch (u32) |
// | 4 | key | read | 2 (u32) |
// | 5 | side | read | 1 (u32) |
// | 6 | pattern | read | side * side |
// | 7 | delta | read_write | batch * per_image |
// | 8 | params | uniform | |
//
// Dispatch: one workgroup for each image.

struct Params {
    batch: u32,
    channels: u32,
    height: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> best: array<f32>;
@group(0) @binding(2) var<storage, read> radius: array<f32>;
@group(0) @binding(3) var<storage, read> indices: array<u32>;
@group(0) @binding(4) var<storage, read> key: array<u32>;
@group(0) @binding(5) var<storage, read> side: array<u32>;
@group(0) @binding(6) var<storage, read> pattern: array<f32>;
@group(0) @binding(7) var<storage, read_write> delta: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

const TINY: f32 = 1e-12;

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

// Whether element `i` of a plane lies in the square of `size` at `place` (row, column).
fn within(i: u32, place: vec2<u32>, size: u32) -> bool {
    let at = vec2<u32>(i / params.width, i % params.width);
    return all(at >= place) && all(at < place + size);
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
    let plane = params.height * params.width;
    let start = n * params.channels * plane;
    let stream = vec2<u32>(key[0], key[1]);
    let index = indices[n];
    let size = min(side[0], min(params.height, params.width));
    // The upper bounds are exclusive, as in the reference: the last place is never drawn.
    let free = vec2<f32>(f32(params.height - size), f32(params.width - size));
    let first = vec2<u32>(
        free * vec2<f32>(random_uniform(stream, index, 0u), random_uniform(stream, index, 1u)));
    let second = vec2<u32>(
        free * vec2<f32>(random_uniform(stream, index, 2u), random_uniform(stream, index, 3u)));
    let turned = random_uniform(stream, index, 4u) >= 0.5;

    var part = vec2<f32>();
    for (var i = local; i < params.channels * plane; i += WORKGROUP) {
        let v = best[start + i] - clean[start + i];
        part.x += v * v;
    }
    let left = max(radius[n] * radius[n] - total(part, local).x, 0.0) / f32(params.channels);
    for (var channel = 0u; channel < params.channels; channel++) {
        let plane_at = start + channel * plane;
        // Squares of the first square, and of both together.
        part = vec2<f32>();
        for (var i = local; i < plane; i += WORKGROUP) {
            let v = best[plane_at + i] - clean[plane_at + i];
            let in_first = within(i, first, size);
            part.x += select(0.0, v * v, in_first);
            part.y += select(0.0, v * v, in_first || within(i, second, size));
        }
        let squares = total(part, local);
        let old = sqrt(squares.x) + TINY;
        let sign = select(-1.0, 1.0, random_uniform(stream, index, 5u + channel) >= 0.5);
        part = vec2<f32>();
        for (var i = local; i < size * size; i += WORKGROUP) {
            let y = i / size;
            let x = i % size;
            let at = plane_at + (first.x + y) * params.width + first.y + x;
            let p = pattern[select(i, x * size + y, turned)];
            let v = sign * p + (best[at] - clean[at]) / old;
            part.x += v * v;
        }
        let scale = sqrt(left + squares.y) / (sqrt(total(part, local).x) + TINY);
        for (var i = local; i < plane; i += WORKGROUP) {
            var value = best[plane_at + i] - clean[plane_at + i];
            if within(i, first, size) {
                let y = i / params.width - first.x;
                let x = i % params.width - first.y;
                let p = pattern[select(y * size + x, x * size + y, turned)];
                value = scale * (sign * p + value / old);
            } else if within(i, second, size) {
                value = 0.0;
            }
            delta[plane_at + i] = value;
        }
    }
}
