// The convolution of conv2d_lanes8.wgsl, for kernels of three by three, a stride of 1 or 2 and dilation 1. A thread
// makes a square of four by four pixels and 16 output channels. One group; in_c and out_c are multiples of 4.
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
// Dispatch: for each 16 output channels, one thread for each square of 4 by 4 outputs, rounded up to whole
// workgroups: all lanes of a subgroup share their weights.

@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

// The sums of a pixel, output channels in fours.
struct Pixel {
    o0: vec4<f32>,
    o1: vec4<f32>,
    o2: vec4<f32>,
    o3: vec4<f32>,
}

// The sums of a row of outputs.
struct Sums {
    p0: Pixel,
    p1: Pixel,
    p2: Pixel,
    p3: Pixel,
}

// The weights of a tap that a lane loads. Vectors i and i + 8 of the sixteen (input channel, group of output channels)
// are lane i's.
struct Tap {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn first_sums(o: u32) -> Sums {
    let last = params.out_c / 4u - 1u;
    let first = Pixel(
        first_sum(o),
        first_sum(min(o + 1u, last)),
        first_sum(min(o + 2u, last)),
        first_sum(min(o + 3u, last)),
    );
    return Sums(first, first, first, first);
}

fn tap_at(i: u32) -> Tap {
    return Tap(weights_at(i), weights_at(i + 2u * (params.out_c / 4u)));
}

// Adds four input channels of one tap.
fn add_tap(before: Sums, met: Met, tap: Tap) -> Sums {
    var sums = before;
    let w00 = subgroupBroadcast(tap.low, 0u);
    let w10 = subgroupBroadcast(tap.low, 4u);
    let w20 = subgroupBroadcast(tap.high, 0u);
    let w30 = subgroupBroadcast(tap.high, 4u);
    sums.p0.o0 = accumulate(met.x0, w00, w10, w20, w30, sums.p0.o0);
    sums.p1.o0 = accumulate(met.x1, w00, w10, w20, w30, sums.p1.o0);
    sums.p2.o0 = accumulate(met.x2, w00, w10, w20, w30, sums.p2.o0);
    sums.p3.o0 = accumulate(met.x3, w00, w10, w20, w30, sums.p3.o0);
    let w01 = subgroupBroadcast(tap.low, 1u);
    let w11 = subgroupBroadcast(tap.low, 5u);
    let w21 = subgroupBroadcast(tap.high, 1u);
    let w31 = subgroupBroadcast(tap.high, 5u);
    sums.p0.o1 = accumulate(met.x0, w01, w11, w21, w31, sums.p0.o1);
    sums.p1.o1 = accumulate(met.x1, w01, w11, w21, w31, sums.p1.o1);
    sums.p2.o1 = accumulate(met.x2, w01, w11, w21, w31, sums.p2.o1);
    sums.p3.o1 = accumulate(met.x3, w01, w11, w21, w31, sums.p3.o1);
    let w02 = subgroupBroadcast(tap.low, 2u);
    let w12 = subgroupBroadcast(tap.low, 6u);
    let w22 = subgroupBroadcast(tap.high, 2u);
    let w32 = subgroupBroadcast(tap.high, 6u);
    sums.p0.o2 = accumulate(met.x0, w02, w12, w22, w32, sums.p0.o2);
    sums.p1.o2 = accumulate(met.x1, w02, w12, w22, w32, sums.p1.o2);
    sums.p2.o2 = accumulate(met.x2, w02, w12, w22, w32, sums.p2.o2);
    sums.p3.o2 = accumulate(met.x3, w02, w12, w22, w32, sums.p3.o2);
    let w03 = subgroupBroadcast(tap.low, 3u);
    let w13 = subgroupBroadcast(tap.low, 7u);
    let w23 = subgroupBroadcast(tap.high, 3u);
    let w33 = subgroupBroadcast(tap.high, 7u);
    sums.p0.o3 = accumulate(met.x0, w03, w13, w23, w33, sums.p0.o3);
    sums.p1.o3 = accumulate(met.x1, w03, w13, w23, w33, sums.p1.o3);
    sums.p2.o3 = accumulate(met.x2, w03, w13, w23, w33, sums.p2.o3);
    sums.p3.o3 = accumulate(met.x3, w03, w13, w23, w33, sums.p3.o3);
    return sums;
}

// Loops, over what moves up after each round, because llvmpipe compiles and runs little code sooner.
fn store(square: Square, o: u32, sums: Rows) {
    let filters = params.out_c / 4u;
    var rows = sums;
    for (var p = square.p; p < min(square.p + 4u, params.out_h); p++) {
        var row = rows.r0;
        for (var q = square.q; q < min(square.q + 4u, params.out_w); q++) {
            let first = ((square.n * params.out_h + p) * params.out_w + q) * filters;
            var pixel = row.p0;
            for (var k = o; k < min(o + 4u, filters); k++) {
                y[first + k] = finish(pixel.o0, first + k, k);
                pixel = Pixel(pixel.o1, pixel.o2, pixel.o3, pixel.o3);
            }
            row = Sums(row.p1, row.p2, row.p3, row.p3);
        }
        rows = Rows(rows.r1, rows.r2, rows.r3, rows.r3);
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
    // First of four vectors of output channels.
    let o = number / square_groups() * 4u;
    if o >= filters {
        return;
    }
    let square = square_at(number % square_groups() * WORKGROUP + local);
    // Output channels past the last are the last ones again, and are not stored.
    let own = lane / 4u * filters + min(o + lane % 4u, filters - 1u);
    let sums = sums_of(square, lane, own, 4u * filters, first_sums(o));
    if square.stores {
        store(square, o, sums);
    }
}
