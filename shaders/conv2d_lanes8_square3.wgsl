// The convolution of conv2d_lanes8.wgsl, for kernels of three by three and stride and dilation 1. A thread makes
// a square of four by four pixels and 8 output channels: a position of the image serves up to three rows of
// outputs, and the two beside a thread's own four come from the lanes that loaded them.
// One group; in_c is a multiple of 4, out_c of 8.
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

// The six positions of a row of x that the taps of four pixels meet.
struct Row {
    x0: vec4<f32>,
    x1: vec4<f32>,
    x2: vec4<f32>,
    x3: vec4<f32>,
    x4: vec4<f32>,
    x5: vec4<f32>,
}

// The weights of a row of taps that a lane loads. Vector i of the eight (input channel, group of output
// channels) of a tap is lane i's.
struct Taps {
    left: vec4<f32>,
    middle: vec4<f32>,
    right: vec4<f32>,
}

// Where the positions of a row lie, the same for all rows and channels.
struct Columns {
    // The inner four: where, and whether that is inside of the image.
    at: vec4<u32>,
    inside: vec4<bool>,
    // The outer two: whether a neighbouring lane has loaded the position, or else whether it has to be loaded.
    given: vec2<bool>,
    outer: vec2<u32>,
    loaded: vec2<bool>,
}

fn columns(square: u32, q: u32, lane: u32) -> Columns {
    let channels = params.in_c / 4u;
    // Which lane is beside which thread is the device's choice, so it is asked.
    let before = subgroupShuffleUp(square, 1u) + 1u == square;
    let after = subgroupShuffleDown(square, 1u) == square + 1u;
    // One before the image wraps to a huge one, so one comparison finds both edges.
    let start = q - params.pad_left;
    let inner = start + vec4<u32>(1u, 2u, 3u, 4u);
    let outer = start + vec2<u32>(0u, 5u);
    let last = params.in_w - 1u;
    let given = vec2<bool>(before & (lane > 0u) & (q > 0u), after & (lane < 7u) & (q + 4u < params.out_w));
    let inside = outer <= vec2<u32>(last);
    return Columns(
        min(inner, vec4<u32>(last)) * channels,
        inner <= vec4<u32>(last),
        given & inside,
        min(outer, vec2<u32>(last)) * channels,
        inside & !given,
    );
}

// Input row i_h of image n, four channels from 4c on.
fn row_at(columns: Columns, n: u32, i_h: u32, c: u32) -> Row {
    let inside = i_h < params.in_h;
    let first = (n * params.in_h + min(i_h, params.in_h - 1u)) * params.in_w * (params.in_c / 4u) + c;
    let own = columns.inside & vec4<bool>(inside);
    let x1 = select(vec4<f32>(), x[first + columns.at.x], own.x);
    let x2 = select(vec4<f32>(), x[first + columns.at.y], own.y);
    let x3 = select(vec4<f32>(), x[first + columns.at.z], own.z);
    let x4 = select(vec4<f32>(), x[first + columns.at.w], own.w);
    var x0 = select(vec4<f32>(), subgroupShuffleUp(x4, 1u), columns.given.x);
    var x5 = select(vec4<f32>(), subgroupShuffleDown(x1, 1u), columns.given.y);
    if columns.loaded.x & inside {
        x0 = x[first + columns.outer.x];
    }
    if columns.loaded.y & inside {
        x5 = x[first + columns.outer.y];
    }
    return Row(x0, x1, x2, x3, x4, x5);
}

fn first_sums(o: u32) -> Sums {
    let b0 = first_sum(o);
    let b1 = first_sum(o + 1u);
    return Sums(b0, b1, b0, b1, b0, b1, b0, b1);
}

fn accumulate(a: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(vec4<f32>(a.w), w3, fma(vec4<f32>(a.z), w2, fma(vec4<f32>(a.y), w1, fma(vec4<f32>(a.x), w0, sum))));
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

fn add_row(before: Sums, row: Row, taps: Taps) -> Sums {
    let left = add_tap(before, row.x0, row.x1, row.x2, row.x3, taps.left);
    let middle = add_tap(left, row.x1, row.x2, row.x3, row.x4, taps.middle);
    return add_tap(middle, row.x2, row.x3, row.x4, row.x5, taps.right);
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

// `p` is the row of image n.
fn store_row(n: u32, p: u32, q: u32, o: u32, sums: Sums) {
    if p < params.out_h {
        let row = n * params.out_h + p;
        store_pixel(row, q, o, sums.s00, sums.s01);
        store_pixel(row, q + 1u, o, sums.s10, sums.s11);
        store_pixel(row, q + 2u, o, sums.s20, sums.s21);
        store_pixel(row, q + 3u, o, sums.s30, sums.s31);
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let channels = params.in_c / 4u;
    let filters = params.out_c / 4u;
    let across = (params.out_w + 3u) / 4u;
    let down = (params.out_h + 3u) / 4u;
    let squares = params.batch * down * across;
    let square_groups = (squares + WORKGROUP - 1u) / WORKGROUP;
    let number = workgroup_index(group, groups);
    // First of two vectors of output channels.
    let o = number / square_groups * 2u;
    if o >= filters {
        return;
    }
    let position = number % square_groups * WORKGROUP + local;
    // Threads without work repeat the last square and store nothing, since every lane takes part in the broadcasts.
    let square = min(position, squares - 1u);
    let q = square % across * 4u;
    let p = square / across % down * 4u;
    let n = square / across / down;
    let columns = columns(square, q, lane);
    let i_h = p - params.pad_top;
    let tap = params.in_c * filters;
    let own = lane / 2u * filters + lane % 2u + o;
    let none = first_sums(o);
    var sums0 = none;
    var sums1 = none;
    var sums2 = none;
    var sums3 = none;
    for (var c = 0u; c < channels; c++) {
        let weights = own + c * 4u * filters;
        let top = taps_at(weights, tap);
        let middle = taps_at(weights + 3u * tap, tap);
        let bottom = taps_at(weights + 6u * tap, tap);
        let row0 = row_at(columns, n, i_h, c);
        sums0 = add_row(sums0, row0, top);
        let row1 = row_at(columns, n, i_h + 1u, c);
        sums0 = add_row(sums0, row1, middle);
        sums1 = add_row(sums1, row1, top);
        let row2 = row_at(columns, n, i_h + 2u, c);
        sums0 = add_row(sums0, row2, bottom);
        sums1 = add_row(sums1, row2, middle);
        sums2 = add_row(sums2, row2, top);
        let row3 = row_at(columns, n, i_h + 3u, c);
        sums1 = add_row(sums1, row3, bottom);
        sums2 = add_row(sums2, row3, middle);
        sums3 = add_row(sums3, row3, top);
        let row4 = row_at(columns, n, i_h + 4u, c);
        sums2 = add_row(sums2, row4, bottom);
        sums3 = add_row(sums3, row4, middle);
        let row5 = row_at(columns, n, i_h + 5u, c);
        sums3 = add_row(sums3, row5, bottom);
    }
    if position < squares {
        store_row(n, p, q, o, sums0);
        store_row(n, p + 1u, q, o, sums1);
        store_row(n, p + 2u, q, o, sums2);
        store_row(n, p + 3u, q, o, sums3);
    }
}
