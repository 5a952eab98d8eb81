// The weight of a convolution one by one, as f32.

@group(0) @binding(1) var<storage, read> weight: array<f32>;

fn weight_at(i: u32) -> f32 {
    return weight[i];
}

// What sums of products with elements of the weight are worth, for the output channels `o`.
fn scaled(sum: vec4<f32>, o: vec4<u32>) -> vec4<f32> {
    return sum;
}
