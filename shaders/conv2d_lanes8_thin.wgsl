// The convolution of conv2d_lanes8.wgsl for any number of input channels, such as an image's three.
// One group; out_c is a multiple of 16.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * in_h * in_w * in_c |
// | 1 | weight | read | kernel_h * kernel_w * in_c * out_c (in fours) |
// | 2 | bias | read | out_c (in fours) |
// | 3 | residual | read | as y |
// | 4 | mask | read | as y |
// | 5 | y | read_write | batch * out_h * out_w * out_c (in fours) |
// | 6 | params | uniform | |
//
// Dispatch: for each 16 output channels, one thread for each 4 pixels of an output row, rounded up
// to whole workgroups: all lanes of a subgroup share their weights.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

// Four channels from `c` of the pixel at `at`. Those past the last are the last one again; their weights
// are zero.
fn load(at: u32, c: u32, inside: bool) -> vec4<f32> {
    let channel = min(vec4<u32>(c, c + 1u, c + 2u, c + 3u), vec4<u32>(params.in_c - 1u)) + at;
    return select(vec4<f32>(), vec4<f32>(x[channel.x], x[channel.y], x[channel.z], x[channel.w]), inside);
}

// The weights of input channel `c` that this lane loads.
fn load_weight(tap: u32, c: u32, own: u32) -> vec4<f32> {
    let row = tap + min(c, params.in_c - 1u) * (params.out_c / 4u);
    return select(vec4<f32>(), weights_at(row + own), c < params.in_c);
}

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
    let filters = params.out_c / 4u;
    let p = place.row % params.out_h;
    let n = place.row / params.out_h;
    let own = place.o + lane % 4u;
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
            let at = (image_row + min(j, vec4<u32>(params.in_w - 1u))) * params.in_c;
            let tap = (r * params.kernel_w + s) * params.in_c * filters;
            for (var c = 0u; c < params.in_c; c += 4u) {
                let x0 = load(at.x, c, inside.x);
                let x1 = load(at.y, c, inside.y);
                let x2 = load(at.z, c, inside.z);
                let x3 = load(at.w, c, inside.w);
                let mine0 = load_weight(tap, c + lane / 4u, own);
                let mine1 = load_weight(tap, c + lane / 4u + 2u, own);
                sums = add_tap(sums, x0, x1, x2, x3, mine0, mine1);
            }
        }
    }
    store(place, sums);
}
