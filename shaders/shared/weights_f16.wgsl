// The weight of a convolution in fours, as f16: two elements to a word.

@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

// Elements 4i to 4i + 3.
fn weights_at(i: u32) -> vec4<f32> {
    let words = weight[i];
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
