// The convolution of conv2d_lanes8.wgsl, for kernels of three by three and stride and dilation 1. A thread makes
// a square of four by four pixels and 8 output channels. One group; in_c is a multiple of 4, out_c of 8.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | weight | read | 9 * in_c * out_c (in fours) |
// | 2 | bias | read | out_c (in fours) |
// | 3 | residual | read | as y |
// | 4 | mask | read | as y |
// | 5 | y | read_write | batch * out_h * out_w * out_c (in fours) |
// | 6 | params | uniform | |
//
// Dispatch: for each 8 output channels, one thread for each square of 4 by 4 outputs, rounded up to whole
// workgroups: all lanes of a subgroup share their weights.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> mask: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

// The sums of a row of outputs, s(pixel)(channels in fours).
struct Sums {
    s00: vec4<f32>,
    s01: vec4<f32>,
    s10: vec4<f32>,
    s11: vec4<f32>,
    s20: vec4<f32>,
    s21: vec4<f32>,
    s30: vec4<f32>,
    s31: vec4<f32>,
}

// The weights of a row of taps that a lane loads. Vector i of the eight (input channel, group of output
// channels) of a tap is lane i's.
struct Taps {
    left: vec4<f32>,
    middle: vec4<f32>,
    right: vec4<f32>,
}

fn first_sums(o: u32) -> Sums {
    let b0 = first_sum(o);
    let b1 = first_sum(o + 1u);
    return Sums(b0, b1, b0, b1, b0, b1, b0, b1);
}

// Adds four input channels of one tap.
fn add_tap(before: Sums, x0: vec4<f32>, x1: vec4<f32>, x2: vec4<f32>, x3: vec4<f32>, mine: vec4<f32>) -> Sums {
    var sums = before;
    let w00 = subgroupBroadcast(mine, 0u);
    let w10 = subgroupBroadcast(mine, 2u);
    let w20 = subgroupBroadcast(mine, 4u);
    let w30 = subgroupBroadcast(mine, 6u);
    sums.s00 = accumulate(x0, w00, w10, w20, w30, sums.s00);
    sums.s10 = accumulate(x1, w00, w10, w20, w30, sums.s10);
    sums.s20 = accumulate(x2, w00, w10, w20, w30, sums.s20);
    sums.s30 = accumulate(x3, w00, w10, w20, w30, sums.s30);
    let w01 = subgroupBroadcast(mine, 1u);
    let w11 = subgroupBroadcast(mine, 3u);
    let w21 = subgroupBroadcast(mine, 5u);
    let w31 = subgroupBroadcast(mine, 7u);
    sums.s01 = accumulate(x0, w01, w11, w21, w31, sums.s01);
    sums.s11 = accumulate(x1, w01, w11, w21, w31, sums.s11);
    sums.s21 = accumulate(x2, w01, w11, w21, w31, sums.s21);
    sums.s31 = accumulate(x3, w01, w11, w21, w31, sums.s31);
    return sums;
}

fn taps_at(i: u32, tap: u32) -> Taps {
    return Taps(weights_at(i), weights_at(i + tap), weights_at(i + 2u * tap));
}

fn store_pixel(row: u32, q: u32, o: u32, v0: vec4<f32>, v1: vec4<f32>) {
    if q < params.out_w {
        let at = (row * params.out_w + q) * (params.out_c / 4u) + o;
        y[at] = finish(v0, at, o);
        y[at + 1u] = finish(v1, at + 1u, o + 1u);
    }
}

fn store_row(square: Square, down: u32, o: u32, sums: Sums) {
    let p = square.p + down;
    if p < params.out_h {
        let row = square.n * params.out_h + p;
        store_pixel(row, square.q, o, sums.s00, sums.s01);
        store_pixel(row, square.q + 1u, o, sums.s10, sums.s11);
        store_pixel(row, square.q + 2u, o, sums.s20, sums.s21);
        store_pixel(row, square.q + 3u, o, sums.s30, sums.s31);
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let filters = params.out_c / 4u;
    let number = workgroup_index(group, groups);
    // First of two vectors of output channels.
    let o = number / square_groups() * 2u;
    if o >= filters {
        return;
    }
    let square = square_at(number % square_groups() * WORKGROUP + local);
    let own = lane / 2u * filters + lane % 2u + o;
    let sums = sums_of(square, lane, own, 4u * filters, first_sums(o));
    if square.stores {
        store_row(square, 0u, o, sums.r0);
        store_row(square, 1u, o, sums.r1);
        store_row(square, 2u, o, sums.r2);
        store_row(square, 3u, o, sums.r3);
    }
}
