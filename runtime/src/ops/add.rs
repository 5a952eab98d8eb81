//! Elementwise sum of two activations: the joint of a residual block.

use serde::{Deserialize, Serialize};

use super::elementwise::{LenParams, zip};
use super::launch::{Argument, Kernel, Launch};
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Add;

const ADD: Kernel =
    Kernel { name: "add", sources: &[adamant_shaders::INDEX, adamant_shaders::ADD], workgroup: 64 };

impl Operation for Add {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [a, b] = arity(inputs)?;
        same(a, b)?;
        Ok(vec![a])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(
            ADD,
            &arguments,
            &LenParams { len: inputs[0].len() as u32 },
            inputs[0].len().div_ceil(4),
        )
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        zip(inputs[0].data, inputs[1].data, outputs[0].data, |a, b| a + b);
    }
}
