// The epilogue of the convolutions that hold activations in fours.

// The value that goes to y[at] when its sum is `sum`.
fn finish(sum: vec4<f32>, at: u32) -> vec4<f32> {
    var v = sum;
    if has(RESIDUAL) {
        v += residual[at];
    }
    if has(RELU) {
        v = activate(v);
    }
    if has(RELU_GRAD) {
        v = select(vec4<f32>(), v, passes(mask[at]));
    }
    return v;
}
