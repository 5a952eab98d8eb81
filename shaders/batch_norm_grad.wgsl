// dx = dy * scale / sqrt(variance + epsilon), for each channel.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | len |
// | 1 | scale | read | channels |
// | 2 | variance | read | channels |
// | 3 | dx | read_write | len |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    len: u32,
    channels: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> variance: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

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
    dx[i] = dy[i] * (scale[c] / sqrt(variance[c] + params.epsilon));
}
