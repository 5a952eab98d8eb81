//! Parameter updates, in place, as PyTorch defines them.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity};
use crate::shape::Shape;

/// Stochastic gradient descent (torch.optim.SGD, dampening 0). Inputs: gradient, learning rate
/// (scalar). Updates: parameter, velocity (zero at the start).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sgd {
    pub momentum: f32,
    pub nesterov: bool,
    /// Added to the gradient times the parameter.
    pub weight_decay: f32,
}

/// Adam (torch.optim.Adam), or AdamW when the decay is decoupled. Inputs: gradient, and a vector of
/// learning rate, 1 - beta1^t, 1 - beta2^t for step t = 1, 2, ... Updates: parameter, first and
/// second moment (zero at the start).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Adam {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    pub weight_decay: f32,
    pub decoupled: bool,
}

params! {
    struct SgdParams { len: u32, momentum: f32, nesterov: u32, weight_decay: f32, }
}

params! {
    struct AdamParams { len: u32, beta1: f32, beta2: f32, epsilon: f32, weight_decay: f32, decoupled: u32, }
}

const SGD: Kernel =
    Kernel { name: "sgd", sources: &[adamant_shaders::INDEX, adamant_shaders::SGD], workgroup: 64 };
const ADAM: Kernel =
    Kernel { name: "adam", sources: &[adamant_shaders::INDEX, adamant_shaders::ADAM], workgroup: 64 };

impl Operation for Sgd {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [gradient, _] = arity(inputs)?;
        Ok(vec![gradient, gradient])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let parameters = SgdParams {
            len: inputs[0].len() as u32,
            momentum: self.momentum,
            nesterov: self.nesterov.into(),
            weight_decay: self.weight_decay,
        };
        Launch::single(SGD, &[Input(0), Input(1), Output(0), Output(1)], &parameters, inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let rate = inputs[1].data[0];
        let [parameter, velocity] = outputs else { unreachable!("two outputs") };
        let state = parameter.data.par_iter_mut().zip(velocity.data.par_iter_mut());
        state.zip(inputs[0].data.par_iter()).with_min_len(4096).for_each(|((p, v), g)| {
            let g = g + self.weight_decay * *p;
            *v = self.momentum * *v + g;
            let step = if self.nesterov { g + self.momentum * *v } else { *v };
            *p -= rate * step;
        });
    }
}

impl Operation for Adam {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [gradient, rates] = arity(inputs)?;
        if rates.len() != 3 {
            return Err(format!("takes a vector of three rates, got {rates:?}"));
        }
        Ok(vec![gradient, gradient, gradient])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let parameters = AdamParams {
            len: inputs[0].len() as u32,
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            decoupled: self.decoupled.into(),
        };
        Launch::single(
            ADAM,
            &[Input(0), Input(1), Output(0), Output(1), Output(2)],
            &parameters,
            inputs[0].len(),
        )
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [rate, correction1, correction2] = inputs[1].data[..3] else { unreachable!("three rates") };
        let [parameter, first, second] = outputs else { unreachable!("three outputs") };
        let moments = first.data.par_iter_mut().zip(second.data.par_iter_mut());
        let state = parameter.data.par_iter_mut().zip(moments);
        state.zip(inputs[0].data.par_iter()).with_min_len(4096).for_each(|((p, (m, v)), &gradient)| {
            let mut g = gradient;
            if self.decoupled {
                *p -= rate * self.weight_decay * *p;
            } else {
                g += self.weight_decay * *p;
            }
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
            let denominator = v.sqrt() / correction2.sqrt() + self.epsilon;
            *p -= rate / correction1 * *m / denominator;
        });
    }
}
