// y[i] = factor * sum over parts of partial[part * stride + offset + i], where the parts are many.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | partial | read | parts * stride |
// | 1 | y | read_write | len |
// | 2 | params | uniform | |
//
// Dispatch: one workgroup for each element of y.
// Every thread adds up every 64th part, and the workgroup adds up these sums in pairs: the order is fixed.

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = workgroup_index(group, groups);
    if i >= params.len {
        return;
    }
    var sum = 0.0;
    for (var part = local; part < params.parts; part += 64u) {
        sum += partial[part * params.stride + params.offset + i];
    }
    sums[local] = sum;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local] += sums[local + half];
        }
    }
    if local == 0u {
        y[i] = params.factor * sums[0];
    }
}
