// dx[n,i,j,c] = sum over r,s,o of dy[n,p,q,o] * weight[r,s,c,o],
// where i = p * stride_h + r * dilation_h - pad_top and j = q * stride_w + s * dilation_w - pad_left.
// o runs over the output channels of the group of c.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | batch * out_h * out_w * out_c |
// | 1 | weight | read | kernel_h * kernel_w * in_c / groups * out_c |
// | 2 | dx | read_write | batch * in_h * in_w * in_c |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each 4 pixels of an input row, stride_w apart, and 4 input channels of a group.
// Pixels that are stride_w apart (of one phase) meet the same taps.
// A position before the image wraps to a huge one when it becomes unsigned.

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// Stores those of four channels from `c` that lie below `end`, if the pixel is in the row.
fn store(row: u32, j: u32, c: u32, end: u32, sum: vec4<f32>) {
    if j >= params.in_w {
        return;
    }
    let at = (row * params.in_w + j) * params.in_c + c;
    dx[at] = sum.x;
    if c + 1u < end {
        dx[at + 1u] = sum.y;
    }
    if c + 2u < end {
        dx[at + 2u] = sum.z;
    }
    if c + 3u < end {
        dx[at + 3u] = sum.w;
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let filters = params.out_c / params.groups;
    let channels = params.in_c / params.groups;
    let blocks = (channels + 3u) / 4u;
    let row_strips = (params.in_w + params.stride_w * 4u - 1u) / (params.stride_w * 4u);
    let rows = params.batch * params.in_h;
    let strips = rows * params.stride_w * row_strips;
    if i >= strips * params.groups * blocks {
        return;
    }
    // Neighbouring threads take neighbouring strips of one phase.
    let strip = i % strips;
    let phase = strip / (rows * row_strips);
    let j = strip % row_strips * 4u * params.stride_w + phase;
    let row = strip / row_strips % rows;
    let i_h = row % params.in_h;
    let n = row / params.in_h;
    let own_group = i / strips / blocks;
    let c = i / strips % blocks * 4u;
    // Channels past the group are computed as copies of its last one and not stored.
    let c4 = min(vec4<u32>(c, c + 1u, c + 2u, c + 3u), vec4<u32>(channels - 1u)) * params.out_c;

    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var r = 0u; r < params.kernel_h; r++) {
        let top = i32(i_h + params.pad_top) - i32(r * params.dilation_h);
        let p = top / i32(params.stride_h);
        if top < 0 || p >= i32(params.out_h) || p * i32(params.stride_h) != top {
            continue;
        }
        let output_row = (n * params.out_h + u32(p)) * params.out_w;
        for (var s = 0u; s < params.kernel_w; s++) {
            // Negative for the first pixels of a strip at the left edge.
            let left = i32(j + params.pad_left) - i32(s * params.dilation_w);
            let start = left / i32(params.stride_w);
            if start * i32(params.stride_w) != left {
                continue;
            }
            let q = vec4<u32>(vec4<i32>(start, start + 1, start + 2, start + 3));
            let inside = q < vec4<u32>(params.out_w);
            let at = (output_row + min(q, vec4<u32>(params.out_w - 1u))) * params.out_c + own_group * filters;
            let tap = (r * params.kernel_w + s) * channels * params.out_c + own_group * filters + c4;
            for (var o = 0u; o < filters; o++) {
                let a = at + o;
                let v = select(vec4<f32>(), vec4<f32>(dy[a.x], dy[a.y], dy[a.z], dy[a.w]), inside);
                let b = tap + o;
                let w = vec4<f32>(weight[b.x], weight[b.y], weight[b.z], weight[b.w]);
                sum0 += v.x * w;
                sum1 += v.y * w;
                sum2 += v.z * w;
                sum3 += v.w * w;
            }
        }
    }

    let first = own_group * channels + c;
    let end = (own_group + 1u) * channels;
    store(row, j, first, end, sum0);
    store(row, j + params.stride_w, first, end, sum1);
    store(row, j + 2u * params.stride_w, first, end, sum2);
    store(row, j + 3u * params.stride_w, first, end, sum3);
}
