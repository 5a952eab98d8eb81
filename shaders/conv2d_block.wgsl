// y[n,p,q,o] = bias[o] + sum over r,s,c of
//     x[n, p * stride_h + r * dilation_h - pad_top, q * stride_w + s * dilation_w - pad_left, c] * weight[r,s,c,o],
// and then the epilogue. What the epilogue does without is bound but not read. One group; in_c and out_c
// are multiples of 4.
//
// As a product of matrices: rows are the pixels of y, columns its channels, and the sum runs over the
// elements (r,s,c) of the kernel, in units of four channels. Columns of x are not written anywhere: a thread
// finds its part of them where it is.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | weight | read | kernel_h * kernel_w * in_c * out_c (in fours) |
// | 2 | bias | read | out_c (in fours) |
// | 3 | residual | read | as y |
// | 4 | mask | read | as y |
// | 5 | y | read_write | batch * out_h * out_w * out_c (in fours) |
// | 6 | params | uniform | |
//
// Dispatch: one workgroup for each BLOCK_ROWS pixels and BLOCK_COLUMNS output channels.
// A position before the image wraps to a huge one, so one comparison finds both edges.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> mask: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

// Two units for each pixel of the block.
var<workgroup> xs: array<vec4<f32>, 2u * BLOCK_ROWS>;
// The weights of their eight channels.
var<workgroup> ws: array<vec4<f32>, 2u * BLOCK_COLUMNS>;

// Where a pixel of y begins to look at x.
struct Place {
    // First pixel of its image.
    image: u32,
    top: u32,
    left: u32,
}

fn place(pixel: u32) -> Place {
    let row = pixel / params.out_w;
    let n = row / params.out_h;
    if n >= params.batch {
        // No row of the kernel leads back into an image from there.
        return Place(0u, 0x80000000u, 0u);
    }
    let top = row % params.out_h * params.stride_h - params.pad_top;
    let left = pixel % params.out_w * params.stride_w - params.pad_left;
    return Place(n * params.in_h * params.in_w, top, left);
}

// A unit: a tap of the kernel, and four channels.
struct Unit {
    r: u32,
    s: u32,
    c: u32,
}

fn next(unit: Unit) -> Unit {
    var after = unit;
    after.c++;
    if after.c == params.in_c / 4u {
        after.c = 0u;
        after.s++;
        if after.s == params.kernel_w {
            after.s = 0u;
            after.r++;
        }
    }
    return after;
}

fn load_x(place: Place, unit: Unit) -> vec4<f32> {
    let i = place.top + unit.r * params.dilation_h;
    let j = place.left + unit.s * params.dilation_w;
    if unit.r < params.kernel_h && i < params.in_h && j < params.in_w {
        return x[(place.image + i * params.in_w + j) * (params.in_c / 4u) + unit.c];
    }
    return vec4<f32>();
}

// Weights of the element `k` of the kernel and the columns 4o to 4o + 3.
fn load_weight(k: u32, o: u32) -> vec4<f32> {
    if k < params.kernel_h * params.kernel_w * params.in_c && o < params.out_c / 4u {
        return weights_at(k * (params.out_c / 4u) + o);
    }
    return vec4<f32>();
}

// Four steps of the sum: `a` is four channels of a pixel.
fn accumulate(a: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(vec4<f32>(a.w), w3, fma(vec4<f32>(a.z), w2, fma(vec4<f32>(a.y), w1, fma(vec4<f32>(a.x), w0, sum))));
}

// `row` and `column` are the thread's first ones.
fn add_unit(before: Sums, unit: u32, row: u32, column: u32) -> Sums {
    var sums = before;
    let b = unit * 4u * COLUMNS_BY_FOUR + column;
    let w00 = ws[b];
    let w10 = ws[b + COLUMNS_BY_FOUR];
    let w20 = ws[b + 2u * COLUMNS_BY_FOUR];
    let w30 = ws[b + 3u * COLUMNS_BY_FOUR];
    let w01 = ws[b + ACROSS];
    let w11 = ws[b + ACROSS + COLUMNS_BY_FOUR];
    let w21 = ws[b + ACROSS + 2u * COLUMNS_BY_FOUR];
    let w31 = ws[b + ACROSS + 3u * COLUMNS_BY_FOUR];
    let a = unit * BLOCK_ROWS + row;
    let x0 = xs[a];
    sums.s00 = accumulate(x0, w00, w10, w20, w30, sums.s00);
    sums.s01 = accumulate(x0, w01, w11, w21, w31, sums.s01);
    let x1 = xs[a + DOWN];
    sums.s10 = accumulate(x1, w00, w10, w20, w30, sums.s10);
    sums.s11 = accumulate(x1, w01, w11, w21, w31, sums.s11);
    let x2 = xs[a + 2u * DOWN];
    sums.s20 = accumulate(x2, w00, w10, w20, w30, sums.s20);
    sums.s21 = accumulate(x2, w01, w11, w21, w31, sums.s21);
    let x3 = xs[a + 3u * DOWN];
    sums.s30 = accumulate(x3, w00, w10, w20, w30, sums.s30);
    sums.s31 = accumulate(x3, w01, w11, w21, w31, sums.s31);
    let x4 = xs[a + 4u * DOWN];
    sums.s40 = accumulate(x4, w00, w10, w20, w30, sums.s40);
    sums.s41 = accumulate(x4, w01, w11, w21, w31, sums.s41);
    let x5 = xs[a + 5u * DOWN];
    sums.s50 = accumulate(x5, w00, w10, w20, w30, sums.s50);
    sums.s51 = accumulate(x5, w01, w11, w21, w31, sums.s51);
    let x6 = xs[a + 6u * DOWN];
    sums.s60 = accumulate(x6, w00, w10, w20, w30, sums.s60);
    sums.s61 = accumulate(x6, w01, w11, w21, w31, sums.s61);
    let x7 = xs[a + 7u * DOWN];
    sums.s70 = accumulate(x7, w00, w10, w20, w30, sums.s70);
    sums.s71 = accumulate(x7, w01, w11, w21, w31, sums.s71);
    return sums;
}

