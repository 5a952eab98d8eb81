// dx[n,i,j,c] = sum over r,s,o of dy[n,p,q,o] * weight[r,s,c,o],
// where i = p * stride_h + r * dilation_h - pad_top and j = q * stride_w + s * dilation_w - pad_left.
// One group; in_c and out_c are multiples of 4.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | batch * out_h * out_w * out_c (in fours) |
// | 1 | weight | read | kernel_h * kernel_w * in_c * out_c (in fours) |
// | 2 | dx | read_write | batch * in_h * in_w * in_c (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each 8 pixels of an input row, stride_w apart, and 8 input channels.
// Pixels that are stride_w apart (of one phase) meet the same taps.
// A position before the image wraps to a huge one when it becomes unsigned.

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

// Four pixels of an input row, from j and stride_w apart, and the input channels 4c to 4c + 3.
fn compute(row: u32, j: u32, c: u32) {
    let i_h = row % params.in_h;
    let n = row / params.in_h;
    let channels = params.in_c / 4u;
    let filters = params.out_c / 4u;
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
            let at = (output_row + min(q, vec4<u32>(params.out_w - 1u))) * filters;
            let tap = ((r * params.kernel_w + s) * params.in_c + c * 4u) * filters;
            for (var o = 0u; o < filters; o++) {
                let y0 = select(vec4<f32>(), dy[at.x + o], inside.x);
                let y1 = select(vec4<f32>(), dy[at.y + o], inside.y);
                let y2 = select(vec4<f32>(), dy[at.z + o], inside.z);
                let y3 = select(vec4<f32>(), dy[at.w + o], inside.w);
                let b = tap + o;
                let w0 = weight[b];
                let w1 = weight[b + filters];
                let w2 = weight[b + 2u * filters];
                let w3 = weight[b + 3u * filters];
                sum0 += vec4<f32>(dot(y0, w0), dot(y0, w1), dot(y0, w2), dot(y0, w3));
                sum1 += vec4<f32>(dot(y1, w0), dot(y1, w1), dot(y1, w2), dot(y1, w3));
                sum2 += vec4<f32>(dot(y2, w0), dot(y2, w1), dot(y2, w2), dot(y2, w3));
                sum3 += vec4<f32>(dot(y3, w0), dot(y3, w1), dot(y3, w2), dot(y3, w3));
            }
        }
    }
    store(row, j, c, sum0);
    store(row, j + params.stride_w, c, sum1);
    store(row, j + 2u * params.stride_w, c, sum2);
    store(row, j + 3u * params.stride_w, c, sum3);
}

fn store(row: u32, j: u32, c: u32, sum: vec4<f32>) {
    if j < params.in_w {
        dx[(row * params.in_w + j) * (params.in_c / 4u) + c] = sum;
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let blocks = (params.in_c + 7u) / 8u;
    let row_strips = (params.in_w + params.stride_w * 8u - 1u) / (params.stride_w * 8u);
    let rows = params.batch * params.in_h;
    let strips = rows * params.stride_w * row_strips;
    if i >= strips * blocks {
        return;
    }
    // Neighbouring threads take neighbouring strips of one phase.
    let strip = i % strips;
    let phase = strip / (rows * row_strips);
    let j = strip % row_strips * 8u * params.stride_w + phase;
    let row = strip / row_strips % rows;
    let c = i / strips * 2u;
    compute(row, j, c);
    compute(row, j + 4u * params.stride_w, c);
    if (c + 1u) * 4u < params.in_c {
        compute(row, j, c + 1u);
        compute(row, j + 4u * params.stride_w, c + 1u);
    }
}
