// The convolution of conv2d_tiled.wgsl, for devices whose subgroups have exactly eight lanes.
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
    let columns = vec4<u32>(place.q, place.q + 1u, place.q + 2u, place.q + 3u) * params.stride_w;
    var sums = first_sums(place.o);
    for (var r = 0u; r < params.kernel_h; r++) {
        // A position before the image wraps to a huge one, so one comparison finds both edges.
        let i_h = p * params.stride_h + r * params.dilation_h - params.pad_top;
        let row_inside = i_h < params.in_h;
        let image_row = (n * params.in_h + min(i_h, params.in_h - 1u)) * params.in_w;
        for (var s = 0u; s < params.kernel_w; s++) {
            let j = columns + s * params.dilation_w - params.pad_left;
            let inside = (j < vec4<u32>(params.in_w)) & vec4<bool>(row_inside);
            let at = (image_row + min(j, vec4<u32>(params.in_w - 1u))) * channels;
            let tap = (r * params.kernel_w + s) * params.in_c * filters;
            for (var c = 0u; c < channels; c++) {
                let start = tap + c * 4u * filters;
                let x0 = select(vec4<f32>(), x_at(at.x + c), inside.x);
                let x1 = select(vec4<f32>(), x_at(at.y + c), inside.y);
                let x2 = select(vec4<f32>(), x_at(at.z + c), inside.z);
                let x3 = select(vec4<f32>(), x_at(at.w + c), inside.w);
                sums = add_tap(sums, x0, x1, x2, x3, weights_at(start + first), weights_at(start + second));
            }
        }
    }
    store(place, sums);
}
