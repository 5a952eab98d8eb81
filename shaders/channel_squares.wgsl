// partial[part][c] = sum of (x[p][c] - mean[c])^2 over the pixels p of the part.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | pixels * channels |
// | 1 | mean | read | channels |
// | 2 | partial | read_write | parts * channels |
// | 3 | params | uniform | |
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
}

@group(0) @binding(1) var<storage, read> mean: array<T>;
@group(0) @binding(2) var<storage, read_write> partial: array<T>;
@group(0) @binding(3) var<uniform> params: Params;

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
    var sum = T();
    for (var first = part * per_part; first < end; first += BLOCK) {
        var block = T();
        for (var p = first; p < min(first + BLOCK, end); p++) {
            let difference = x_at(p * params.channels + c) - center;
            block += difference * difference;
        }
        sum += block;
    }
    partial[i] = sum;
}
