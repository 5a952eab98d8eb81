// y[n,p,c] = (x[n,c,p] - mean[c]) / std[c], from channels first to channels last.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | batch * channels * pixels |
// | 1 | mean | read | channels |
// | 2 | deviation | read | channels |
// | 3 | y | read_write | batch * channels * pixels |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each pixel.

struct Params {
    batch: u32,
    channels: u32,
    pixels: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> mean: array<f32>;
@group(0) @binding(2) var<storage, read> deviation: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let n = i / params.pixels;
    if n >= params.batch {
        return;
    }
    let p = i - n * params.pixels;
    for (var c = 0u; c < params.channels; c++) {
        y[i * params.channels + c] = (x[(n * params.channels + c) * params.pixels + p] - mean[c]) / deviation[c];
    }
}
