// The weight of a convolution one by one, as f16: two elements to a word.

@group(0) @binding(1) var<storage, read> weight: array<u32>;

fn weight_at(i: u32) -> f32 {
    let both = unpack2x16float(weight[i / 2u]);
    return select(both.x, both.y, i % 2u == 1u);
}
