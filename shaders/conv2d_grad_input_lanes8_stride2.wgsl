// The gradient of conv2d_grad_input_lanes8.wgsl, for kernels of three by three, stride 2, dilation 1, and odd padding
// before rows and columns. A thread makes a square of four by four pixels and 8 input channels: three by three
// positions of dy serve all four phases of the stride. One group; out_c is a multiple of 4, in_c of 8.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | batch * out_h * out_w * out_c (in fours) |
// | 1 | weight | read | 9 * in_c * out_c (in fours) |
// | 2 | dx | read_write | batch * in_h * in_w * in_c (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: for each 8 input channels, one thread for each square of 4 by 4 pixels, rounded up to whole workgroups: all
// lanes of a subgroup share their weights.

// The binding of dy.
const DY = 0;

@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

// The sums of a pixel: its first four channels, and the last.
struct Sums {
    low: vec4<f32>,
    high: vec4<f32>,
}

// The weights of eight input channels, each by four output channels.
struct Weights {
    w0: vec4<f32>,
    w1: vec4<f32>,
    w2: vec4<f32>,
    w3: vec4<f32>,
    w4: vec4<f32>,
    w5: vec4<f32>,
    w6: vec4<f32>,
    w7: vec4<f32>,
}

// Those of input channel i are what lane i has loaded.
fn shared_weights(mine: vec4<f32>) -> Weights {
    return Weights(
        subgroupBroadcast(mine, 0u),
        subgroupBroadcast(mine, 1u),
        subgroupBroadcast(mine, 2u),
        subgroupBroadcast(mine, 3u),
        subgroupBroadcast(mine, 4u),
        subgroupBroadcast(mine, 5u),
        subgroupBroadcast(mine, 6u),
        subgroupBroadcast(mine, 7u),
    );
}

fn add(sums: Sums, y: vec4<f32>, w: Weights) -> Sums {
    return Sums(
        add_dots(sums.low, y, w.w0, w.w1, w.w2, w.w3),
        add_dots(sums.high, y, w.w4, w.w5, w.w6, w.w7),
    );
}

