// The weight of a convolution one by one, as f16: two elements to a word.

@group(0) @binding(1) var<storage, read> weight: array<u32>;

fn weight_at(i: u32) -> f32 {
    let both = unpack2x16float(weight[i / 2u]);
    return select(both.x, both.y, i % 2u == 1u);
}

// Where a sum for the output channels `o` begins.
fn first_sum(o: vec4<u32>) -> vec4<f32> {
    if has(BIAS) {
        return vec4<f32>(bias[o.x], bias[o.y], bias[o.z], bias[o.w]);
    }
    return vec4<f32>();
}

// What such a sum is worth in the end.
fn worth(sum: vec4<f32>, o: vec4<u32>) -> vec4<f32> {
    return sum;
}
