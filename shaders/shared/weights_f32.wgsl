// The weight of a convolution in fours, as f32.

@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;

// Elements 4i to 4i + 3.
fn weights_at(i: u32) -> vec4<f32> {
    return weight[i];
}
