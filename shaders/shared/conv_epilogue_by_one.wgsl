// The epilogue of the convolutions that hold activations one by one.

// Stores those of four channels from `o` that lie below `end`, if the pixel is in the row.
fn store(row: u32, q: u32, o: u32, end: u32, sum: vec4<f32>) {
    if q >= params.out_w {
        return;
    }
    let at = (row * params.out_w + q) * params.out_c + o;
    // Channels past the end are those of the last one again.
    let at4 = min(vec4<u32>(at, at + 1u, at + 2u, at + 3u), vec4<u32>(at + end - 1u - o));
    var v = worth(sum, at4 - vec4<u32>(at - o));
    if has(RESIDUAL) {
        v += vec4<f32>(residual[at4.x], residual[at4.y], residual[at4.z], residual[at4.w]);
    }
    if has(RELU) {
        v = activate(v);
    }
    if has(RELU_GRAD) {
        v = select(vec4<f32>(), v, passes(vec4<f32>(mask[at4.x], mask[at4.y], mask[at4.z], mask[at4.w])));
    }
    y[at] = v.x;
    if o + 1u < end {
        y[at + 1u] = v.y;
    }
    if o + 2u < end {
        y[at + 2u] = v.z;
    }
    if o + 3u < end {
        y[at + 3u] = v.w;
    }
}
