// The epilogue of the convolutions that hold activations in fours.

// The value that goes to y[at], channels 4o to 4o + 3, when its sum is `sum`.
fn finish(sum: vec4<f32>, at: u32, o: u32) -> vec4<f32> {
    var v = worth(sum, o);
    if has(RESIDUAL) {
        v += residual_at(at);
    }
    if has(RELU) {
        v = activate(v);
    }
    if has(RELU_GRAD) {
        v = select(vec4<f32>(), v, passes(mask_at(at)));
    }
    return v;
}
