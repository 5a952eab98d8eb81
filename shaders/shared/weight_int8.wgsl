// The weight of a convolution one by one, as signed bytes: first the scale of each output channel as f32,
// then four elements to a word.

@group(0) @binding(1) var<storage, read> weight: array<u32>;

// An element without its scale.
fn weight_at(i: u32) -> f32 {
    let word = weight[params.out_c + i / 4u];
    return f32(i32(word << (24u - i % 4u * 8u)) >> 24u);
}

// What sums of products with elements of the weight are worth, for the output channels `o`.
fn scaled(sum: vec4<f32>, o: vec4<u32>) -> vec4<f32> {
    return sum * bitcast<vec4<f32>>(vec4<u32>(weight[o.x], weight[o.y], weight[o.z], weight[o.w]));
}