fn store(pixel: u32, o: u32, sum: vec4<f32>) {
    let filters = params.out_c / 4u;
    if pixel < params.batch * params.out_h * params.out_w && o < filters {
        y[pixel * filters + o] = finish(sum, pixel * filters + o, o);
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let pixels = params.batch * params.out_h * params.out_w;
    let blocks_across = (params.out_c + BLOCK_COLUMNS - 1u) / BLOCK_COLUMNS;
    let blocks_down = (pixels + BLOCK_ROWS - 1u) / BLOCK_ROWS;
    let index = workgroup_index(group, groups);
    if index >= blocks_across * blocks_down {
        return;
    }
    // Neighbouring workgroups read the same pixels.
    let first_o = index % blocks_across * COLUMNS_BY_FOUR;
    let first_pixel = index / blocks_across * BLOCK_ROWS;

    // The pixels that this thread fetches: every 64th of the block.
    let place0 = place(first_pixel + local);
    let place1 = place(first_pixel + local + 64u);
    let place2 = place(first_pixel + local + 128u);
    let place3 = place(first_pixel + local + 192u);

    let row = local / ACROSS;
    let column = local % ACROSS;
    // Columns past the last begin as the last one, and are not stored.
    let last_o = params.out_c / 4u - 1u;
    let b0 = first_sum(min(first_o + column, last_o));
    let b1 = first_sum(min(first_o + column + ACROSS, last_o));
    var sums = Sums(b0, b1, b0, b1, b0, b1, b0, b1, b0, b1, b0, b1, b0, b1, b0, b1);
    var unit = Unit(0u, 0u, 0u);
    let elements = params.kernel_h * params.kernel_w * params.in_c;
    for (var k = 0u; k < elements; k += 8u) {
        let other = next(unit);
        workgroupBarrier();
        xs[local] = load_x(place0, unit);
        xs[BLOCK_ROWS + local] = load_x(place0, other);
        if BLOCK_ROWS > 64u {
            xs[local + 64u] = load_x(place1, unit);
            xs[BLOCK_ROWS + local + 64u] = load_x(place1, other);
        }
        if BLOCK_ROWS > 128u {
            xs[local + 128u] = load_x(place2, unit);
            xs[BLOCK_ROWS + local + 128u] = load_x(place2, other);
            xs[local + 192u] = load_x(place3, unit);
            xs[BLOCK_ROWS + local + 192u] = load_x(place3, other);
        }
        for (var e = local; e < 2u * BLOCK_COLUMNS; e += 64u) {
            ws[e] = load_weight(k + e / COLUMNS_BY_FOUR, first_o + e % COLUMNS_BY_FOUR);
        }
        unit = next(other);
        workgroupBarrier();
        sums = add_unit(sums, 0u, row, column);
        sums = add_unit(sums, 1u, row, column);
    }

    let pixel = first_pixel + row;
    let o = first_o + column;
    store(pixel, o, sums.s00);
    store(pixel, o + ACROSS, sums.s01);
    store(pixel + DOWN, o, sums.s10);
    store(pixel + DOWN, o + ACROSS, sums.s11);
    store(pixel + 2u * DOWN, o, sums.s20);
    store(pixel + 2u * DOWN, o + ACROSS, sums.s21);
    store(pixel + 3u * DOWN, o, sums.s30);
    store(pixel + 3u * DOWN, o + ACROSS, sums.s31);
    store(pixel + 4u * DOWN, o, sums.s40);
    store(pixel + 4u * DOWN, o + ACROSS, sums.s41);
    store(pixel + 5u * DOWN, o, sums.s50);
    store(pixel + 5u * DOWN, o + ACROSS, sums.s51);
    store(pixel + 6u * DOWN, o, sums.s60);
    store(pixel + 6u * DOWN, o + ACROSS, sums.s61);
    store(pixel + 7u * DOWN, o, sums.s70);
    store(pixel + 7u * DOWN, o + ACROSS, sums.s71);
}
