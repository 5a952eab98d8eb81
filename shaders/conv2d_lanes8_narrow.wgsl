// A convolution to at most four channels, such as an image's three, for devices whose subgroups have
// exactly eight lanes. One group; in_c is a multiple of 4.
//
// The sixteen weights of four input channels are loaded once by the eight lanes, two each, and handed
// round by broadcast.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | weight | read | kernel_h * kernel_w * in_c * out_c |
// | 2 | bias | read | out_c |
// | 3 | residual | read | as y |
// | 4 | mask | read | as y |
// | 5 | y | read_write | batch * out_h * out_w * out_c |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each 8 pixels of an output row, rounded up to whole workgroups. Threads past
// the end repeat the last strip and store nothing, since every lane takes part in the broadcasts.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read> mask: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

// The pixel in column `j`, zero outside the image. A column before the image wraps to a huge one.
fn load(row: u32, j: u32, c: u32, row_inside: bool) -> vec4<f32> {
    let at = (row + min(j, params.in_w - 1u)) * (params.in_c / 4u) + c;
    return select(vec4<f32>(), x[at], row_inside & (j < params.in_w));
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let channels = params.in_c / 4u;
    let row_strips = (params.out_w + 7u) / 8u;
    let strips = params.batch * params.out_h * row_strips;
    let first = workgroup_index(group, groups) * WORKGROUP;
    if first >= strips {
        return;
    }
    let strip = min(first + local, strips - 1u);
    let q = strip % row_strips * 8u;
    let row = strip / row_strips;
    let p = row % params.out_h;
    let n = row / params.out_h;
    let own = own_weight(lane);
    let second = 2u * params.out_c;

    var sum0 = first_sum(min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.out_c - 1u)));
    var sum1 = sum0;
    var sum2 = sum0;
    var sum3 = sum0;
    var sum4 = sum0;
    var sum5 = sum0;
    var sum6 = sum0;
    var sum7 = sum0;
    for (var r = 0u; r < params.kernel_h; r++) {
        let i_h = p * params.stride_h + r * params.dilation_h - params.pad_top;
        let row_inside = i_h < params.in_h;
        let image_row = (n * params.in_h + min(i_h, params.in_h - 1u)) * params.in_w;
        for (var s = 0u; s < params.kernel_w; s++) {
            let j = q * params.stride_w + s * params.dilation_w - params.pad_left;
            let tap = (r * params.kernel_w + s) * params.in_c * params.out_c + own;
            for (var c = 0u; c < channels; c++) {
                let mine0 = weight_at(tap + c * 4u * params.out_c);
                let mine1 = weight_at(tap + c * 4u * params.out_c + second);
                let w0 = share_low(mine0);
                let w1 = share_high(mine0);
                let w2 = share_low(mine1);
                let w3 = share_high(mine1);
                let x0 = load(image_row, j + 0u * params.stride_w, c, row_inside);
                sum0 = accumulate(x0, w0, w1, w2, w3, sum0);
                let x1 = load(image_row, j + 1u * params.stride_w, c, row_inside);
                sum1 = accumulate(x1, w0, w1, w2, w3, sum1);
                let x2 = load(image_row, j + 2u * params.stride_w, c, row_inside);
                sum2 = accumulate(x2, w0, w1, w2, w3, sum2);
                let x3 = load(image_row, j + 3u * params.stride_w, c, row_inside);
                sum3 = accumulate(x3, w0, w1, w2, w3, sum3);
                let x4 = load(image_row, j + 4u * params.stride_w, c, row_inside);
                sum4 = accumulate(x4, w0, w1, w2, w3, sum4);
                let x5 = load(image_row, j + 5u * params.stride_w, c, row_inside);
                sum5 = accumulate(x5, w0, w1, w2, w3, sum5);
                let x6 = load(image_row, j + 6u * params.stride_w, c, row_inside);
                sum6 = accumulate(x6, w0, w1, w2, w3, sum6);
                let x7 = load(image_row, j + 7u * params.stride_w, c, row_inside);
                sum7 = accumulate(x7, w0, w1, w2, w3, sum7);
            }
        }
    }
    if first + local >= strips {
        return;
    }
    store(row, q + 0u, 0u, params.out_c, sum0);
    store(row, q + 1u, 0u, params.out_c, sum1);
    store(row, q + 2u, 0u, params.out_c, sum2);
    store(row, q + 3u, 0u, params.out_c, sum3);
    store(row, q + 4u, 0u, params.out_c, sum4);
    store(row, q + 5u, 0u, params.out_c, sum5);
    store(row, q + 6u, 0u, params.out_c, sum6);
    store(row, q + 7u, 0u, params.out_c, sum7);
}
