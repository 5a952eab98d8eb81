// y[i] = factor * sum over parts of partial[part * stride + offset + i].
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | partial | read | parts * stride |
// | 1 | y | read_write | len |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each element of y.
// Four interleaved sums, so that reads do not wait for additions; the order is fixed.

@group(0) @binding(0) var<storage, read> partial: array<f32>;
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
    let first = params.offset + i;
    let by_four = params.parts - params.parts % 4u;
    var sums = vec4<f32>();
    for (var part = 0u; part < by_four; part += 4u) {
        let at = first + part * params.stride;
        sums += vec4<f32>(
            partial[at],
            partial[at + params.stride],
            partial[at + 2u * params.stride],
            partial[at + 3u * params.stride],
        );
    }
    var sum = (sums.x + sums.y) + (sums.z + sums.w);
    for (var part = by_four; part < params.parts; part++) {
        sum += partial[first + part * params.stride];
    }
    y[i] = params.factor * sum;
}
