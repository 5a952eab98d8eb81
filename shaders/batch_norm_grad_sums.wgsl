// For each part of the pixels and each channel, with xhat = (x - mean) / sqrt(variance + epsilon):
// partial[part][0][c] = sum of dy * xhat, partial[part][1][c] = sum of dy.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | pixels * channels |
// | 1 | dy | read | pixels * channels |
// | 2 | mean | read | channels |
// | 3 | variance | read | channels |
// | 4 | partial | read_write | parts * 2 * channels |
// | 5 | params | uniform | |
//
// Elements and channels are counted in T: one channel, or four.
//
// Dispatch: one thread for each part and channel.
// Neighbouring threads take neighbouring channels. Sums are taken in blocks, which keeps f32
// rounding small.

struct Params {
    pixels: u32,
    channels: u32,
    parts: u32,
    epsilon: f32,
}

// The binding of dy.
const DY = 1;

@group(0) @binding(2) var<storage, read> mean: array<T>;
@group(0) @binding(3) var<storage, read> variance: array<T>;
@group(0) @binding(4) var<storage, read_write> partial: array<T>;
@group(0) @binding(5) var<uniform> params: Params;

const BLOCK: u32 = 32u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    if i >= params.parts * params.channels {
        return;
    }
    let c = i % params.channels;
    let part = i / params.channels;
    let per_part = (params.pixels + params.parts - 1u) / params.parts;
    let end = min((part + 1u) * per_part, params.pixels);

    let center = mean[c];
    var scaled = T();
    var plain = T();
    for (var first = part * per_part; first < end; first += BLOCK) {
        var block_scaled = T();
        var block_plain = T();
        for (var p = first; p < min(first + BLOCK, end); p++) {
            let at = p * params.channels + c;
            let gradient = dy_at(at);
            block_scaled += gradient * (x_at(at) - center);
            block_plain += gradient;
        }
        scaled += block_scaled;
        plain += block_plain;
    }
    let at = part * 2u * params.channels + c;
    partial[at] = scaled / sqrt(variance[c] + T(params.epsilon));
    partial[at + params.channels] = plain;
}
