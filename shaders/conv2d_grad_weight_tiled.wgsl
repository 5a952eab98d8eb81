// dw[r,s,c,o] = sum over n,p,q of
//     x[n, p * stride_h + r * dilation_h - pad_top, q * stride_w + s * dilation_w - pad_left, c] * dy[n,p,q,o].
// The sum over the rows of dy is taken in `option` parts: partial[part] is one part of dw.
// One group; in_c and out_c are multiples of 4.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c (in fours) |
// | 1 | dy | read | batch * out_h * out_w * out_c (in fours) |
// | 2 | partial | read_write | option * kernel_h * kernel_w * in_c * out_c (in fours) |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each part, tap, 8 input channels and 8 output channels.
// A position before the image wraps to a huge one, so one comparison finds both edges.
// Rows are summed by themselves first, which keeps f32 rounding small.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

// The output columns that a tap finds inside the image: first and one past the last.
fn columns_inside(s: u32) -> vec2<u32> {
    let offset = s * params.dilation_w;
    var first = 0u;
    if offset < params.pad_left {
        first = (params.pad_left - offset + params.stride_w - 1u) / params.stride_w;
    }
    var end = 0u;
    if offset < params.in_w + params.pad_left {
        end = min((params.in_w + params.pad_left - offset - 1u) / params.stride_w + 1u, params.out_w);
    }
    return vec2<u32>(first, end);
}

// The input channels 4c to 4c + 3 and the output channels 4o to 4o + 3 of a tap and part.
fn compute(part: u32, tap: u32, c: u32, o: u32) {
    let r = tap / params.kernel_w;
    let s = tap % params.kernel_w;
    let channels = params.in_c / 4u;
    let filters = params.out_c / 4u;
    let rows = params.batch * params.out_h;
    let per_part = (rows + params.option - 1u) / params.option;
    let end = min((part + 1u) * per_part, rows);
    let inside = columns_inside(s);
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var row = part * per_part; row < end; row++) {
        let n = row / params.out_h;
        let p = row % params.out_h;
        let i_h = p * params.stride_h + r * params.dilation_h - params.pad_top;
        if i_h >= params.in_h {
            continue;
        }
        let image_row = (n * params.in_h + i_h) * params.in_w;
        var row0 = vec4<f32>();
        var row1 = vec4<f32>();
        var row2 = vec4<f32>();
        var row3 = vec4<f32>();
        for (var q = inside.x; q < inside.y; q++) {
            let j = q * params.stride_w + s * params.dilation_w - params.pad_left;
            let v = x[(image_row + j) * channels + c];
            let g = dy[(row * params.out_w + q) * filters + o];
            row0 += v.x * g;
            row1 += v.y * g;
            row2 += v.z * g;
            row3 += v.w * g;
        }
        sum0 += row0;
        sum1 += row1;
        sum2 += row2;
        sum3 += row3;
    }
    let taps = params.kernel_h * params.kernel_w;
    let at = ((part * taps + tap) * params.in_c + c * 4u) * filters + o;
    partial[at] = sum0;
    partial[at + filters] = sum1;
    partial[at + 2u * filters] = sum2;
    partial[at + 3u * filters] = sum3;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let in_blocks = (params.in_c + 7u) / 8u;
    let out_blocks = (params.out_c + 7u) / 8u;
    let tiles = params.kernel_h * params.kernel_w * in_blocks * out_blocks;
    if i >= tiles * params.option {
        return;
    }
    // Neighbouring threads take neighbouring output channels.
    let o = i % out_blocks * 2u;
    let c = i / out_blocks % in_blocks * 2u;
    let tap = i % tiles / out_blocks / in_blocks;
    let part = i / tiles;
    let more_in = (c + 1u) * 4u < params.in_c;
    let more_out = (o + 1u) * 4u < params.out_c;
    compute(part, tap, c, o);
    if more_out {
        compute(part, tap, c, o + 1u);
    }
    if more_in {
        compute(part, tap, c + 1u, o);
    }
    if more_in && more_out {
        compute(part, tap, c + 1u, o + 1u);
    }
}
