//! What Auto-PGD keeps of each image between steps (Croce and Hein, "Reliable evaluation of
//! adversarial robustness with an ensemble of diverse parameter-free attacks", 2020, algorithm 1).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::attack::Norm;
use super::launch::{Argument, Kernel, Launch, params};
use super::reduce::add_parts;
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

/// Inputs: clean images, the candidate that a projected gradient step found, radius of each image.
/// Updates in place: the images x and the ones before them.
///
/// `x + keep * (candidate - x) + (1 - keep) * (x - previous)`, projected onto the ball and clipped to
/// [0, 1], becomes x; the old x becomes previous (eq. 3 of the paper).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Mix {
    pub norm: Norm,
    pub keep: f32,
}

/// Inputs: the loss of each image. Updates in place, for each image: best loss, last loss, balance,
/// and whether the best loss was improved (1 or 0).
///
/// The balance gains 1 when the loss rose and loses 3 when it did not. From zero it is positive
/// exactly when the loss rose in more than three quarters of the steps (condition 1, rho = 0.75).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApgdTrack;

/// Inputs: best loss. Updates in place, for each image: balance, best loss at the last checkpoint,
/// whether the step is halved now (1 or 0; before: at the last checkpoint), and the step length.
///
/// Halves where the balance is not positive, or where the best loss is not better than at the last
/// checkpoint although the step was not halved there (condition 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApgdCheckpoint;

params! {
    struct MixParams { batch: u32, per_image: u32, keep: f32, }
}

params! {
    struct MixSquaresParams { batch: u32, per_image: u32, parts: u32, keep: f32, }
}

params! {
    struct BatchParams { batch: u32, }
}

macro_rules! kernel {
    ($name:literal, $source:ident) => {
        Kernel { name: $name, sources: &[adamant_shaders::INDEX, adamant_shaders::$source], workgroup: 64 }
    };
}

const MIX_LINF: Kernel = kernel!("mix_linf", MIX_LINF);
const MIX_SQUARES: Kernel = kernel!("mix_squares", MIX_SQUARES);
const MIX_L2: Kernel = kernel!("mix_l2", MIX_L2);
const APGD_TRACK: Kernel = kernel!("apgd_track", APGD_TRACK);
const APGD_CHECKPOINT: Kernel = kernel!("apgd_checkpoint", APGD_CHECKPOINT);

impl Operation for Mix {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [clean, candidate, radius] = arity(inputs)?;
        same(clean, candidate)?;
        same(radius, Shape::per_image(clean.batch()))?;
        Ok(vec![clean, clean])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        /// Elements of an image that one thread adds up.
        const PART: usize = 256;
        let (batch, per_image) = (inputs[0].batch(), inputs[0].per_batch());
        let parameters = MixParams { batch: batch as u32, per_image: per_image as u32, keep: self.keep };
        match self.norm {
            Norm::Linf => {
                let arguments = [Input(0), Input(1), Input(2), Output(0), Output(1)];
                Launch::single(MIX_LINF, &arguments, &parameters, inputs[0].len())
            }
            Norm::L2 => {
                let parts = per_image.div_ceil(PART);
                let mut launch = Launch::default();
                let (partial, sums) = (launch.scratch(parts * batch), launch.scratch(batch));
                let of_parts = MixSquaresParams {
                    batch: batch as u32,
                    per_image: per_image as u32,
                    parts: parts as u32,
                    keep: self.keep,
                };
                let read = [Input(0), Input(1), Output(0), Output(1), partial];
                launch = launch.then(MIX_SQUARES, &read, &of_parts, parts * batch);
                launch = add_parts(launch, partial, sums, parts, batch, 0, batch, 1.0);
                let arguments = [Input(0), Input(1), Input(2), sums, Output(0), Output(1)];
                launch.then(MIX_L2, &arguments, &parameters, inputs[0].len())
            }
        }
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [clean, candidate, radius] = inputs else { unreachable!("output_shapes checked the inputs") };
        let len = clean.shape.per_batch();
        let [x, previous] = outputs else { unreachable!("two outputs") };
        let images = x.data.par_chunks_exact_mut(len).zip(previous.data.par_chunks_exact_mut(len));
        images.enumerate().for_each(|(n, (x, previous))| {
            let radius = radius.data[n];
            let (clean, candidate) = (&clean.data[n * len..][..len], &candidate.data[n * len..][..len]);
            let mixed = |i: usize, x: &[f32], previous: &[f32]| {
                x[i] + self.keep * (candidate[i] - x[i]) + (1.0 - self.keep) * (x[i] - previous[i])
            };
            let shrink = match self.norm {
                Norm::Linf => 1.0,
                Norm::L2 => {
                    let away = |i: usize| f64::from(mixed(i, x, previous) - clean[i]);
                    let length = (0..len).map(|i| away(i) * away(i)).sum::<f64>().sqrt() as f32;
                    if length > radius { radius / length } else { 1.0 }
                }
            };
            for (i, &center) in clean.iter().enumerate() {
                let moved = mixed(i, x, previous);
                let projected = match self.norm {
                    Norm::Linf => moved.clamp(center - radius, center + radius),
                    Norm::L2 => center + shrink * (moved - center),
                };
                previous[i] = x[i];
                x[i] = projected.clamp(0.0, 1.0);
            }
        });
    }
}

impl Operation for ApgdTrack {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [loss] = arity(inputs)?;
        same(loss, Shape::per_image(loss.batch()))?;
        Ok(vec![loss; 4])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let arguments = [Input(0), Output(0), Output(1), Output(2), Output(3)];
        let batch = inputs[0].batch();
        Launch::single(APGD_TRACK, &arguments, &BatchParams { batch: batch as u32 }, batch)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [best, last, balance, improved] = outputs else { unreachable!("four outputs") };
        for (n, &loss) in inputs[0].data.iter().enumerate() {
            balance.data[n] += if loss > last.data[n] { 1.0 } else { -3.0 };
            last.data[n] = loss;
            let better = loss > best.data[n];
            improved.data[n] = better.into();
            if better {
                best.data[n] = loss;
            }
        }
    }
}

impl Operation for ApgdCheckpoint {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [best] = arity(inputs)?;
        same(best, Shape::per_image(best.batch()))?;
        Ok(vec![best; 4])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let arguments = [Input(0), Output(0), Output(1), Output(2), Output(3)];
        let batch = inputs[0].batch();
        Launch::single(APGD_CHECKPOINT, &arguments, &BatchParams { batch: batch as u32 }, batch)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [balance, checked, reduced, step] = outputs else { unreachable!("four outputs") };
        for (n, &best) in inputs[0].data.iter().enumerate() {
            let stands = reduced.data[n] == 0.0 && checked.data[n] >= best;
            let halve = balance.data[n] <= 0.0 || stands;
            balance.data[n] = 0.0;
            checked.data[n] = best;
            reduced.data[n] = halve.into();
            if halve {
                step.data[n] *= 0.5;
            }
        }
    }
}
