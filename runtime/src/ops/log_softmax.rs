//! Logarithms of the class probabilities.
//!
//! `y[n,k] = z[n,k] - log(sum over j of exp(z[n,j]))`

use serde::{Deserialize, Serialize};

use super::cross_entropy::{log_sum_exp, parameters};
use super::launch::{Argument, Kernel, Launch};
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

/// Input: logits (batch x 1 x 1 x classes). Output: of the same shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogSoftmax;

/// Inputs: the output of [`LogSoftmax`], its gradient.
/// `dz[n,k] = dy[n,k] - exp(y[n,k]) * sum over j of dy[n,j]`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogSoftmaxGrad;

const LOG_SOFTMAX: Kernel = Kernel {
    name: "log_softmax",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CLASSES, adamant_shaders::LOG_SOFTMAX],
    workgroup: 64,
};

const LOG_SOFTMAX_GRAD: Kernel = Kernel {
    name: "log_softmax_grad",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CLASSES, adamant_shaders::LOG_SOFTMAX_GRAD],
    workgroup: 64,
};

fn check(logits: Shape) -> Result<(), String> {
    match logits.height() == 1 && logits.width() == 1 {
        true => Ok(()),
        false => Err(format!("logits are batch x 1 x 1 x classes, got {logits:?}")),
    }
}

impl Operation for LogSoftmax {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [logits] = arity(inputs)?;
        check(logits)?;
        Ok(vec![logits])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Output(0)];
        Launch::single(LOG_SOFTMAX, &arguments, &parameters(inputs[0]), 64 * inputs[0].batch())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let classes = inputs[0].shape.channels();
        let rows = outputs[0].data.chunks_exact_mut(classes).zip(inputs[0].data.chunks_exact(classes));
        for (out, row) in rows {
            let (largest, sum) = log_sum_exp(row);
            for (y, z) in out.iter_mut().zip(row) {
                *y = z - largest - sum;
            }
        }
    }
}

impl Operation for LogSoftmaxGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [y, dy] = arity(inputs)?;
        check(y)?;
        same(y, dy)?;
        Ok(vec![y])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(LOG_SOFTMAX_GRAD, &arguments, &parameters(inputs[0]), 64 * inputs[0].batch())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let classes = inputs[0].shape.channels();
        let rows = inputs[0].data.chunks_exact(classes).zip(inputs[1].data.chunks_exact(classes));
        for (out, (y, dy)) in outputs[0].data.chunks_exact_mut(classes).zip(rows) {
            let sum: f32 = dy.iter().sum();
            for ((dz, y), dy) in out.iter_mut().zip(y).zip(dy) {
                *dz = dy - y.exp() * sum;
            }
        }
    }
}
