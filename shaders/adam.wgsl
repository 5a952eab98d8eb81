// As torch.optim.Adam and AdamW, with rates = (learning rate, 1 - beta1^t, 1 - beta2^t) for step t:
// g = gradient + weight_decay * parameter, or, decoupled, parameter -= rates[0] * weight_decay * parameter;
// first = beta1 * first + (1 - beta1) * g, second = beta2 * second + (1 - beta2) * g^2,
// parameter -= rates[0] / rates[1] * first / (sqrt(second) / sqrt(rates[2]) + epsilon).
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | gradient | read | len |
// | 1 | rates | read | 3 |
// | 2 | parameter | read_write | len |
// | 3 | first | read_write | len |
// | 4 | second | read_write | len |
// | 5 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    len: u32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    decoupled: u32,
}

@group(0) @binding(0) var<storage, read> gradient: array<f32>;
@group(0) @binding(1) var<storage, read> rates: array<f32>;
@group(0) @binding(2) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(3) var<storage, read_write> first: array<f32>;
@group(0) @binding(4) var<storage, read_write> second: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

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
    let rate = rates[0];
    var p = parameter[i];
    var g = gradient[i];
    if params.decoupled != 0u {
        p -= rate * params.weight_decay * p;
    } else {
        g += params.weight_decay * p;
    }
    let m = params.beta1 * first[i] + (1.0 - params.beta1) * g;
    let v = params.beta2 * second[i] + (1.0 - params.beta2) * g * g;
    first[i] = m;
    second[i] = v;
    let denominator = sqrt(v) / sqrt(rates[2]) + params.epsilon;
    parameter[i] = p - rate / rates[1] * m / denominator;
}
