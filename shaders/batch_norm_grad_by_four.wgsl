// dx = dy * scale / sqrt(variance + epsilon), for each channel; channels are a multiple of 4.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | pixels * channels (in fours) |
// | 1 | scale | read | channels (in fours) |
// | 2 | variance | read | channels (in fours) |
// | 3 | dx | read_write | pixels * channels (in fours) |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each 4 channels of 4 pixels.

struct Params {
    len: u32,
    channels: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> scale: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> variance: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let blocks = params.channels / 4u;
    let pixels = params.len / params.channels;
    let c = i % blocks;
    let first = i / blocks * 4u;
    let last = min(first + 4u, pixels);
    let factor = scale[c] / sqrt(variance[c] + vec4<f32>(params.epsilon));
    for (var pixel = first; pixel < last; pixel++) {
        let at = pixel * blocks + c;
        dx[at] = dy[at] * factor;
    }
}
