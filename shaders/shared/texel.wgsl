// Where the elements 4i to 4i + 3 lie in a texture of 4096 texels a row.
fn texel(i: u32) -> vec2<u32> {
    return vec2<u32>(i & 4095u, i >> 12u);
}
