// The gradient of conv2d_grad_weight_tiled.wgsl, for devices whose subgroups have exactly eight lanes.
//
// A thread makes 4 input channels by 16 output channels of one tap, over its part of the output
// rows. The lanes of a subgroup share the part and the output channels, so that the gradients of
// two pixels, eight vectors, are loaded once, one by each lane, and handed round by broadcast.
// One group; in_c is a multiple of 4, out_c of 16. `option` is the number of parts.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | dy | read | batch * out_h * out_w * out_c (in fours) |
// | 2 | partial | read_write | parts * kernel_h * kernel_w * in_c * out_c (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: for each part and each 16 output channels, one thread for each tap and 4 input
// channels, rounded up to whole subgroups.

// The binding of dy.
const DY = 1;

@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let channels = params.in_c / 4u;
    let filters = params.out_c / 4u;
    let tiles = params.kernel_h * params.kernel_w * channels;
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
    let r = tile / channels / params.kernel_w;
    let s = tile / channels % params.kernel_w;
    let rows = params.batch * params.out_h;
    let rows_per_part = (rows + params.option - 1u) / params.option;
    let end = min((part + 1u) * rows_per_part, rows);
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
    for (var row = part * rows_per_part; row < end; row++) {
        let i_h = row % params.out_h * params.stride_h + r * params.dilation_h - params.pad_top;
        let row_inside = i_h < params.in_h;
        let image_row = (row / params.out_h * params.in_h + min(i_h, params.in_h - 1u)) * params.in_w;
        for (var q = 0u; q < params.out_w; q += 2u) {
            // Past the end of the row the last pixel's gradient is loaded again; its x counts as 0.
            let mine = dy_at((row * params.out_w + min(q + lane / 4u, params.out_w - 1u)) * filters + o + lane % 4u);
            let left0 = q * params.stride_w + s * params.dilation_w - params.pad_left;
            let left1 = left0 + params.stride_w;
            let inside0 = row_inside && left0 < params.in_w;
            let inside1 = row_inside && left1 < params.in_w && q + 1u < params.out_w;
            let x0 = select(vec4<f32>(), x_at((image_row + min(left0, params.in_w - 1u)) * channels + c), inside0);
            let x1 = select(vec4<f32>(), x_at((image_row + min(left1, params.in_w - 1u)) * channels + c), inside1);
            let y00 = subgroupBroadcast(mine, 0u);
            let y10 = subgroupBroadcast(mine, 4u);
            sum00 = fma(vec4<f32>(x1.x), y10, fma(vec4<f32>(x0.x), y00, sum00));
            sum10 = fma(vec4<f32>(x1.y), y10, fma(vec4<f32>(x0.y), y00, sum10));
            sum20 = fma(vec4<f32>(x1.z), y10, fma(vec4<f32>(x0.z), y00, sum20));
            sum30 = fma(vec4<f32>(x1.w), y10, fma(vec4<f32>(x0.w), y00, sum30));
            let y01 = subgroupBroadcast(mine, 1u);
            let y11 = subgroupBroadcast(mine, 5u);
            sum01 = fma(vec4<f32>(x1.x), y11, fma(vec4<f32>(x0.x), y01, sum01));
            sum11 = fma(vec4<f32>(x1.y), y11, fma(vec4<f32>(x0.y), y01, sum11));
            sum21 = fma(vec4<f32>(x1.z), y11, fma(vec4<f32>(x0.z), y01, sum21));
            sum31 = fma(vec4<f32>(x1.w), y11, fma(vec4<f32>(x0.w), y01, sum31));
            let y02 = subgroupBroadcast(mine, 2u);
            let y12 = subgroupBroadcast(mine, 6u);
            sum02 = fma(vec4<f32>(x1.x), y12, fma(vec4<f32>(x0.x), y02, sum02));
            sum12 = fma(vec4<f32>(x1.y), y12, fma(vec4<f32>(x0.y), y02, sum12));
            sum22 = fma(vec4<f32>(x1.z), y12, fma(vec4<f32>(x0.z), y02, sum22));
            sum32 = fma(vec4<f32>(x1.w), y12, fma(vec4<f32>(x0.w), y02, sum32));
            let y03 = subgroupBroadcast(mine, 3u);
            let y13 = subgroupBroadcast(mine, 7u);
            sum03 = fma(vec4<f32>(x1.x), y13, fma(vec4<f32>(x0.x), y03, sum03));
            sum13 = fma(vec4<f32>(x1.y), y13, fma(vec4<f32>(x0.y), y03, sum13));
            sum23 = fma(vec4<f32>(x1.z), y13, fma(vec4<f32>(x0.z), y03, sum23));
            sum33 = fma(vec4<f32>(x1.w), y13, fma(vec4<f32>(x0.w), y03, sum33));
        }
    }
    if i % padded >= tiles {
        return;
    }
    let to = part * tiles * 4u * filters + tile * 4u * filters + o;
    partial[to + 0u * filters + 0u] = sum00;
    partial[to + 0u * filters + 1u] = sum01;
    partial[to + 0u * filters + 2u] = sum02;
    partial[to + 0u * filters + 3u] = sum03;
    partial[to + 1u * filters + 0u] = sum10;
    partial[to + 1u * filters + 1u] = sum11;
    partial[to + 1u * filters + 2u] = sum12;
    partial[to + 1u * filters + 3u] = sum13;
    partial[to + 2u * filters + 0u] = sum20;
    partial[to + 2u * filters + 1u] = sum21;
    partial[to + 2u * filters + 2u] = sum22;
    partial[to + 2u * filters + 3u] = sum23;
    partial[to + 3u * filters + 0u] = sum30;
    partial[to + 3u * filters + 1u] = sum31;
    partial[to + 3u * filters + 2u] = sum32;
    partial[to + 3u * filters + 3u] = sum33;
}
