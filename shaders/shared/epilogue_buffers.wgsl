// What the epilogue of a convolution reads in fours, of the shape of y.

@group(0) @binding(3) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> mask: array<vec4<f32>>;

// Elements 4i to 4i + 3.
fn residual_at(i: u32) -> vec4<f32> {
    return residual[i];
}

fn mask_at(i: u32) -> vec4<f32> {
    return mask[i];
}