fn store(n: u32, i: u32, j: u32, c: u32, sums: Sums) {
    if i < params.in_h && j < params.in_w {
        let at = ((n * params.in_h + i) * params.in_w + j) * (params.in_c / 4u) + c;
        dx[at] = sums.low;
        dx[at + 1u] = sums.high;
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
    let across = (params.in_w + 3u) / 4u;
    let down = (params.in_h + 3u) / 4u;
    let squares = params.batch * down * across;
    let square_groups = (squares + WORKGROUP - 1u) / WORKGROUP;
    let number = workgroup_index(group, groups);
    // First of two vectors of input channels.
    let c = number / square_groups * 2u;
    if c >= channels {
        return;
    }
    let position = number % square_groups * WORKGROUP + local;
    // Threads without work repeat the last square and store nothing, since every lane takes part in the broadcasts.
    let square = min(position, squares - 1u);
    let j = square % across * 4u;
    let i = square / across % down * 4u;
    let n = square / across / down;
    // The first of three rows, and columns, of dy that the square meets.
    let p = (i + params.pad_top - 1u) / 2u;
    let q = vec3<u32>(0u, 1u, 2u) + (j + params.pad_left - 1u) / 2u;
    let has_column = q < vec3<u32>(params.out_w);
    let column = min(q, vec3<u32>(params.out_w - 1u)) * filters;
    let rows = min(vec3<u32>(p, p + 1u, p + 2u), vec3<u32>(params.out_h - 1u)) + n * params.out_h;
    let row0 = rows.x * params.out_w * filters + column;
    let row1 = rows.y * params.out_w * filters + column;
    let row2 = rows.z * params.out_w * filters + column;
    let inside0 = has_column & vec3<bool>(p < params.out_h);
    let inside1 = has_column & vec3<bool>(p + 1u < params.out_h);
    let inside2 = has_column & vec3<bool>(p + 2u < params.out_h);
    let first = (c * 4u + lane) * filters;
    let tap = params.in_c * filters;
    var sum00 = Sums();
    var sum01 = Sums();
    var sum02 = Sums();
    var sum03 = Sums();
    var sum10 = Sums();
    var sum11 = Sums();
    var sum12 = Sums();
    var sum13 = Sums();
    var sum20 = Sums();
    var sum21 = Sums();
    var sum22 = Sums();
    var sum23 = Sums();
    var sum30 = Sums();
    var sum31 = Sums();
    var sum32 = Sums();
    var sum33 = Sums();
    for (var o = 0u; o < filters; o++) {
        let y00 = select(vec4<f32>(), dy_at(row0.x + o), inside0.x);
        let y01 = select(vec4<f32>(), dy_at(row0.y + o), inside0.y);
        let y02 = select(vec4<f32>(), dy_at(row0.z + o), inside0.z);
        let y10 = select(vec4<f32>(), dy_at(row1.x + o), inside1.x);
        let y11 = select(vec4<f32>(), dy_at(row1.y + o), inside1.y);
        let y12 = select(vec4<f32>(), dy_at(row1.z + o), inside1.z);
        let y20 = select(vec4<f32>(), dy_at(row2.x + o), inside2.x);
        let y21 = select(vec4<f32>(), dy_at(row2.y + o), inside2.y);
        let y22 = select(vec4<f32>(), dy_at(row2.z + o), inside2.z);
        let w0 = shared_weights(weights_at(first + 0u * tap + o));
        sum11 = add(sum11, y11, w0);
        sum13 = add(sum13, y12, w0);
        sum31 = add(sum31, y21, w0);
        sum33 = add(sum33, y22, w0);
        let w1 = shared_weights(weights_at(first + 1u * tap + o));
        sum10 = add(sum10, y10, w1);
        sum12 = add(sum12, y11, w1);
        sum30 = add(sum30, y20, w1);
        sum32 = add(sum32, y21, w1);
        let w2 = shared_weights(weights_at(first + 2u * tap + o));
        sum11 = add(sum11, y10, w2);
        sum13 = add(sum13, y11, w2);
        sum31 = add(sum31, y20, w2);
        sum33 = add(sum33, y21, w2);
        let w3 = shared_weights(weights_at(first + 3u * tap + o));
        sum01 = add(sum01, y01, w3);
        sum03 = add(sum03, y02, w3);
        sum21 = add(sum21, y11, w3);
        sum23 = add(sum23, y12, w3);
        let w4 = shared_weights(weights_at(first + 4u * tap + o));
        sum00 = add(sum00, y00, w4);
        sum02 = add(sum02, y01, w4);
        sum20 = add(sum20, y10, w4);
        sum22 = add(sum22, y11, w4);
        let w5 = shared_weights(weights_at(first + 5u * tap + o));
        sum01 = add(sum01, y00, w5);
        sum03 = add(sum03, y01, w5);
        sum21 = add(sum21, y10, w5);
        sum23 = add(sum23, y11, w5);
        let w6 = shared_weights(weights_at(first + 6u * tap + o));
        sum11 = add(sum11, y01, w6);
        sum13 = add(sum13, y02, w6);
        sum31 = add(sum31, y11, w6);
        sum33 = add(sum33, y12, w6);
        let w7 = shared_weights(weights_at(first + 7u * tap + o));
        sum10 = add(sum10, y00, w7);
        sum12 = add(sum12, y01, w7);
        sum30 = add(sum30, y10, w7);
        sum32 = add(sum32, y11, w7);
        let w8 = shared_weights(weights_at(first + 8u * tap + o));
        sum11 = add(sum11, y00, w8);
        sum13 = add(sum13, y01, w8);
        sum31 = add(sum31, y10, w8);
        sum33 = add(sum33, y11, w8);
    }
    if position >= squares {
        return;
    }
    store(n, i + 0u, j + 0u, c, sum00);
    store(n, i + 0u, j + 1u, c, sum01);
    store(n, i + 0u, j + 2u, c, sum02);
    store(n, i + 0u, j + 3u, c, sum03);
    store(n, i + 1u, j + 0u, c, sum10);
    store(n, i + 1u, j + 1u, c, sum11);
    store(n, i + 1u, j + 2u, c, sum12);
    store(n, i + 1u, j + 3u, c, sum13);
    store(n, i + 2u, j + 0u, c, sum20);
    store(n, i + 2u, j + 1u, c, sum21);
    store(n, i + 2u, j + 2u, c, sum22);
    store(n, i + 2u, j + 3u, c, sum23);
    store(n, i + 3u, j + 0u, c, sum30);
    store(n, i + 3u, j + 1u, c, sum31);
    store(n, i + 3u, j + 2u, c, sum32);
    store(n, i + 3u, j + 3u, c, sum33);
}
