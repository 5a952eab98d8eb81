// dw[r,s,c,o] = sum over n,p,q of
//     x[n, p * stride_h + r * dilation_h - pad_top, q * stride_w + s * dilation_w - pad_left, c] * dy[n,p,q,o].
// The sum over the rows of dy is taken in `option` parts: partial[part] is one part of dw.
// With groups, c counts the input channels of the group of o.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c |
// | 1 | dy | read | batch * out_h * out_w * out_c |
// | 2 | partial | read_write | option * kernel_h * kernel_w * in_c / groups * out_c |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each part, tap, input channel of a group and 4 output channels.
// A position before the image wraps to a huge one, so one comparison finds both edges.
// Rows are summed by themselves first, which keeps f32 rounding small.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;
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

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let channels = params.in_c / params.groups;
    let filters = params.out_c / params.groups;
    let blocks = (params.out_c + 3u) / 4u;
    let taps = params.kernel_h * params.kernel_w;
    let tiles = taps * channels * blocks;
    if i >= tiles * params.option {
        return;
    }
    // Neighbouring threads take neighbouring output channels.
    let o = i % blocks * 4u;
    let c = i / blocks % channels;
    let tap = i % tiles / blocks / channels;
    let part = i / tiles;
    let r = tap / params.kernel_w;
    let s = tap % params.kernel_w;
    // Channels past the last are computed as copies of it and not stored.
    let o4 = min(vec4<u32>(o, o + 1u, o + 2u, o + 3u), vec4<u32>(params.out_c - 1u));
    // Four neighbouring output channels may belong to several groups.
    let c4 = o4 / filters * channels + c;
    let one_group = c4.x == c4.w;
    let rows = params.batch * params.out_h;
    let per_part = (rows + params.option - 1u) / params.option;
    let end = min((part + 1u) * per_part, rows);
    let inside = columns_inside(s);

    var sum = vec4<f32>();
    for (var row = part * per_part; row < end; row++) {
        let n = row / params.out_h;
        let p = row % params.out_h;
        let i_h = p * params.stride_h + r * params.dilation_h - params.pad_top;
        if i_h >= params.in_h {
            continue;
        }
        let image_row = (n * params.in_h + i_h) * params.in_w;
        var row_sum = vec4<f32>();
        for (var q = inside.x; q < inside.y; q++) {
            let j = q * params.stride_w + s * params.dilation_w - params.pad_left;
            let a = (image_row + j) * params.in_c + c4;
            var v = vec4<f32>(x[a.x]);
            if !one_group {
                v = vec4<f32>(v.x, x[a.y], x[a.z], x[a.w]);
            }
            let b = (row * params.out_w + q) * params.out_c + o4;
            row_sum += v * vec4<f32>(dy[b.x], dy[b.y], dy[b.z], dy[b.w]);
        }
        sum += row_sum;
    }

    let at = ((part * taps + tap) * channels + c) * params.out_c + o;
    partial[at] = sum.x;
    if o + 1u < params.out_c {
        partial[at + 1u] = sum.y;
    }
    if o + 2u < params.out_c {
        partial[at + 2u] = sum.z;
    }
    if o + 3u < params.out_c {
        partial[at + 3u] = sum.w;
    }
}
