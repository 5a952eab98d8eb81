// dw[r,s,c,o] = sum over n,p,q of
//     x[n, p * stride_h + r * dilation_h - pad_top, q * stride_w + s * dilation_w - pad_left, c] * dy[n,p,q,o].
// The sum over the pixels of dy is taken in `option` parts: partial[part] is one part of dw.
// One group; in_c and out_c are multiples of 4.
//
// As a product of matrices: rows are the elements (r,s,c) of the kernel, in units of four channels, columns the
// channels of dy, and the sum runs over the pixels, eight at a time.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | dy | read | batch * out_h * out_w * out_c (in fours) |
// | 2 | partial | read_write | option * kernel_h * kernel_w * in_c * out_c (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: one workgroup for each part, BLOCK_ROWS elements of the kernel and BLOCK_COLUMNS output channels.
// A position before the image wraps to a huge one, so one comparison finds both edges.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

const UNITS = BLOCK_ROWS / 4u;
// Every so many pixels are one thread's to fetch.
const PIXEL_STEP = 64u / UNITS;

// Eight pixels, and the units or columns of each.
var<workgroup> xs: array<vec4<f32>, 8u * UNITS>;
var<workgroup> gs: array<vec4<f32>, 8u * COLUMNS_BY_FOUR>;

// The outer product of a unit of one pixel and a vector of columns is added to four rows.
fn add_pixel(before: Sums, pixel: u32, row: u32, column: u32) -> Sums {
    var sums = before;
    let g0 = gs[pixel * COLUMNS_BY_FOUR + column];
    let g1 = gs[pixel * COLUMNS_BY_FOUR + column + ACROSS];
    let a = xs[pixel * UNITS + row];
    let b = xs[pixel * UNITS + row + DOWN];
    sums.s00 = fma(vec4<f32>(a.x), g0, sums.s00);
    sums.s01 = fma(vec4<f32>(a.x), g1, sums.s01);
    sums.s10 = fma(vec4<f32>(a.y), g0, sums.s10);
    sums.s11 = fma(vec4<f32>(a.y), g1, sums.s11);
    sums.s20 = fma(vec4<f32>(a.z), g0, sums.s20);
    sums.s21 = fma(vec4<f32>(a.z), g1, sums.s21);
    sums.s30 = fma(vec4<f32>(a.w), g0, sums.s30);
    sums.s31 = fma(vec4<f32>(a.w), g1, sums.s31);
    sums.s40 = fma(vec4<f32>(b.x), g0, sums.s40);
    sums.s41 = fma(vec4<f32>(b.x), g1, sums.s41);
    sums.s50 = fma(vec4<f32>(b.y), g0, sums.s50);
    sums.s51 = fma(vec4<f32>(b.y), g1, sums.s51);
    sums.s60 = fma(vec4<f32>(b.z), g0, sums.s60);
    sums.s61 = fma(vec4<f32>(b.z), g1, sums.s61);
    sums.s70 = fma(vec4<f32>(b.w), g0, sums.s70);
    sums.s71 = fma(vec4<f32>(b.w), g1, sums.s71);
    return sums;
}

fn store(part: u32, element: u32, o: u32, sum: vec4<f32>) {
    let elements = params.kernel_h * params.kernel_w * params.in_c;
    let filters = params.out_c / 4u;
    if element < elements && o < filters {
        partial[(part * elements + element) * filters + o] = sum;
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let pixels = params.batch * params.out_h * params.out_w;
    let elements = params.kernel_h * params.kernel_w * params.in_c;
    let filters = params.out_c / 4u;
    let blocks_across = (params.out_c + BLOCK_COLUMNS - 1u) / BLOCK_COLUMNS;
    let blocks_down = (elements + BLOCK_ROWS - 1u) / BLOCK_ROWS;
    let index = workgroup_index(group, groups);
    if index >= blocks_across * blocks_down * params.option {
        return;
    }
    // Neighbouring workgroups read the same pixels.
    let first_o = index % blocks_across * COLUMNS_BY_FOUR;
    let first_unit = index / blocks_across % blocks_down * UNITS;
    let part = index / (blocks_across * blocks_down);
    let per_part = (pixels + params.option - 1u) / params.option;
    let end = min((part + 1u) * per_part, pixels);

    // The unit that this thread fetches of some of the pixels: its tap and channels.
    let unit = first_unit + local % UNITS;
    let channels = params.in_c / 4u;
    let c = unit % channels;
    let down = unit / channels / params.kernel_w * params.dilation_h - params.pad_top;
    let right = unit / channels % params.kernel_w * params.dilation_w - params.pad_left;
    let has_unit = unit < elements / 4u;

    // The next pixel that it fetches a unit of.
    var pixel = part * per_part + local / UNITS;
    var q = pixel % params.out_w;
    var p = pixel / params.out_w % params.out_h;
    var n = pixel / params.out_w / params.out_h;

    let row = local / ACROSS;
    let column = local % ACROSS;
    var sums = Sums();
    for (var first = part * per_part; first < end; first += 8u) {
        workgroupBarrier();
        for (var e = local; e < 8u * UNITS; e += 64u) {
            let i = p * params.stride_h + down;
            let j = q * params.stride_w + right;
            var v = vec4<f32>();
            if has_unit && pixel < end && i < params.in_h && j < params.in_w {
                v = x[((n * params.in_h + i) * params.in_w + j) * channels + c];
            }
            xs[e] = v;
            pixel += PIXEL_STEP;
            q += PIXEL_STEP;
            while q >= params.out_w {
                q -= params.out_w;
                p++;
                if p == params.out_h {
                    p = 0u;
                    n++;
                }
            }
        }
        for (var e = local; e < 8u * COLUMNS_BY_FOUR; e += 64u) {
            let at = first + e / COLUMNS_BY_FOUR;
            let o = first_o + e % COLUMNS_BY_FOUR;
            var v = vec4<f32>();
            if at < end && o < filters {
                v = dy[at * filters + o];
            }
            gs[e] = v;
        }
        workgroupBarrier();
        for (var step = 0u; step < 8u; step++) {
            sums = add_pixel(sums, step, row, column);
        }
    }

    let element = first_unit * 4u + row * 4u;
    let o = first_o + column;
    store(part, element, o, sums.s00);
    store(part, element, o + ACROSS, sums.s01);
    store(part, element + 1u, o, sums.s10);
    store(part, element + 1u, o + ACROSS, sums.s11);
    store(part, element + 2u, o, sums.s20);
    store(part, element + 2u, o + ACROSS, sums.s21);
    store(part, element + 3u, o, sums.s30);
    store(part, element + 3u, o + ACROSS, sums.s31);
    store(part, element + 4u * DOWN, o, sums.s40);
    store(part, element + 4u * DOWN, o + ACROSS, sums.s41);
    store(part, element + 4u * DOWN + 1u, o, sums.s50);
    store(part, element + 4u * DOWN + 1u, o + ACROSS, sums.s51);
    store(part, element + 4u * DOWN + 2u, o, sums.s60);
    store(part, element + 4u * DOWN + 2u, o + ACROSS, sums.s61);
    store(part, element + 4u * DOWN + 3u, o, sums.s70);
    store(part, element + 4u * DOWN + 3u, o + ACROSS, sums.s71);
}
