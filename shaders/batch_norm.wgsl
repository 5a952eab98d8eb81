// y = (x - mean) / sqrt(variance + epsilon) * scale + shift, for each channel.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | pixels * channels |
// | 1 | scale | read | channels |
// | 2 | shift | read | channels |
// | 3 | mean | read | channels |
// | 4 | variance | read | channels |
// | 5 | y | read_write | pixels * channels |
// | 6 | params | uniform | |
//
// Elements and channels are counted in T: one channel, or four.
//
// Dispatch: one thread for each channel of 4 pixels.

struct Params {
    pixels: u32,
    channels: u32,
    epsilon: f32,
}

@group(0) @binding(1) var<storage, read> scale: array<T>;
@group(0) @binding(2) var<storage, read> shift: array<T>;
@group(0) @binding(3) var<storage, read> mean: array<T>;
@group(0) @binding(4) var<storage, read> variance: array<T>;
@group(0) @binding(5) var<storage, read_write> y: array<T>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let c = i % params.channels;
    let first = i / params.channels * 4u;
    let last = min(first + 4u, params.pixels);
    let factor = scale[c] / sqrt(variance[c] + T(params.epsilon));
    let offset = shift[c] - mean[c] * factor;
    for (var pixel = first; pixel < last; pixel++) {
        let at = pixel * params.channels + c;
        y[at] = fma(x_at(at), factor, offset);
    }
}
