// With sigma = sqrt(variance + epsilon) and xhat = (x - mean) / sigma, for each channel:
// dx = scale / sigma * (dy - dshift * per_count - xhat * dscale * per_count),
// where dshift = sum of dy and dscale = sum of dy * xhat; per_count = 1 / (values of a channel).
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | len |
// | 1 | dy | read | len |
// | 2 | scale | read | channels |
// | 3 | mean | read | channels |
// | 4 | variance | read | channels |
// | 5 | dscale | read | channels |
// | 6 | dshift | read | channels |
// | 7 | dx | read_write | len |
// | 8 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    len: u32,
    channels: u32,
    epsilon: f32,
    per_count: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;
@group(0) @binding(5) var<storage, read> dscale: array<f32>;
@group(0) @binding(6) var<storage, read> dshift: array<f32>;
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

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
    let per_sigma = 1.0 / sqrt(variance[c] + params.epsilon);
    let xhat = (x[i] - mean[c]) * per_sigma;
    let centered = dy[i] - dshift[c] * params.per_count - xhat * (dscale[c] * params.per_count);
    dx[i] = scale[c] * per_sigma * centered;
}
