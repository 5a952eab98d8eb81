// y = (x - mean) / sqrt(variance + epsilon) * scale + shift, for each channel, and what `option` says of what follows.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | pixels * channels |
// | 1 | scale | read | channels |
// | 2 | shift | read | channels |
// | 3 | mean | read | channels |
// | 4 | variance | read | channels |
// | 5 | residual | read | pixels * channels, if there is one |
// | 6 | y | read_write | pixels * channels |
// | 7 | params | uniform | |
//
// Elements and channels are counted in T: one channel, or four.
//
// Dispatch: one thread for each channel of 4 pixels.

struct Params {
    pixels: u32,
    channels: u32,
    epsilon: f32,
    option: u32,
    max: f32,
}

// Bits of `option`: the residual is added; min(max(y, 0), max), where NaN stays NaN.
const RESIDUAL: u32 = 1u;
const RELU: u32 = 2u;

@group(0) @binding(1) var<storage, read> scale: array<T>;
@group(0) @binding(2) var<storage, read> shift: array<T>;
@group(0) @binding(3) var<storage, read> mean: array<T>;
@group(0) @binding(4) var<storage, read> variance: array<T>;
@group(0) @binding(6) var<storage, read_write> y: array<T>;
@group(0) @binding(7) var<uniform> params: Params;

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
        var v = fma(x_at(at), factor, offset);
        if (params.option & RESIDUAL) != 0u {
            v += residual_at(at);
        }
        if (params.option & RELU) != 0u {
            let bounded = select(v, T(params.max), v > T(params.max));
            v = select(bounded, T(), v < T());
        }
        y[at] = v;
    }
}
