// dx[n,c,p] = dy[n,p,c] / std[c], from channels last to channels first.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | len |
// | 1 | deviation | read | channels |
// | 2 | dx | read_write | len |
// | 3 | params | uniform | |
//
// Dispatch: one thread for each element of dx.

struct Params {
    len: u32,
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
    if i >= params.len {
        return;
    }
    let p = i % params.pixels;
    let plane = i / params.pixels;
    let n = plane / params.channels;
    let c = plane % params.channels;
    dx[i] = dy[(n * params.pixels + p) * params.channels + c] / deviation[c];
}
