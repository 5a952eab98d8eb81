// y[n,p,c] = (x[n,c,p] - mean[c]) / std[c], from channels first to channels last.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | len |
// | 1 | mean | read | channels |
// | 2 | deviation | read | channels |
// | 3 | y | read_write | len |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each element of y.

struct Params {
    len: u32,
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
    if i >= params.len {
        return;
    }
    let c = i % params.channels;
    let pixel = i / params.channels;
    let n = pixel / params.pixels;
    let p = pixel % params.pixels;
    y[i] = (x[(n * params.channels + c) * params.pixels + p] - mean[c]) / deviation[c];
}
