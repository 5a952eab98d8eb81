// The convolution of conv2d_lanes8.wgsl, for kernels three wide where the next tap of a pixel is this
// tap of the next pixel (stride_w = dilation_w): four pixels then meet six positions of a row, not twelve.
// One group; in_c is a multiple of 4, out_c of 16.
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
// Dispatch: for each 16 output channels, one thread for each 4 pixels of an output row, rounded up
// to whole workgroups: all lanes of a subgroup share their weights.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let place = place(workgroup_index(group, groups), local);
    if place.idle {
        return;
    }
    let channels = params.in_c / 4u;
    let filters = params.out_c / 4u;
    let p = place.row % params.out_h;
    let n = place.row / params.out_h;
    let first = own_weight(place.o, lane);
    let second = first + 2u * filters;
    let tap_weights = params.in_c * filters;
    // The six positions in a row that the taps of four pixels meet. One before the image wraps to a huge
    // one, so one comparison finds both edges.
    let start = place.q * params.stride_w - params.pad_left;
    let j = start + params.stride_w * vec4<u32>(0u, 1u, 2u, 3u);
    let k = start + params.stride_w * vec2<u32>(4u, 5u);
    let in_columns = j < vec4<u32>(params.in_w);
    let in_columns_too = k < vec2<u32>(params.in_w);
    let at_columns = min(j, vec4<u32>(params.in_w - 1u)) * channels;
    let at_columns_too = min(k, vec2<u32>(params.in_w - 1u)) * channels;
    var sums = first_sums(place.o);
    for (var r = 0u; r < params.kernel_h; r++) {
        let i_h = p * params.stride_h + r * params.dilation_h - params.pad_top;
        let row_inside = i_h < params.in_h;
        let row = (n * params.in_h + min(i_h, params.in_h - 1u)) * params.in_w * channels;
        // All that does not depend on the channel is outside of its loop: not every compiler moves it there.
        let inside = in_columns & vec4<bool>(row_inside);
        let inside_too = in_columns_too & vec2<bool>(row_inside);
        let at = row + at_columns;
        let at_too = row + at_columns_too;
        let weights = r * 3u * tap_weights;
        for (var c = 0u; c < channels; c++) {
            let left = weights + c * 4u * filters;
            let middle = left + tap_weights;
            let right = middle + tap_weights;
            let x0 = select(vec4<f32>(), x[at.x + c], inside.x);
            let x1 = select(vec4<f32>(), x[at.y + c], inside.y);
            let x2 = select(vec4<f32>(), x[at.z + c], inside.z);
            let x3 = select(vec4<f32>(), x[at.w + c], inside.w);
            sums = add_tap(sums, x0, x1, x2, x3, weights_at(left + first), weights_at(left + second));
            let x4 = select(vec4<f32>(), x[at_too.x + c], inside_too.x);
            sums = add_tap(sums, x1, x2, x3, x4, weights_at(middle + first), weights_at(middle + second));
            let x5 = select(vec4<f32>(), x[at_too.y + c], inside_too.y);
            sums = add_tap(sums, x2, x3, x4, x5, weights_at(right + first), weights_at(right + second));
        }
    }
    store(place, sums);
}
