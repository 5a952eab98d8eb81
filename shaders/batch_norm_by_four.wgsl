// y = (x - mean) / sqrt(variance + epsilon) * scale + shift, for each channel; channels are a
// multiple of 4.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | pixels * channels (in fours) |
// | 1 | scale | read | channels (in fours) |
// | 2 | shift | read | channels (in fours) |
// | 3 | mean | read | channels (in fours) |
// | 4 | variance | read | channels (in fours) |
// | 5 | y | read_write | pixels * channels (in fours) |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each 4 channels of 4 pixels.

struct Params {
    len: u32,
    channels: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> scale: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> shift: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> mean: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> variance: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let blocks = params.channels / 4u;
    let pixels = params.len / params.channels;
    let c = i % blocks;
    let first = i / blocks * 4u;
    let last = min(first + 4u, pixels);
    let factor = scale[c] / sqrt(variance[c] + vec4<f32>(params.epsilon));
    let offset = shift[c] - mean[c] * factor;
    for (var pixel = first; pixel < last; pixel++) {
        let at = pixel * blocks + c;
        y[at] = fma(x[at], factor, offset);
    }
}
