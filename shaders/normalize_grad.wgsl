// dx[n,c,p] = dy[n,p,c] / std[c], from channels last to channels first.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | batch * channels * pixels |
// | 1 | deviation | read | channels |
// | 2 | dx | read_write | batch * channels * pixels |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each pixel.

struct Params {
    batch: u32,
    channels: u32,
    pixels: u32,
}

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> deviation: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

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
        dx[(n * params.channels + c) * params.pixels + p] = dy[i * params.channels + c] / deviation[c];
    }
}
