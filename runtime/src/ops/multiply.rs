//! Elementwise product.

use serde::{Deserialize, Serialize};

use super::elementwise::{LenParams, zip};
use super::launch::{Argument, Kernel, Launch};
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

/// `y[i] = a[i] * b[i]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Multiply;

const MULTIPLY: Kernel =
    Kernel { name: "multiply", sources: &[adamant_shaders::INDEX, adamant_shaders::MULTIPLY], workgroup: 64 };

impl Operation for Multiply {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [a, b] = arity(inputs)?;
        same(a, b)?;
        Ok(vec![a])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        let parameters = LenParams { len: inputs[0].len() as u32 };
        Launch::single(MULTIPLY, &arguments, &parameters, inputs[0].len().div_ceil(4))
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        zip(inputs[0].data, inputs[1].data, outputs[0].data, |a, b| a * b);
    }
}
