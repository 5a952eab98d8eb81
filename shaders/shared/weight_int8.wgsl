// The weight of a convolution one by one, as signed bytes: first the scale of each output channel as f32,
// then four elements to a word.

@group(0) @binding(1) var<storage, read> weight: array<u32>;

// An element without its scale.
fn weight_at(i: u32) -> f32 {
    let word = weight[params.out_c + i / 4u];
    return f32(i32(word << (24u - i % 4u * 8u)) >> 24u);
}

// Where a sum for the output channels `o` begins.
fn first_sum(o: vec4<u32>) -> vec4<f32> {
    return vec4<f32>();
}

// What such a sum is worth in the end.
fn worth(sum: vec4<f32>, o: vec4<u32>) -> vec4<f32> {
    let scale = bitcast<vec4<f32>>(vec4<u32>(weight[o.x], weight[o.y], weight[o.z], weight[o.w]));
    if has(BIAS) {
        return sum * scale + vec4<f32>(bias[o.x], bias[o.y], bias[o.z], bias[o.w]);
    }
    return sum * scale;
}
