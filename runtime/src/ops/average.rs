//! Exponential moving average, in place.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::elementwise::LenParams;
use super::launch::{Argument, Kernel, Launch};
use super::{Operation, View, ViewMut, arity};
use crate::shape::Shape;

/// Inputs: new values, decay (a scalar in [0, 1]). Updates: the average,
/// `average = decay * average + (1 - decay) * x`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Average;

const AVERAGE: Kernel =
    Kernel { name: "average", sources: &[adamant_shaders::INDEX, adamant_shaders::AVERAGE], workgroup: 64 };

impl Operation for Average {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, decay] = arity(inputs)?;
        if decay.len() == 1 { Ok(vec![x]) } else { Err(format!("the decay is one number, got {decay:?}")) }
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        let parameters = LenParams { len: inputs[0].len() as u32 };
        Launch::single(AVERAGE, &arguments, &parameters, inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let decay = inputs[1].data[0];
        let pairs = outputs[0].data.par_iter_mut().zip(inputs[0].data);
        pairs.with_min_len(4096).for_each(|(average, x)| *average = decay * *average + (1.0 - decay) * x);
    }
}
