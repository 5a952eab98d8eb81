// Four sums, each with four products more: `a` are the factors, w0 to w3 what they multiply.
fn accumulate(a: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(vec4<f32>(a.w), w3, fma(vec4<f32>(a.z), w2, fma(vec4<f32>(a.y), w1, fma(vec4<f32>(a.x), w0, sum))));
}
