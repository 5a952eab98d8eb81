// What a convolution does to its sums before it stores them. `option` says what, in bits.

// The bias is added.
const BIAS: u32 = 1u;
// The residual, an activation of y's shape, is added.
const RESIDUAL: u32 = 2u;
// min(max(y, 0), max); not a number stays one.
const RELU: u32 = 4u;
// y stays where 0 < mask < max, else 0: the gradient of an activation whose output is the mask.
const RELU_GRAD: u32 = 8u;

fn has(what: u32) -> bool {
    return (params.option & what) != 0u;
}

fn activate(sum: vec4<f32>) -> vec4<f32> {
    let bounded = select(sum, vec4<f32>(params.max), sum > vec4<f32>(params.max));
    return select(bounded, vec4<f32>(), sum < vec4<f32>());
}

fn passes(mask: vec4<f32>) -> vec4<bool> {
    return (mask > vec4<f32>()) & (mask < vec4<f32>(params.max));
}
