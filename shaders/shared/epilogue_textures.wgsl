// What the epilogue of a convolution reads in fours, of the shape of y, a texel each.

@group(0) @binding(3) var residual: texture_2d<f32>;
@group(0) @binding(4) var mask: texture_2d<f32>;

// Elements 4i to 4i + 3.
fn residual_at(i: u32) -> vec4<f32> {
    return textureLoad(residual, texel(i), 0);
}

fn mask_at(i: u32) -> vec4<f32> {
    return textureLoad(mask, texel(i), 0);
}
