// The weight of a convolution in fours, as signed bytes: first the scale of each output channel as f32,
// then four elements to a word.

@group(0) @binding(1) var<storage, read> weight: array<u32>;

// Elements 4i to 4i + 3, without their scales.
fn weights_at(i: u32) -> vec4<f32> {
    let word = vec4<u32>(weight[params.out_c + i]);
    return vec4<f32>(vec4<i32>(word << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}

// Where a sum for the output channels 4o to 4o + 3 begins.
fn first_sum(o: u32) -> vec4<f32> {
    return vec4<f32>();
}

// What such a sum is worth in the end.
fn worth(sum: vec4<f32>, o: u32) -> vec4<f32> {
    let i = 4u * o;
    let scale = bitcast<vec4<f32>>(vec4<u32>(weight[i], weight[i + 1u], weight[i + 2u], weight[i + 3u]));
    if has(BIAS) {
        return sum * scale + bias[o];
    }
    return sum * scale;
}
