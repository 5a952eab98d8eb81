// The convolution of conv2d_lanes8_narrow.wgsl, for kernels of three by three and stride and dilation 1. A thread makes
// a square of four by four pixels. One group; in_c is a multiple of 4, out_c at most 4.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | weight | read | 9 * in_c * out_c |
// | 2 | bias | read | out_c |
// | 3 | residual | read | as y |
// | 4 | mask | read | as y |
// | 5 | y | read_write | batch * out_h * out_w * out_c |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each square of 4 by 4 outputs, rounded up to whole workgroups: all lanes of a subgroup
// share their weights.

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read> mask: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

// The sums of a row of outputs.
struct Sums {
    s0: vec4<f32>,
    s1: vec4<f32>,
    s2: vec4<f32>,
    s3: vec4<f32>,
}

// The weights of four input channels for a tap.
struct Tap {
    w0: vec4<f32>,
    w1: vec4<f32>,
    w2: vec4<f32>,
    w3: vec4<f32>,
}

// The sixteen weights of a tap, from the lanes that load them: two each.
fn tap_at(i: u32) -> Tap {
    let low = weight_at(i);
    let high = weight_at(i + 2u * params.out_c);
    return Tap(share_low(low), share_high(low), share_low(high), share_high(high));
}

fn add_tap(before: Sums, met: Met, tap: Tap) -> Sums {
    return Sums(
        accumulate(met.x0, tap.w0, tap.w1, tap.w2, tap.w3, before.s0),
        accumulate(met.x1, tap.w0, tap.w1, tap.w2, tap.w3, before.s1),
        accumulate(met.x2, tap.w0, tap.w1, tap.w2, tap.w3, before.s2),
        accumulate(met.x3, tap.w0, tap.w1, tap.w2, tap.w3, before.s3),
    );
}

fn store_row(square: Square, down: u32, sums: Sums) {
    let p = square.p + down;
    if p < params.out_h {
        let row = square.n * params.out_h + p;
        store(row, square.q, 0u, params.out_c, sums.s0);
        store(row, square.q + 1u, 0u, params.out_c, sums.s1);
        store(row, square.q + 2u, 0u, params.out_c, sums.s2);
        store(row, square.q + 3u, 0u, params.out_c, sums.s3);
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let number = workgroup_index(group, groups);
    if number >= square_groups() {
        return;
    }
    let square = square_at(number * WORKGROUP + local);
    let first = first_sum(min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.out_c - 1u)));
    let sums = sums_of(square, lane, own_weight(lane), 4u * params.out_c, Sums(first, first, first, first));
    if square.stores {
        store_row(square, 0u, sums.r0);
        store_row(square, 1u, sums.r1);
        store_row(square, 2u, sums.r2);
        store_row(square, 3u, sums.r3);
    }
}
