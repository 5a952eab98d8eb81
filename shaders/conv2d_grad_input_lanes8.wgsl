// The gradient of conv2d_grad_input_tiled.wgsl, for devices whose subgroups have exactly eight lanes.
//
// A thread makes 4 pixels of an input row, stride_w apart, and 16 input channels. The sixteen
// vectors of weights of a step are loaded once by the eight lanes, two each, and handed round by
// broadcast. One group; out_c is a multiple of 4, in_c of 16.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | batch * out_h * out_w * out_c (in fours) |
// | 1 | weight | read | kernel_h * kernel_w * in_c * out_c (in fours) |
// | 2 | dx | read_write | batch * in_h * in_w * in_c (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: for each 16 input channels and each phase (row and column modulo the stride), one
// thread for each strip, rounded up to whole workgroups: a workgroup shares its weights and the
// taps that meet it. Threads past the end repeat the last strip and store nothing.

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;
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
    let phase_rows = (params.in_h + params.stride_h - 1u) / params.stride_h;
    let row_strips = (params.in_w + params.stride_w * 4u - 1u) / (params.stride_w * 4u);
    let strips = params.batch * phase_rows * row_strips;
    let strip_groups = (strips + WORKGROUP - 1u) / WORKGROUP;
    let phases = params.stride_h * params.stride_w;
    let g = workgroup_index(group, groups);
    let c = g / (strip_groups * phases) * 4u;
    if c >= channels {
        return;
    }
    let phase = g / strip_groups % phases;
    let position = g % strip_groups * WORKGROUP + local;
    let strip = min(position, strips - 1u);
    let j = strip % row_strips * 4u * params.stride_w + phase % params.stride_w;
    let i_h = strip / row_strips % phase_rows * params.stride_h + phase / params.stride_w;
    let n = strip / row_strips / phase_rows;
    // Weights of input channels i and i + 8 of the sixteen are lane i's.
    let first = (c * 4u + lane) * filters;
    let second = first + 8u * filters;
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
        let top = i32(i_h + params.pad_top) - i32(r * params.dilation_h);
        let p = top / i32(params.stride_h);
        // The same for every row of a phase.
        if p * i32(params.stride_h) != top {
            continue;
        }
        let row_inside = top >= 0 && p < i32(params.out_h);
        let output_row = (n * params.out_h + u32(clamp(p, 0, i32(params.out_h) - 1))) * params.out_w;
        for (var s = 0u; s < params.kernel_w; s++) {
            let left = i32(j + params.pad_left) - i32(s * params.dilation_w);
            let start = left / i32(params.stride_w);
            if start * i32(params.stride_w) != left {
                continue;
            }
            // A position before the image wraps to a huge one, so one comparison finds both edges.
            let q = vec4<u32>(vec4<i32>(start, start + 1, start + 2, start + 3));
            let inside = (q < vec4<u32>(params.out_w)) & vec4<bool>(row_inside);
            let at = (output_row + min(q, vec4<u32>(params.out_w - 1u))) * filters;
            let tap = (r * params.kernel_w + s) * params.in_c * filters;
            for (var o = 0u; o < filters; o++) {
                let mine0 = weight[tap + first + o];
                let mine1 = weight[tap + second + o];
                let y0 = select(vec4<f32>(), dy[at.x + o], inside.x);
                let y1 = select(vec4<f32>(), dy[at.y + o], inside.y);
                let y2 = select(vec4<f32>(), dy[at.z + o], inside.z);
                let y3 = select(vec4<f32>(), dy[at.w + o], inside.w);
                let w00 = subgroupBroadcast(mine0, 0u);
                let w01 = subgroupBroadcast(mine0, 1u);
                let w02 = subgroupBroadcast(mine0, 2u);
                let w03 = subgroupBroadcast(mine0, 3u);
                sum00 = add_dots(sum00, y0, w00, w01, w02, w03);
                sum10 = add_dots(sum10, y1, w00, w01, w02, w03);
                sum20 = add_dots(sum20, y2, w00, w01, w02, w03);
                sum30 = add_dots(sum30, y3, w00, w01, w02, w03);
                let w10 = subgroupBroadcast(mine0, 4u);
                let w11 = subgroupBroadcast(mine0, 5u);
                let w12 = subgroupBroadcast(mine0, 6u);
                let w13 = subgroupBroadcast(mine0, 7u);
                sum01 = add_dots(sum01, y0, w10, w11, w12, w13);
                sum11 = add_dots(sum11, y1, w10, w11, w12, w13);
                sum21 = add_dots(sum21, y2, w10, w11, w12, w13);
                sum31 = add_dots(sum31, y3, w10, w11, w12, w13);
                let w20 = subgroupBroadcast(mine1, 0u);
                let w21 = subgroupBroadcast(mine1, 1u);
                let w22 = subgroupBroadcast(mine1, 2u);
                let w23 = subgroupBroadcast(mine1, 3u);
                sum02 = add_dots(sum02, y0, w20, w21, w22, w23);
                sum12 = add_dots(sum12, y1, w20, w21, w22, w23);
                sum22 = add_dots(sum22, y2, w20, w21, w22, w23);
                sum32 = add_dots(sum32, y3, w20, w21, w22, w23);
                let w30 = subgroupBroadcast(mine1, 4u);
                let w31 = subgroupBroadcast(mine1, 5u);
                let w32 = subgroupBroadcast(mine1, 6u);
                let w33 = subgroupBroadcast(mine1, 7u);
                sum03 = add_dots(sum03, y0, w30, w31, w32, w33);
                sum13 = add_dots(sum13, y1, w30, w31, w32, w33);
                sum23 = add_dots(sum23, y2, w30, w31, w32, w33);
                sum33 = add_dots(sum33, y3, w30, w31, w32, w33);
            }
        }
    }
    if position >= strips || i_h >= params.in_h {
        return;
    }
    let to = ((n * params.in_h + i_h) * params.in_w + j) * channels + c;
    let apart = params.stride_w * channels;
    if j + 0u * params.stride_w < params.in_w {
        dx[to + 0u * apart + 0u] = sum00;
        dx[to + 0u * apart + 1u] = sum01;
        dx[to + 0u * apart + 2u] = sum02;
        dx[to + 0u * apart + 3u] = sum03;
    }
    if j + 1u * params.stride_w < params.in_w {
        dx[to + 1u * apart + 0u] = sum10;
        dx[to + 1u * apart + 1u] = sum11;
        dx[to + 1u * apart + 2u] = sum12;
        dx[to + 1u * apart + 3u] = sum13;
    }
    if j + 2u * params.stride_w < params.in_w {
        dx[to + 2u * apart + 0u] = sum20;
        dx[to + 2u * apart + 1u] = sum21;
        dx[to + 2u * apart + 2u] = sum22;
        dx[to + 2u * apart + 3u] = sum23;
    }
    if j + 3u * params.stride_w < params.in_w {
        dx[to + 3u * apart + 0u] = sum30;
        dx[to + 3u * apart + 1u] = sum31;
        dx[to + 3u * apart + 2u] = sum32;
        dx[to + 3u * apart + 3u] = sum33;
    }
}
