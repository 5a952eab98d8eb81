//! A function of one variable, element by element.

use serde::{Deserialize, Serialize};

use super::elementwise::map;
use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity};
use crate::shape::Shape;

/// `y[i] = f(scale * x[i] + shift)`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Map {
    pub function: Function,
    pub scale: f32,
    pub shift: f32,
}

/// What [`Map`] applies. Kernels know a function by its position: append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Function {
    Exp,
    /// The natural logarithm.
    Log,
    Abs,
    /// -1, 0 or 1; the derivative of [`Function::Abs`], which is 0 at 0.
    Sign,
    SquareRoot,
    Reciprocal,
    Identity,
    /// The hyperbolic tangent.
    Tanh,
}

impl Function {
    fn of(self, u: f32) -> f32 {
        match self {
            Self::Exp => u.exp(),
            Self::Log => u.ln(),
            Self::Abs => u.abs(),
            Self::Sign if u > 0.0 => 1.0,
            Self::Sign if u < 0.0 => -1.0,
            // Zero, or not a number.
            Self::Sign => u,
            Self::SquareRoot => u.sqrt(),
            Self::Reciprocal => 1.0 / u,
            Self::Identity => u,
            Self::Tanh => u.tanh(),
        }
    }
}

impl Map {
    /// `f(x)`.
    pub const fn plain(function: Function) -> Self {
        Self { function, scale: 1.0, shift: 0.0 }
    }
}

params! {
    struct MapParams { len: u32, function: u32, scale: f32, shift: f32, }
}

const MAP: Kernel =
    Kernel { name: "map", sources: &[adamant_shaders::INDEX, adamant_shaders::MAP], workgroup: 64 };

impl Operation for Map {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let parameters = MapParams {
            len: inputs[0].len() as u32,
            function: self.function as u32,
            scale: self.scale,
            shift: self.shift,
        };
        Launch::single(MAP, &[Argument::Input(0), Argument::Output(0)], &parameters, inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        map(inputs[0].data, outputs[0].data, |x| self.function.of(self.scale * x + self.shift));
    }
}
