// y = (x - mean) / sqrt(variance + epsilon) * scale + shift, for each channel.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | len |
// | 1 | scale | read | channels |
// | 2 | shift | read | channels |
// | 3 | mean | read | channels |
// | 4 | variance | read | channels |
// | 5 | y | read_write | len |
// | 6 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    len: u32,
    channels: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> shift: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    if i >= params.len {
        return;
    }
    let c = i % params.channels;
    let factor = scale[c] / sqrt(variance[c] + params.epsilon);
    y[i] = (x[i] - mean[c]) * factor + shift[c];
}
