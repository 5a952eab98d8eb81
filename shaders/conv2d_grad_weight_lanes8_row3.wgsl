// The gradient of conv2d_grad_weight_lanes8.wgsl, for kernels three wide where the next tap of a pixel is this tap
// of the next pixel (stride_w = dilation_w): the three taps of four pixels then meet six positions of a row, not
// twelve.
//
// A thread makes 4 input channels by 16 output channels of a row of three taps, over its part of the output rows.
// The gradients of four pixels, sixteen vectors, are loaded once, two by each lane, and handed round by broadcast.
// One group; in_c is a multiple of 4, out_c of 16. `option` is the number of parts.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | dy | read | batch * out_h * out_w * out_c (in fours) |
// | 2 | partial | read_write | parts * kernel_h * 3 * in_c * out_c (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: for each part and each 16 output channels, one thread for each row of taps and 4 input
// channels, rounded up to whole subgroups.

// The binding of dy.
const DY = 1;

@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

// The sums of one tap, s(input channel)(output channels in fours).
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

fn no_sums() -> Sums {
    let none = vec4<f32>();
    return Sums(none, none, none, none, none, none, none, none, none, none, none, none, none, none, none, none);
}

// Adds four pixels of one tap: x0 to x3 are what they meet. Vectors i and i + 8 of the sixteen (pixel, group of
// output channels) of dy are lane i's.
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
    let y00 = subgroupBroadcast(mine0, 0u);
    let y10 = subgroupBroadcast(mine0, 4u);
    let y20 = subgroupBroadcast(mine1, 0u);
    let y30 = subgroupBroadcast(mine1, 4u);
    sums.s00 = accumulate(vec4<f32>(x0.x, x1.x, x2.x, x3.x), y00, y10, y20, y30, sums.s00);
    sums.s10 = accumulate(vec4<f32>(x0.y, x1.y, x2.y, x3.y), y00, y10, y20, y30, sums.s10);
    sums.s20 = accumulate(vec4<f32>(x0.z, x1.z, x2.z, x3.z), y00, y10, y20, y30, sums.s20);
    sums.s30 = accumulate(vec4<f32>(x0.w, x1.w, x2.w, x3.w), y00, y10, y20, y30, sums.s30);
    let y01 = subgroupBroadcast(mine0, 1u);
    let y11 = subgroupBroadcast(mine0, 5u);
    let y21 = subgroupBroadcast(mine1, 1u);
    let y31 = subgroupBroadcast(mine1, 5u);
    sums.s01 = accumulate(vec4<f32>(x0.x, x1.x, x2.x, x3.x), y01, y11, y21, y31, sums.s01);
    sums.s11 = accumulate(vec4<f32>(x0.y, x1.y, x2.y, x3.y), y01, y11, y21, y31, sums.s11);
    sums.s21 = accumulate(vec4<f32>(x0.z, x1.z, x2.z, x3.z), y01, y11, y21, y31, sums.s21);
    sums.s31 = accumulate(vec4<f32>(x0.w, x1.w, x2.w, x3.w), y01, y11, y21, y31, sums.s31);
    let y02 = subgroupBroadcast(mine0, 2u);
    let y12 = subgroupBroadcast(mine0, 6u);
    let y22 = subgroupBroadcast(mine1, 2u);
    let y32 = subgroupBroadcast(mine1, 6u);
    sums.s02 = accumulate(vec4<f32>(x0.x, x1.x, x2.x, x3.x), y02, y12, y22, y32, sums.s02);
    sums.s12 = accumulate(vec4<f32>(x0.y, x1.y, x2.y, x3.y), y02, y12, y22, y32, sums.s12);
    sums.s22 = accumulate(vec4<f32>(x0.z, x1.z, x2.z, x3.z), y02, y12, y22, y32, sums.s22);
    sums.s32 = accumulate(vec4<f32>(x0.w, x1.w, x2.w, x3.w), y02, y12, y22, y32, sums.s32);
    let y03 = subgroupBroadcast(mine0, 3u);
    let y13 = subgroupBroadcast(mine0, 7u);
    let y23 = subgroupBroadcast(mine1, 3u);
    let y33 = subgroupBroadcast(mine1, 7u);
    sums.s03 = accumulate(vec4<f32>(x0.x, x1.x, x2.x, x3.x), y03, y13, y23, y33, sums.s03);
    sums.s13 = accumulate(vec4<f32>(x0.y, x1.y, x2.y, x3.y), y03, y13, y23, y33, sums.s13);
    sums.s23 = accumulate(vec4<f32>(x0.z, x1.z, x2.z, x3.z), y03, y13, y23, y33, sums.s23);
    sums.s33 = accumulate(vec4<f32>(x0.w, x1.w, x2.w, x3.w), y03, y13, y23, y33, sums.s33);
    return sums;
}

