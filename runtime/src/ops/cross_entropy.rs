//! Softmax cross-entropy, one value for each image, and whether an image is classified correctly.
//!
//! `loss[n] = log(sum over k of exp(z[n,k])) - z[n, label[n]]`

use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

/// Inputs: logits (batch x 1 x 1 x classes), labels (batch, u32). Output: the loss of each image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CrossEntropy;

/// Inputs: logits, labels, the gradient of each image's loss.
/// `dz[n,k] = dloss[n] * (softmax(z[n])[k] - (1 if k = label[n] else 0))`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CrossEntropyGrad;

/// Inputs: logits, labels. Output: 1 for each image whose largest logit is its label's, else 0.
/// Ties go to the lowest class; logits that are not finite are never correct.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Correct;

params! {
    pub(super) struct CrossEntropyParams { batch: u32, classes: u32, }
}

const CROSS_ENTROPY: Kernel = Kernel {
    name: "cross_entropy",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CLASSES, adamant_shaders::CROSS_ENTROPY],
    workgroup: 64,
};

const CROSS_ENTROPY_GRAD: Kernel = Kernel {
    name: "cross_entropy_grad",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CLASSES, adamant_shaders::CROSS_ENTROPY_GRAD],
    workgroup: 64,
};

const CORRECT: Kernel = Kernel {
    name: "correct",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CLASSES, adamant_shaders::CORRECT],
    workgroup: 64,
};

pub(super) fn parameters(logits: Shape) -> CrossEntropyParams {
    CrossEntropyParams { batch: logits.batch() as u32, classes: logits.channels() as u32 }
}

pub(super) fn check(logits: Shape, labels: Shape) -> Result<(), String> {
    if logits.height() != 1 || logits.width() != 1 {
        return Err(format!("logits are batch x 1 x 1 x classes, got {logits:?}"));
    }
    same(Shape::per_image(logits.batch()), labels)
}

/// Rows of logits with the label of each.
pub(super) fn rows<'a>(logits: View<'a>, labels: View<'a>) -> impl Iterator<Item = (&'a [f32], usize)> {
    let labels: &[u32] = bytemuck::cast_slice(labels.data);
    logits.data.chunks_exact(logits.shape.channels()).zip(labels.iter().map(|&l| l as usize))
}

/// The largest logit and log-sum-exp above it; NaN when a logit is.
pub(super) fn log_sum_exp(row: &[f32]) -> (f32, f32) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| if a >= b { a } else { b });
    (largest, row.iter().map(|z| (z - largest).exp()).sum::<f32>().ln())
}

impl Operation for CrossEntropy {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [logits, labels] = arity(inputs)?;
        check(logits, labels)?;
        Ok(vec![labels])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(CROSS_ENTROPY, &arguments, &parameters(inputs[0]), 64 * inputs[0].batch())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        for (loss, (row, label)) in outputs[0].data.iter_mut().zip(rows(inputs[0], inputs[1])) {
            let (largest, sum) = log_sum_exp(row);
            *loss = sum + largest - row[label];
        }
    }
}

impl Operation for CrossEntropyGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [logits, labels, dloss] = arity(inputs)?;
        check(logits, labels)?;
        same(labels, dloss)?;
        Ok(vec![logits])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Input(2), Argument::Output(0)];
        Launch::single(CROSS_ENTROPY_GRAD, &arguments, &parameters(inputs[0]), 64 * inputs[0].batch())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let classes = inputs[0].shape.channels();
        let gradients = outputs[0].data.chunks_exact_mut(classes).zip(inputs[2].data);
        for ((gradient, dloss), (row, label)) in gradients.zip(rows(inputs[0], inputs[1])) {
            let (largest, sum) = log_sum_exp(row);
            for (k, (dz, z)) in gradient.iter_mut().zip(row).enumerate() {
                let target = if k == label { 1.0 } else { 0.0 };
                *dz = dloss * ((z - largest - sum).exp() - target);
            }
        }
    }
}

impl Operation for Correct {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [logits, labels] = arity(inputs)?;
        check(logits, labels)?;
        Ok(vec![labels])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(CORRECT, &arguments, &parameters(inputs[0]), 64 * inputs[0].batch())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        for (correct, (row, label)) in outputs[0].data.iter_mut().zip(rows(inputs[0], inputs[1])) {
            let wins =
                row[..label].iter().all(|&z| z < row[label]) && row[label..].iter().all(|&z| z <= row[label]);
            let finite = row.iter().all(|z| z.is_finite());
            *correct = if wins && finite { 1.0 } else { 0.0 };
        }
    }
}
