// The convolution of conv2d_tiled.wgsl, for devices whose subgroups have exactly eight lanes.
//
// A thread makes 4 pixels of an output row and 16 output channels. The sixteen vectors of weights
// of a step are loaded once by the eight lanes, two each, and handed round by broadcast: on
// software adapters a load costs as much as eight multiply-adds.
// One group; in_c is a multiple of 4, out_c of 16.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | weight | read | kernel_h * kernel_w * in_c * out_c (in fours) |
// | 2 | bias | read | out_c (in fours) |
// | 3 | y | read_write | batch * out_h * out_w * out_c (in fours) |
// | 4 | params | uniform | |
//
// Dispatch: for each 16 output channels, one thread for each 4 pixels of an output row, rounded up
// to whole workgroups: all lanes of a subgroup share their weights. Threads past the end repeat the
// last strip and store nothing, since every lane must take part in the broadcasts.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> params: Params;

fn accumulate(a: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(vec4<f32>(a.w), w3, fma(vec4<f32>(a.z), w2, fma(vec4<f32>(a.y), w1, fma(vec4<f32>(a.x), w0, sum))));
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
    let row_strips = (params.out_w + 3u) / 4u;
    let strips = params.batch * params.out_h * row_strips;
    let strip_groups = (strips + WORKGROUP - 1u) / WORKGROUP;
    let g = group.y * groups.x + group.x;
    let o = g / strip_groups * 4u;
    if o >= filters {
        return;
    }
    let position = g % strip_groups * WORKGROUP + local;
    let strip = min(position, strips - 1u);
    let q = strip % row_strips * 4u;
    let row = strip / row_strips;
    let p = row % params.out_h;
    let n = row / params.out_h;
    let columns = vec4<u32>(q, q + 1u, q + 2u, q + 3u) * params.stride_w;
    // Vectors i and i + 8 of the sixteen (input channel, group of output channels) are lane i's.
    let first = lane / 4u * filters + lane % 4u + o;
    let second = first + 2u * filters;
    var sum00 = vec4<f32>();
    var sum01 = vec4<f32>();
    var sum02 = vec4<f32>();
    var sum03 = vec4<f32>();
    var sum10 = vec4<f32>();
    var sum11 = vec4<f32>();
    var sum12 = vec4<f32>();
    var sum13 = vec4<f32>();
    var sum20 = vec4<f32>();
    var sum21 = vec4<f32>();
    var sum22 = vec4<f32>();
    var sum23 = vec4<f32>();
    var sum30 = vec4<f32>();
    var sum31 = vec4<f32>();
    var sum32 = vec4<f32>();
    var sum33 = vec4<f32>();
    for (var r = 0u; r < params.kernel_h; r++) {
        let i_h = p * params.stride_h + r * params.dilation_h - params.pad_top;
        let row_inside = i_h < params.in_h;
        let image_row = (n * params.in_h + min(i_h, params.in_h - 1u)) * params.in_w;
        for (var s = 0u; s < params.kernel_w; s++) {
            let j = columns + s * params.dilation_w - params.pad_left;
            let inside = (j < vec4<u32>(params.in_w)) & vec4<bool>(row_inside);
            let at = (image_row + min(j, vec4<u32>(params.in_w - 1u))) * channels;
            let tap = (r * params.kernel_w + s) * params.in_c * filters;
            for (var c = 0u; c < channels; c++) {
                let mine0 = weight[tap + c * 4u * filters + first];
                let mine1 = weight[tap + c * 4u * filters + second];
                let x0 = select(vec4<f32>(), x[at.x + c], inside.x);
                let x1 = select(vec4<f32>(), x[at.y + c], inside.y);
                let x2 = select(vec4<f32>(), x[at.z + c], inside.z);
                let x3 = select(vec4<f32>(), x[at.w + c], inside.w);
                let w00 = subgroupBroadcast(mine0, 0u);
                let w10 = subgroupBroadcast(mine0, 4u);
                let w20 = subgroupBroadcast(mine1, 0u);
                let w30 = subgroupBroadcast(mine1, 4u);
                sum00 = accumulate(x0, w00, w10, w20, w30, sum00);
                sum10 = accumulate(x1, w00, w10, w20, w30, sum10);
                sum20 = accumulate(x2, w00, w10, w20, w30, sum20);
                sum30 = accumulate(x3, w00, w10, w20, w30, sum30);
                let w01 = subgroupBroadcast(mine0, 1u);
                let w11 = subgroupBroadcast(mine0, 5u);
                let w21 = subgroupBroadcast(mine1, 1u);
                let w31 = subgroupBroadcast(mine1, 5u);
                sum01 = accumulate(x0, w01, w11, w21, w31, sum01);
                sum11 = accumulate(x1, w01, w11, w21, w31, sum11);
                sum21 = accumulate(x2, w01, w11, w21, w31, sum21);
                sum31 = accumulate(x3, w01, w11, w21, w31, sum31);
                let w02 = subgroupBroadcast(mine0, 2u);
                let w12 = subgroupBroadcast(mine0, 6u);
                let w22 = subgroupBroadcast(mine1, 2u);
                let w32 = subgroupBroadcast(mine1, 6u);
                sum02 = accumulate(x0, w02, w12, w22, w32, sum02);
                sum12 = accumulate(x1, w02, w12, w22, w32, sum12);
                sum22 = accumulate(x2, w02, w12, w22, w32, sum22);
                sum32 = accumulate(x3, w02, w12, w22, w32, sum32);
                let w03 = subgroupBroadcast(mine0, 3u);
                let w13 = subgroupBroadcast(mine0, 7u);
                let w23 = subgroupBroadcast(mine1, 3u);
                let w33 = subgroupBroadcast(mine1, 7u);
                sum03 = accumulate(x0, w03, w13, w23, w33, sum03);
                sum13 = accumulate(x1, w03, w13, w23, w33, sum13);
                sum23 = accumulate(x2, w03, w13, w23, w33, sum23);
                sum33 = accumulate(x3, w03, w13, w23, w33, sum33);
            }
        }
    }
    if position >= strips {
        return;
    }
    var b0 = vec4<f32>();
    var b1 = vec4<f32>();
    var b2 = vec4<f32>();
    var b3 = vec4<f32>();
    if params.option != 0u {
        b0 = bias[o];
        b1 = bias[o + 1u];
        b2 = bias[o + 2u];
        b3 = bias[o + 3u];
    }
    let to = (row * params.out_w + q) * filters + o;
    if q + 0u < params.out_w {
        y[to + 0u * filters + 0u] = sum00 + b0;
        y[to + 0u * filters + 1u] = sum01 + b1;
        y[to + 0u * filters + 2u] = sum02 + b2;
        y[to + 0u * filters + 3u] = sum03 + b3;
    }
    if q + 1u < params.out_w {
        y[to + 1u * filters + 0u] = sum10 + b0;
        y[to + 1u * filters + 1u] = sum11 + b1;
        y[to + 1u * filters + 2u] = sum12 + b2;
        y[to + 1u * filters + 3u] = sum13 + b3;
    }
    if q + 2u < params.out_w {
        y[to + 2u * filters + 0u] = sum20 + b0;
        y[to + 2u * filters + 1u] = sum21 + b1;
        y[to + 2u * filters + 2u] = sum22 + b2;
        y[to + 2u * filters + 3u] = sum23 + b3;
    }
    if q + 3u < params.out_w {
        y[to + 3u * filters + 0u] = sum30 + b0;
        y[to + 3u * filters + 1u] = sum31 + b1;
        y[to + 3u * filters + 2u] = sum32 + b2;
        y[to + 3u * filters + 3u] = sum33 + b3;
    }
}