fn store(to: u32, filters: u32, sums: Sums) {
    partial[to + 0u * filters + 0u] = sums.s00;
    partial[to + 0u * filters + 1u] = sums.s01;
    partial[to + 0u * filters + 2u] = sums.s02;
    partial[to + 0u * filters + 3u] = sums.s03;
    partial[to + 1u * filters + 0u] = sums.s10;
    partial[to + 1u * filters + 1u] = sums.s11;
    partial[to + 1u * filters + 2u] = sums.s12;
    partial[to + 1u * filters + 3u] = sums.s13;
    partial[to + 2u * filters + 0u] = sums.s20;
    partial[to + 2u * filters + 1u] = sums.s21;
    partial[to + 2u * filters + 2u] = sums.s22;
    partial[to + 2u * filters + 3u] = sums.s23;
    partial[to + 3u * filters + 0u] = sums.s30;
    partial[to + 3u * filters + 1u] = sums.s31;
    partial[to + 3u * filters + 2u] = sums.s32;
    partial[to + 3u * filters + 3u] = sums.s33;
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
    let tiles = params.kernel_h * channels;
    let padded = (tiles + 7u) / 8u * 8u;
    let blocks = filters / 4u;
    let i = thread_index(group, groups, local);
    let part = i / padded / blocks;
    // The same for all lanes of a subgroup.
    if part >= params.option {
        return;
    }
    let o = i / padded % blocks * 4u;
    let tile = min(i % padded, tiles - 1u);
    let c = tile % channels;
    let r = tile / channels;
    let rows = params.batch * params.out_h;
    let rows_per_part = (rows + params.option - 1u) / params.option;
    let end = min((part + 1u) * rows_per_part, rows);
    let last = params.in_w - 1u;
    var left = no_sums();
    var middle = no_sums();
    var right = no_sums();
    for (var row = part * rows_per_part; row < end; row++) {
        let i_h = row % params.out_h * params.stride_h + r * params.dilation_h - params.pad_top;
        let row_inside = i_h < params.in_h;
        let image_row = (row / params.out_h * params.in_h + min(i_h, params.in_h - 1u)) * params.in_w;
        for (var q = 0u; q < params.out_w; q += 4u) {
            // The gradient of a pixel past the end of the row counts as 0.
            let pixel0 = q + lane / 4u;
            let pixel1 = pixel0 + 2u;
            let end_of_row = params.out_w - 1u;
            let at0 = (row * params.out_w + min(pixel0, end_of_row)) * filters + o + lane % 4u;
            let at1 = (row * params.out_w + min(pixel1, end_of_row)) * filters + o + lane % 4u;
            let mine0 = select(vec4<f32>(), dy_at(at0), pixel0 <= end_of_row);
            let mine1 = select(vec4<f32>(), dy_at(at1), pixel1 <= end_of_row);
            // One before the image wraps to a huge one, so one comparison finds both edges.
            let start = q * params.stride_w - params.pad_left;
            let j = start + params.stride_w * vec4<u32>(0u, 1u, 2u, 3u);
            let k = start + params.stride_w * vec2<u32>(4u, 5u);
            let inside = (j <= vec4<u32>(last)) & vec4<bool>(row_inside);
            let inside_too = (k <= vec2<u32>(last)) & vec2<bool>(row_inside);
            let at = (image_row + min(j, vec4<u32>(last))) * channels + c;
            let at_too = (image_row + min(k, vec2<u32>(last))) * channels + c;
            let x0 = select(vec4<f32>(), x_at(at.x), inside.x);
            let x1 = select(vec4<f32>(), x_at(at.y), inside.y);
            let x2 = select(vec4<f32>(), x_at(at.z), inside.z);
            let x3 = select(vec4<f32>(), x_at(at.w), inside.w);
            left = add_tap(left, x0, x1, x2, x3, mine0, mine1);
            let x4 = select(vec4<f32>(), x_at(at_too.x), inside_too.x);
            middle = add_tap(middle, x1, x2, x3, x4, mine0, mine1);
            let x5 = select(vec4<f32>(), x_at(at_too.y), inside_too.y);
            right = add_tap(right, x2, x3, x4, x5, mine0, mine1);
        }
    }
    if i % padded >= tiles {
        return;
    }
    // A tap has in_c rows of the kernel's filters, four of them this thread's.
    let tap = params.in_c * filters;
    let to = part * params.kernel_h * 3u * tap + r * 3u * tap + c * 4u * filters + o;
    store(to, filters, left);
    store(to + tap, filters, middle);
    store(to + 2u * tap, filters, right);
}
