// running = running * (1 - momentum) + batch * momentum, for the mean and for the variance, whose
// batch value is first made unbiased: times unbias.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | batch_mean | read | channels |
// | 1 | batch_variance | read | channels |
// | 2 | mean | read_write | channels |
// | 3 | variance | read_write | channels |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each channel.

struct Params {
    channels: u32,
    momentum: f32,
    unbias: f32,
}

@group(0) @binding(0) var<storage, read> batch_mean: array<f32>;
@group(0) @binding(1) var<storage, read> batch_variance: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> variance: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let c = thread_index(group, groups, local);
    if c >= params.channels {
        return;
    }
    let keep = 1.0 - params.momentum;
    mean[c] = mean[c] * keep + batch_mean[c] * params.momentum;
    variance[c] = variance[c] * keep + batch_variance[c] * params.unbias * params.momentum;
}
