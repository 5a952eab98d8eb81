// An activation in fours, a texel each.

@group(0) @binding(0) var x: texture_2d<f32>;

fn x_at(i: u32) -> vec4<f32> {
    return textureLoad(x, texel(i), 0);
}
