//! The strongest rival of the label: `y[n] = max over k != label[n] of x[n,k]`.

use serde::{Deserialize, Serialize};

use super::cross_entropy::{check, parameters, rows};
use super::launch::{Argument, Kernel, Launch};
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

/// Inputs: one value a class (batch x 1 x 1 x classes, at least two classes), labels (batch, u32).
/// Output: one value for each image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LargestOther;

/// Inputs: those of [`LargestOther`], and the gradient of its output. The gradient goes to the
/// largest class; among equals to the lowest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LargestOtherGrad;

const LARGEST_OTHER: Kernel = Kernel {
    name: "largest_other",
    sources: &[adamant_shaders::INDEX, adamant_shaders::LARGEST_OTHER],
    workgroup: 64,
};

const LARGEST_OTHER_GRAD: Kernel = Kernel {
    name: "largest_other_grad",
    sources: &[adamant_shaders::INDEX, adamant_shaders::LARGEST_OTHER_GRAD],
    workgroup: 64,
};

fn launch_with(kernel: Kernel, arguments: &[Argument], x: Shape) -> Launch {
    Launch::single(kernel, arguments, &parameters(x), x.batch())
}

fn two_classes(x: Shape) -> Result<(), String> {
    match x.channels() > 1 {
        true => Ok(()),
        false => Err("one class has no other".into()),
    }
}

/// The first class other than `label` with the largest value.
fn largest_other(row: &[f32], label: usize) -> usize {
    let mut at = usize::from(label == 0);
    for k in 0..row.len() {
        if k != label && row[k] > row[at] {
            at = k;
        }
    }
    at
}

impl Operation for LargestOther {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, labels] = arity(inputs)?;
        check(x, labels)?;
        two_classes(x)?;
        Ok(vec![labels])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        launch_with(LARGEST_OTHER, &arguments, inputs[0])
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        for (y, (row, label)) in outputs[0].data.iter_mut().zip(rows(inputs[0], inputs[1])) {
            let others = || row.iter().enumerate().filter(|(k, _)| *k != label).map(|(_, x)| *x);
            // Not a number stays visible.
            *y = match others().find(|x| x.is_nan()) {
                Some(nan) => nan,
                None => row[largest_other(row, label)],
            };
        }
    }
}

impl Operation for LargestOtherGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, labels, dy] = arity(inputs)?;
        check(x, labels)?;
        two_classes(x)?;
        same(labels, dy)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Input(2), Argument::Output(0)];
        launch_with(LARGEST_OTHER_GRAD, &arguments, inputs[0])
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let classes = inputs[0].shape.channels();
        let images = outputs[0].data.chunks_exact_mut(classes).zip(inputs[2].data);
        for ((dx, dy), (row, label)) in images.zip(rows(inputs[0], inputs[1])) {
            dx.fill(0.0);
            dx[largest_other(row, label)] = *dy;
        }
    }
}
