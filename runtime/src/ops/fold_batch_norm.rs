//! Folds a BatchNorm with fixed statistics into the convolution before it.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::batch_norm::factors;
use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut};
use crate::shape::Shape;

/// Inputs: a convolution's weight, the BatchNorm's scale, shift, mean and variance, and maybe the
/// convolution's bias. Outputs: the weight and the bias of a convolution that computes both.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct FoldBatchNorm {
    pub epsilon: f32,
}

params! {
    struct FoldBatchNormParams { len: u32, channels: u32, has_bias: u32, epsilon: f32, }
}

const FOLD_BATCH_NORM: Kernel = Kernel {
    name: "fold_batch_norm",
    sources: &[adamant_shaders::INDEX, adamant_shaders::FOLD_BATCH_NORM],
    workgroup: 64,
};

impl Operation for FoldBatchNorm {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [w, vectors @ ..] = inputs else { return Err("takes a weight".into()) };
        let channels = Shape::vector(w.channels());
        if !(4..=5).contains(&vectors.len()) || vectors.iter().any(|&v| v != channels) {
            return Err(format!("weight {w:?} with {vectors:?}"));
        }
        Ok(vec![*w, channels])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let (len, channels) = (inputs[0].len(), inputs[0].channels());
        let has_bias = inputs.len() == 6;
        let parameters = FoldBatchNormParams {
            len: len as u32,
            channels: channels as u32,
            has_bias: has_bias.into(),
            epsilon: self.epsilon,
        };
        // Without a bias its binding is filled by the mean, which the kernel then does not read as one.
        let bias = if has_bias { 5 } else { 3 };
        let arguments = [Input(0), Input(1), Input(2), Input(3), Input(4), Input(bias), Output(0), Output(1)];
        Launch::single(FOLD_BATCH_NORM, &arguments, &parameters, len + channels)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [w, scale, shift, mean, variance, bias @ ..] = inputs else {
            unreachable!("output_shapes checked the inputs")
        };
        let (factor, offset) = factors(scale.data, shift.data, mean.data, variance.data, self.epsilon);
        let [folded, folded_bias] = outputs else { unreachable!("two outputs") };
        let rows = folded.data.par_chunks_mut(factor.len()).zip(w.data.par_chunks(factor.len()));
        rows.with_min_len(256).for_each(|(out, w)| {
            for ((out, w), factor) in out.iter_mut().zip(w).zip(&factor) {
                *out = w * factor;
            }
        });
        for (c, out) in folded_bias.data.iter_mut().enumerate() {
            *out = offset[c] + bias.first().map_or(0.0, |b| b.data[c] * factor[c]);
        }
    }
}
