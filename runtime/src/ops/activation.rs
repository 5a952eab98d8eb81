//! Rectified linear unit: min(max(x, 0), max). `max` is infinite for Relu and 6 for ReLU6.

use serde::{Deserialize, Serialize};

use super::elementwise::{between, map, zip};
use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Relu {
    pub max: f32,
}

impl Relu {
    pub const PLAIN: Self = Self { max: f32::INFINITY };

    pub(super) fn check(&self) -> Result<(), String> {
        check(self.max)
    }
}

/// Inputs: the activation's output y, dy. dx = dy where 0 < y < max, else 0: PyTorch's convention
/// at both corners.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReluGrad {
    pub max: f32,
}

params! {
    struct ReluParams { len: u32, max: f32, }
}

impl ReluParams {
    fn new(shape: Shape, max: f32) -> Self {
        // WGSL has no infinity; no finite value is beyond the largest one.
        Self { len: shape.len() as u32, max: max.min(f32::MAX) }
    }
}

const RELU: Kernel =
    Kernel { name: "relu", sources: &[adamant_shaders::INDEX, adamant_shaders::RELU], workgroup: 64 };

const RELU_GRAD: Kernel = Kernel {
    name: "relu_grad",
    sources: &[adamant_shaders::INDEX, adamant_shaders::RELU_GRAD],
    workgroup: 64,
};

fn check(max: f32) -> Result<(), String> {
    if max > 0.0 { Ok(()) } else { Err(format!("an upper bound of {max}; it must be positive")) }
}

impl Operation for Relu {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        check(self.max)?;
        let [x] = arity(inputs)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let parameters = ReluParams::new(inputs[0], self.max);
        Launch::single(
            RELU,
            &[Argument::Input(0), Argument::Output(0)],
            &parameters,
            inputs[0].len().div_ceil(4),
        )
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let max = self.max;
        map(inputs[0].data, outputs[0].data, move |x| between(0.0, max, x));
    }
}

impl Operation for ReluGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        check(self.max)?;
        let [y, dy] = arity(inputs)?;
        same(y, dy)?;
        Ok(vec![dy])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(
            RELU_GRAD,
            &arguments,
            &ReluParams::new(inputs[0], self.max),
            inputs[0].len().div_ceil(4),
        )
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let max = self.max;
        zip(inputs[0].data, inputs[1].data, outputs[0].data, move |y, dy| {
            // `&`, not `&&`: a branch would keep the loop from vectorising.
            if (y > 0.0) & (y < max) { dy } else { 0.0 }
        });
    }
}
