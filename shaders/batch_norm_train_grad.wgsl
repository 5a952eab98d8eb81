// With sigma = sqrt(variance + epsilon) and xhat = (x - mean) / sigma, for each channel:
// dx = scale / sigma * (dy - dshift * per_count - xhat * dscale * per_count),
// where dshift = sum of dy and dscale = sum of dy * xhat; per_count = 1 / (values of a channel).
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | pixels * channels |
// | 1 | dy | read | pixels * channels |
// | 2 | scale | read | channels |
// | 3 | mean | read | channels |
// | 4 | variance | read | channels |
// | 5 | dscale | read | channels |
// | 6 | dshift | read | channels |
// | 7 | dx | read_write | pixels * channels |
// | 8 | params | uniform | |
//
// Elements and channels are counted in T: one channel, or four.
//
// Dispatch: one thread for each channel of 4 pixels.

struct Params {
    pixels: u32,
    channels: u32,
    epsilon: f32,
    per_count: f32,
}

// The binding of dy.
const DY = 1;

@group(0) @binding(2) var<storage, read> scale: array<T>;
@group(0) @binding(3) var<storage, read> mean: array<T>;
@group(0) @binding(4) var<storage, read> variance: array<T>;
@group(0) @binding(5) var<storage, read> dscale: array<T>;
@group(0) @binding(6) var<storage, read> dshift: array<T>;
@group(0) @binding(7) var<storage, read_write> dx: array<T>;
@group(0) @binding(8) var<uniform> params: Params;

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
    let per_sigma = T(1.0) / sqrt(variance[c] + T(params.epsilon));
    let center = mean[c];
    let plain = dshift[c] * params.per_count;
    let scaled = dscale[c] * params.per_count * per_sigma;
    let factor = scale[c] * per_sigma;
    for (var pixel = first; pixel < last; pixel++) {
        let at = pixel * params.channels + c;
        dx[at] = factor * (dy_at(at) - plain - (x_at(at) - center) * scaled);
    }
}
