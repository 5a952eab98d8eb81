// y[n,p,q,o] = bias[o] + sum over r,s,c of
//     x[n, p * stride_h + r * dilation_h - pad_top, q * stride_w + s * dilation_w - pad_left, c] * weight[r,s,c,o],
// and then the epilogue. What the epilogue does without is bound but not read. One group; in_c and out_c
// are multiples of 4.
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
// Dispatch: one thread for each 8 pixels of an output row and 8 output channels.
// A position before the image wraps to a huge one, so one comparison finds both edges.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

// Four pixels of an output row, from q, and the output channels 4o to 4o + 3.
fn compute(row: u32, q: u32, o: u32) {
    let p = row % params.out_h;
    let n = row / params.out_h;
    let channels = params.in_c / 4u;
    let filters = params.out_c / 4u;
    let columns = vec4<u32>(q, q + 1u, q + 2u, q + 3u) * params.stride_w;
    var sum0 = first_sum(o);
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
            let at = (image_row + min(j, vec4<u32>(params.in_w - 1u))) * channels;
            let tap = (r * params.kernel_w + s) * params.in_c * filters + o;
            for (var c = 0u; c < channels; c++) {
                let x0 = select(vec4<f32>(), x[at.x + c], inside.x);
                let x1 = select(vec4<f32>(), x[at.y + c], inside.y);
                let x2 = select(vec4<f32>(), x[at.z + c], inside.z);
                let x3 = select(vec4<f32>(), x[at.w + c], inside.w);
                let b = tap + c * 4u * filters;
                let w0 = weights_at(b);
                let w1 = weights_at(b + filters);
                let w2 = weights_at(b + 2u * filters);
                let w3 = weights_at(b + 3u * filters);
                sum0 += x0.x * w0 + x0.y * w1 + x0.z * w2 + x0.w * w3;
                sum1 += x1.x * w0 + x1.y * w1 + x1.z * w2 + x1.w * w3;
                sum2 += x2.x * w0 + x2.y * w1 + x2.z * w2 + x2.w * w3;
                sum3 += x3.x * w0 + x3.y * w1 + x3.z * w2 + x3.w * w3;
            }
        }
    }
    store(row, q, o, sum0);
    store(row, q + 1u, o, sum1);
    store(row, q + 2u, o, sum2);
    store(row, q + 3u, o, sum3);
}

fn store(row: u32, q: u32, o: u32, sum: vec4<f32>) {
    if q < params.out_w {
        let at = (row * params.out_w + q) * (params.out_c / 4u) + o;
        y[at] = finish(sum, at, o);
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let blocks = (params.out_c + 7u) / 8u;
    let row_strips = (params.out_w + 7u) / 8u;
    let strips = params.batch * params.out_h * row_strips;
    if i >= strips * blocks {
        return;
    }
    // Neighbouring threads take neighbouring strips of pixels.
    let q = i % strips % row_strips * 8u;
    let row = i % strips / row_strips;
    let o = i / strips * 2u;
    compute(row, q, o);
    compute(row, q + 4u, o);
    if (o + 1u) * 4u < params.out_c {
        compute(row, q, o + 1u);
        compute(row, q + 4u, o + 1u);
    }
}
