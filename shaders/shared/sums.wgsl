// Sums of products with f32 or f16 weights, in fours: worth what they are, with no scale of their channel.

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
