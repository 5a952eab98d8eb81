// A thread's share of a convolution on subgroups of exactly eight lanes: 4 pixels of an output row and
// 16 output channels, in sixteen sums s(pixel)(channels in fours).
//
// The sixteen vectors of weights of four input channels are loaded once by the eight lanes, two each,
// and handed round by broadcast: on software adapters a load costs as much as eight multiply-adds.

struct Sums {
    s00: vec4<f32>,
    s01: vec4<f32>,
    s02: vec4<f32>,
    s03: vec4<f32>,
    s10: vec4<f32>,
    s11: vec4<f32>,
    s12: vec4<f32>,
    s13: vec4<f32>,
    s20: vec4<f32>,
    s21: vec4<f32>,
    s22: vec4<f32>,
    s23: vec4<f32>,
    s30: vec4<f32>,
    s31: vec4<f32>,
    s32: vec4<f32>,
    s33: vec4<f32>,
}

// Where a thread works.
struct Place {
    // Row of the batch's output rows, and the first of four columns.
    row: u32,
    q: u32,
    // First of four vectors of output channels.
    o: u32,
    // Whether there is work for it; all others repeat the last strip and store nothing, since every lane
    // takes part in the broadcasts.
    stores: bool,
    // Whether this is a workgroup past the last one.
    idle: bool,
}

fn place(group: u32, local: u32) -> Place {
    let row_strips = (params.out_w + 3u) / 4u;
    let strips = params.batch * params.out_h * row_strips;
    let strip_groups = (strips + WORKGROUP - 1u) / WORKGROUP;
    let o = group / strip_groups * 4u;
    let position = group % strip_groups * WORKGROUP + local;
    let strip = min(position, strips - 1u);
    let stores = position < strips;
    let idle = o >= params.out_c / 4u;
    return Place(strip / row_strips, strip % row_strips * 4u, o, stores, idle);
}

// Position of the first of the two weights that a lane loads; the other is two input channels on.
// Vectors i and i + 8 of the sixteen (input channel, group of output channels) are lane i's.
fn own_weight(o: u32, lane: u32) -> u32 {
    return lane / 4u * (params.out_c / 4u) + lane % 4u + o;
}

fn first_sums(o: u32) -> Sums {
    let b0 = first_sum(o);
    let b1 = first_sum(o + 1u);
    let b2 = first_sum(o + 2u);
    let b3 = first_sum(o + 3u);
    return Sums(b0, b1, b2, b3, b0, b1, b2, b3, b0, b1, b2, b3, b0, b1, b2, b3);
}

// Adds four input channels of one tap: x0 to x3 are what the four pixels meet, `mine` this lane's weights.
fn add_tap(
    before: Sums,
    x0: vec4<f32>,
    x1: vec4<f32>,
    x2: vec4<f32>,
    x3: vec4<f32>,
    mine0: vec4<f32>,
    mine1: vec4<f32>,
) -> Sums {
    var sums = before;
    let w00 = subgroupBroadcast(mine0, 0u);
    let w10 = subgroupBroadcast(mine0, 4u);
    let w20 = subgroupBroadcast(mine1, 0u);
    let w30 = subgroupBroadcast(mine1, 4u);
    sums.s00 = accumulate(x0, w00, w10, w20, w30, sums.s00);
    sums.s10 = accumulate(x1, w00, w10, w20, w30, sums.s10);
    sums.s20 = accumulate(x2, w00, w10, w20, w30, sums.s20);
    sums.s30 = accumulate(x3, w00, w10, w20, w30, sums.s30);
    let w01 = subgroupBroadcast(mine0, 1u);
    let w11 = subgroupBroadcast(mine0, 5u);
    let w21 = subgroupBroadcast(mine1, 1u);
    let w31 = subgroupBroadcast(mine1, 5u);
    sums.s01 = accumulate(x0, w01, w11, w21, w31, sums.s01);
    sums.s11 = accumulate(x1, w01, w11, w21, w31, sums.s11);
    sums.s21 = accumulate(x2, w01, w11, w21, w31, sums.s21);
    sums.s31 = accumulate(x3, w01, w11, w21, w31, sums.s31);
    let w02 = subgroupBroadcast(mine0, 2u);
    let w12 = subgroupBroadcast(mine0, 6u);
    let w22 = subgroupBroadcast(mine1, 2u);
    let w32 = subgroupBroadcast(mine1, 6u);
    sums.s02 = accumulate(x0, w02, w12, w22, w32, sums.s02);
    sums.s12 = accumulate(x1, w02, w12, w22, w32, sums.s12);
    sums.s22 = accumulate(x2, w02, w12, w22, w32, sums.s22);
    sums.s32 = accumulate(x3, w02, w12, w22, w32, sums.s32);
    let w03 = subgroupBroadcast(mine0, 3u);
    let w13 = subgroupBroadcast(mine0, 7u);
    let w23 = subgroupBroadcast(mine1, 3u);
    let w33 = subgroupBroadcast(mine1, 7u);
    sums.s03 = accumulate(x0, w03, w13, w23, w33, sums.s03);
    sums.s13 = accumulate(x1, w03, w13, w23, w33, sums.s13);
    sums.s23 = accumulate(x2, w03, w13, w23, w33, sums.s23);
    sums.s33 = accumulate(x3, w03, w13, w23, w33, sums.s33);
    return sums;
}

fn store_pixel(place: Place, pixel: u32, v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>) {
    let q = place.q + pixel;
    if q < params.out_w {
        let at = (place.row * params.out_w + q) * (params.out_c / 4u) + place.o;
        y[at] = finish(v0, at, place.o);
        y[at + 1u] = finish(v1, at + 1u, place.o + 1u);
        y[at + 2u] = finish(v2, at + 2u, place.o + 2u);
        y[at + 3u] = finish(v3, at + 3u, place.o + 3u);
    }
}

fn store(place: Place, sums: Sums) {
    if place.stores {
        store_pixel(place, 0u, sums.s00, sums.s01, sums.s02, sums.s03);
        store_pixel(place, 1u, sums.s10, sums.s11, sums.s12, sums.s13);
        store_pixel(place, 2u, sums.s20, sums.s21, sums.s22, sums.s23);
        store_pixel(place, 3u, sums.s30, sums.s31, sums.s32, sums.s33);
    }
}
