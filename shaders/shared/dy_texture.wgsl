// The gradient by the output in fours, a texel each. The kernel says which binding that is.

@group(0) @binding(DY) var dy: texture_2d<f32>;

fn dy_at(i: u32) -> vec4<f32> {
    return textureLoad(dy, texel(i), 0);
}
