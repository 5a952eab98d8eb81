// As torch.optim.SGD with dampening 0:
// g = gradient + weight_decay * parameter, velocity = momentum * velocity + g,
// parameter -= rate * (nesterov ? g + momentum * velocity : velocity).
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | gradient | read | len |
// | 1 | rate | read | 1 |
// | 2 | parameter | read_write | len |
// | 3 | velocity | read_write | len |
// | 4 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    len: u32,
    momentum: f32,
    nesterov: u32,
    weight_decay: f32,
}

@group(0) @binding(0) var<storage, read> gradient: array<f32>;
@group(0) @binding(1) var<storage, read> rate: array<f32>;
@group(0) @binding(2) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(3) var<storage, read_write> velocity: array<f32>;
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
    let p = parameter[i];
    let g = gradient[i] + params.weight_decay * p;
    let v = params.momentum * velocity[i] + g;
    velocity[i] = v;
    parameter[i] = p - rate[0] * select(v, g + params.momentum * v, params.nesterov != 0u);
}
