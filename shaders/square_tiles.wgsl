// delta = the pattern, with a random sign, in every tile of every channel: the start of Square in the l2
// ball, before it is scaled to the radius. The tiles are `side` wide, five of them in the middle of the
// height; one random number for each tile turns the pattern over.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | indices | read | batch (u32) |
// | 1 | key | read | 2 (u32) |
// | 2 | pattern | read | side * side |
// | 3 | delta | read_write | batch * channels * height * width |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    batch: u32,
    channels: u32,
    height: u32,
    width: u32,
    side: u32,
    margin: u32,
}

@group(0) @binding(0) var<storage, read> indices: array<u32>;
@group(0) @binding(1) var<storage, read> key: array<u32>;
@group(0) @binding(2) var<storage, read> pattern: array<f32>;
@group(0) @binding(3) var<storage, read_write> delta: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let per_image = params.channels * params.height * params.width;
    if i >= params.batch * per_image {
        return;
    }
    let index = indices[i / per_image];
    let channel = i / (params.height * params.width) % params.channels;
    let row = i / params.width % params.height;
    let column = i % params.width;
    let down = params.height / params.side;
    let across = params.width / params.side;
    // Before the margin this wraps to a huge number: outside.
    let tile_row = (row - params.margin) / params.side;
    let tile_column = (column - params.margin) / params.side;
    var value = 0.0;
    if row >= params.margin && column >= params.margin && tile_row < down && tile_column < across {
        let stream = vec2<u32>(key[0], key[1]);
        let tile = tile_row * across + tile_column;
        let position = tile * (params.channels + 1u);
        let y = (row - params.margin) % params.side;
        let x = (column - params.margin) % params.side;
        let turned = random_uniform(stream, index, position) >= 0.5;
        let p = pattern[select(y * params.side + x, x * params.side + y, turned)];
        let positive = random_uniform(stream, index, position + 1u + channel) >= 0.5;
        value = select(-p, p, positive);
    }
    delta[i] = value;
}
