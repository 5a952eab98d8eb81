// Folds a BatchNorm with fixed statistics into the convolution before it:
//     y[k,o] = weight[k,o] * f[o], shift_out[o] = shift[o] + (bias[o] - mean[o]) * f[o],
//     f[o] = scale[o] / sqrt(variance[o] + epsilon).
// Without a bias (has_bias 0) its binding is not read.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | weight | read | rows * channels |
// | 1 | scale | read | channels |
// | 2 | shift | read | channels |
// | 3 | mean | read | channels |
// | 4 | variance | read | channels |
// | 5 | bias | read | channels |
// | 6 | y | read_write | rows * channels |
// | 7 | shift_out | read_write | channels |
// | 8 | params | uniform | |
//
// Dispatch: one thread for each element of y and then of shift_out.

struct Params {
    len: u32,
    channels: u32,
    has_bias: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<storage, read> weight: array<f32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> shift: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read_write> shift_out: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    if i >= params.len + params.channels {
        return;
    }
    let o = i % params.channels;
    let f = scale[o] / sqrt(variance[o] + params.epsilon);
    if i < params.len {
        y[i] = weight[i] * f;
        return;
    }
    var b = -mean[o];
    if params.has_bias != 0u {
        b += bias[o];
    }
    shift_out[o] = shift[o] + b * f;
}
