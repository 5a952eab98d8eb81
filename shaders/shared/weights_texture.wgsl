// The weight of a convolution in fours, as f32, a texel each.

@group(0) @binding(1) var weight: texture_2d<f32>;

// Elements 4i to 4i + 3.
fn weights_at(i: u32) -> vec4<f32> {
    return textureLoad(weight, texel(i), 0);
}
