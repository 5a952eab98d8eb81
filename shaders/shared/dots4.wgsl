// Four sums, each with a product of two vectors more.

fn dot_onto(sum: f32, a: vec4<f32>, w: vec4<f32>) -> f32 {
    return fma(a.w, w.w, fma(a.z, w.z, fma(a.y, w.y, fma(a.x, w.x, sum))));
}

fn add_dots(sums: vec4<f32>, a: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(dot_onto(sums.x, a, w0), dot_onto(sums.y, a, w1), dot_onto(sums.z, a, w2), dot_onto(sums.w, a, w3));
}
