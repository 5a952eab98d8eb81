// The weight of a convolution in fours, as f32.

@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;

// Elements 4i to 4i + 3.
fn weights_at(i: u32) -> vec4<f32> {
    return weight[i];
}

// Where a sum for the output channels 4o to 4o + 3 begins.
fn first_sum(o: u32) -> vec4<f32> {
    if has(BIAS) {
        return bias[o];
    }
    return vec4<f32>();
}

// What such a sum is worth in the end.
fn worth(sum: vec4<f32>, o: u32) -> vec4<f32> {
    return sum;
}
