// y[n,p,q,o] = bias[o] + sum over r,s,c of
//     x[n, p * stride_h + r * dilation_h - pad_top, q * stride_w + s * dilation_w - pad_left, c] * weight[r,s,c,o],
// where c runs over the input channels of the group of o, and then the epilogue. What the epilogue does
// without is bound but not read.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c |
// | 1 | weight | read | kernel_h * kernel_w * in_c / groups * out_c |
// | 2 | bias | read | out_c |
// | 3 | residual | read | as y |
// | 4 | mask | read | as y |
// | 5 | y | read_write | batch * out_h * out_w * out_c |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each 4 pixels of an output row and 4 output channels of a group.
// A position before the image wraps to a huge one, so one comparison finds both edges.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read> mask: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let filters = params.out_c / params.groups;
    let channels = params.in_c / params.groups;
    let blocks = (filters + 3u) / 4u;
    let row_strips = (params.out_w + 3u) / 4u;
    let strips = params.batch * params.out_h * row_strips;
    if i >= strips * params.groups * blocks {
        return;
    }
    // Neighbouring threads take neighbouring strips of pixels.
    let q = i % strips % row_strips * 4u;
    let row = i % strips / row_strips;
    let p = row % params.out_h;
    let n = row / params.out_h;
    let own_group = i / strips / blocks;
    let first = own_group * filters;
    let o = first + i / strips % blocks * 4u;
    // Channels past the group are computed as copies of its last one and not stored.
    let o4 = min(vec4<u32>(o, o + 1u, o + 2u, o + 3u), vec4<u32>(first + filters - 1u));
    let columns = vec4<u32>(q, q + 1u, q + 2u, q + 3u) * params.stride_w;

    var sum0 = first_sum(o4);
    var sum1 = sum0;
    var sum2 = sum0;
    var sum3 = sum0;
    for (var r = 0u; r < params.kernel_h; r++) {
        let i_h = p * params.stride_h + r * params.dilation_h - params.pad_top;
        if i_h >= params.in_h {
            continue;
        }
        let image_row = (n * params.in_h + i_h) * params.in_w;
        for (var s = 0u; s < params.kernel_w; s++) {
            let j = columns + s * params.dilation_w - params.pad_left;
            let inside = j < vec4<u32>(params.in_w);
            let at = (image_row + min(j, vec4<u32>(params.in_w - 1u))) * params.in_c + own_group * channels;
            let tap = (r * params.kernel_w + s) * channels * params.out_c;
            for (var c = 0u; c < channels; c++) {
                let a = at + c;
                let v = select(vec4<f32>(), vec4<f32>(x[a.x], x[a.y], x[a.z], x[a.w]), inside);
                let b = tap + c * params.out_c + o4;
                let w = vec4<f32>(weight_at(b.x), weight_at(b.y), weight_at(b.z), weight_at(b.w));
                sum0 += v.x * w;
                sum1 += v.y * w;
                sum2 += v.z * w;
                sum3 += v.w * w;
            }
        }
    }

    let end = first + filters;
    store(row, q, o, end, sum0);
    store(row, q + 1u, o, end, sum1);
    store(row, q + 2u, o, end, sum2);
    store(row, q + 3u, o, end, sum3);
}
