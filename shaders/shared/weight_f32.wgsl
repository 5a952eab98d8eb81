// The weight of a convolution one by one, as f32.

@group(0) @binding(1) var<storage, read> weight: array<f32>;

fn weight_at(i: u32) -> f32 {
    return weight[i];
}
