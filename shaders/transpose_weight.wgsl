// The weight of the convolution that computes another one's input gradient, for stride 1: turned by
// half a turn, input and output channels exchanged.
//     y[r, s, f, g * channels + c] = weight[kernel_h - 1 - r, kernel_w - 1 - s, c, g * filters + f]
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | weight | read | kernel_h * kernel_w * channels * groups * filters |
// | 1 | y | read_write | as many |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each element of y.

struct Params {
    len: u32,
    taps: u32,
    channels: u32,
    filters: u32,
    groups: u32,
}

@group(0) @binding(0) var<storage, read> weight: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

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
    let g = i / params.channels % params.groups;
    let f = i / params.channels / params.groups % params.filters;
    let tap = i / params.channels / params.groups / params.filters;
    let start = (params.taps - 1u - tap) * params.channels + c;
    y[i] = weight[(start * params.groups + g) * params.filters + f];
}
