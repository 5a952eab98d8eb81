// Sums of products with f32 or f16 weights, one by one: worth what they are, with no scale of their channel.

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
