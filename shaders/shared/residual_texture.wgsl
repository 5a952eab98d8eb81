// What is added to a normalised activation, of its shape, in fours, a texel each.

@group(0) @binding(5) var residual: texture_2d<f32>;

fn residual_at(i: u32) -> vec4<f32> {
    return textureLoad(residual, texel(i), 0);
}
