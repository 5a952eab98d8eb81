// y = f(scale * x + shift), with f by its number: 0 exp, 1 log, 2 abs, 3 sign, 4 square root,
// 5 reciprocal, 6 identity, 7 hyperbolic tangent.
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | x | read | len |
// | 1 | y | read_write | len |
// | 2 | params | uniform | |
//
// Dispatch: one thread for each element.

struct Params {
    len: u32,
    function: u32,
    scale: f32,
    shift: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
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
    let u = params.scale * x[i] + params.shift;
    switch params.function {
        case 0u: {
            y[i] = exp(u);
        }
        case 1u: {
            y[i] = log(u);
        }
        case 2u: {
            y[i] = abs(u);
        }
        case 3u: {
            // Written so that NaN stays NaN.
            y[i] = select(select(u, -1.0, u < 0.0), 1.0, u > 0.0);
        }
        case 4u: {
            y[i] = sqrt(u);
        }
        case 5u: {
            y[i] = 1.0 / u;
        }
        case 7u: {
            // The built-in one may overflow: it divides exponentials of u.
            let e = exp(-2.0 * abs(u));
            y[i] = sign(u) * (1.0 - e) / (1.0 + e);
        }
        default: {
            y[i] = u;
        }
    }
}
