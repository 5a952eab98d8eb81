//! The device side of the iterative attacks: a start inside the ball, a step that stays in it, and
//! keeping the worst of several tries. Images are batch x channels x height x width in [0, 1].
//!
//! Radius and step are per image, so that instance-adaptive methods need nothing else.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::reduce::add_parts;
use super::{Operation, View, ViewMut, arity, same};
use crate::random::Stream;
use crate::shape::Shape;

/// The norm of the ball around the clean image.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    Linf,
    L2,
}

impl std::fmt::Display for Norm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Linf => "linf",
            Self::L2 => "l2",
        })
    }
}

/// Inputs: clean images, radius of each image, data set index of each image (u32), stream key
/// (two u32). Writes the start: uniform in the linf ball; for l2 a random direction with a length
/// uniform in [0, radius]. Clipped to [0, 1].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttackStart {
    pub norm: Norm,
}

/// Inputs: clean images, gradient, radius and step length of each image. Updates in place: the
/// adversarial images.
///
/// linf: x + step * sign(g), projected onto the ball, clipped to [0, 1]; sign(0) = 0.
/// l2: x + step * g / |g|, projected onto the ball, clipped to [0, 1]; without a gradient no step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttackStep {
    pub norm: Norm,
}

/// Inputs: adversarial images, their losses, and whether they are still classified correctly.
/// Updates in place the same three of the best try so far: a misclassified image beats a correct
/// one; among equals the higher loss wins, and a tie keeps the earlier try.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeepWorst;

params! {
    struct AttackParams { batch: u32, per_image: u32, }
}

params! {
    struct SquaresParams { batch: u32, per_image: u32, parts: u32, }
}

macro_rules! kernel {
    ($name:literal, $($source:ident),+) => {
        Kernel { name: $name, sources: &[adamant_shaders::INDEX, $(adamant_shaders::$source),+], workgroup: 64 }
    };
}

const START_LINF: Kernel = kernel!("attack_start_linf", RANDOM, ATTACK_START_LINF);
const START_L2: Kernel = kernel!("attack_start_l2", RANDOM, ATTACK_START_L2);
const STEP_LINF: Kernel = kernel!("attack_step_linf", ATTACK_STEP_LINF);
const STEP_L2: Kernel = kernel!("attack_step_l2", ATTACK_STEP_L2);
const IMAGE_SQUARES: Kernel = kernel!("image_squares", IMAGE_SQUARES);
const NORMAL_SQUARES: Kernel = kernel!("normal_squares", RANDOM, NORMAL_SQUARES);
const STEP_SQUARES: Kernel = kernel!("attack_step_squares", ATTACK_STEP_SQUARES);
const KEEP_WORST_IMAGE: Kernel = kernel!("keep_worst_image", KEEP_WORST_IMAGE);
const KEEP_WORST: Kernel = kernel!("keep_worst", KEEP_WORST);

fn parameters(images: Shape) -> AttackParams {
    AttackParams { batch: images.batch() as u32, per_image: images.per_batch() as u32 }
}

/// Adds the dispatches of a sum of squares over each image; `read` is what `kernel` reads.
fn image_sums(mut launch: Launch, kernel: Kernel, read: &[Argument], images: Shape) -> (Launch, Argument) {
    /// Elements of an image that one thread adds up.
    const PART: usize = 256;
    let (batch, per_image) = (images.batch(), images.per_batch());
    let parts = per_image.div_ceil(PART);
    let (partial, sums) = (launch.scratch(parts * batch), launch.scratch(batch));
    let parameters = SquaresParams { batch: batch as u32, per_image: per_image as u32, parts: parts as u32 };
    launch = launch.then(kernel, &[read, &[partial]].concat(), &parameters, parts * batch);
    (add_parts(launch, partial, sums, parts, batch, 0, batch, 1.0), sums)
}

/// The position that random numbers of the l2 ball's radius come from: past every pixel.
const RADIUS_POSITION: u32 = u32::MAX;

/// Length that keeps a division by vanishing noise finite.
const TINY: f32 = 1e-10;

fn per_image_squares(values: impl Iterator<Item = f32>) -> f32 {
    (values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>()) as f32
}

impl Operation for AttackStart {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [images, radius, indices, key] = arity(inputs)?;
        same(radius, Shape::per_image(images.batch()))?;
        same(indices, radius)?;
        if key.len() != 2 {
            return Err(format!("a stream key is two words, got {key:?}"));
        }
        Ok(vec![images])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let images = inputs[0];
        let parameters = parameters(images);
        match self.norm {
            Norm::Linf => {
                let arguments = [Input(0), Input(1), Input(2), Input(3), Output(0)];
                Launch::single(START_LINF, &arguments, &parameters, images.len())
            }
            Norm::L2 => {
                let read = [Input(2), Input(3)];
                let (launch, squares) = image_sums(Launch::default(), NORMAL_SQUARES, &read, images);
                let arguments = [Input(0), Input(1), Input(2), Input(3), squares, Output(0)];
                launch.then(START_L2, &arguments, &parameters, images.len())
            }
        }
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [images, radius, indices, key] = inputs else { unreachable!("output_shapes checked the inputs") };
        let key: &[u32] = bytemuck::cast_slice(key.data);
        let indices: &[u32] = bytemuck::cast_slice(indices.data);
        let stream = Stream { key: [key[0], key[1]] };
        let len = images.shape.per_batch();
        outputs[0].data.par_chunks_mut(len).enumerate().for_each(|(n, out)| {
            let (index, radius) = (indices[n], radius.data[n]);
            let clean = &images.data[n * len..][..len];
            let factor = match self.norm {
                Norm::Linf => radius,
                Norm::L2 => {
                    let squares = per_image_squares((0..len as u32).map(|i| stream.normal(index, i)));
                    radius * stream.uniform(index, RADIUS_POSITION) / (squares.sqrt() + TINY)
                }
            };
            for (i, (out, x)) in out.iter_mut().zip(clean).enumerate() {
                let noise = match self.norm {
                    Norm::Linf => 2.0 * stream.uniform(index, i as u32) - 1.0,
                    Norm::L2 => stream.normal(index, i as u32),
                };
                *out = (x + factor * noise).clamp(0.0, 1.0);
            }
        });
    }
}

impl Operation for AttackStep {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [images, gradient, radius, step] = arity(inputs)?;
        same(images, gradient)?;
        same(radius, Shape::per_image(images.batch()))?;
        same(step, radius)?;
        Ok(vec![images])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let images = inputs[0];
        let parameters = parameters(images);
        match self.norm {
            Norm::Linf => {
                let arguments = [Input(0), Input(1), Input(2), Input(3), Output(0)];
                Launch::single(STEP_LINF, &arguments, &parameters, images.len())
            }
            Norm::L2 => {
                let (launch, gradient) = image_sums(Launch::default(), IMAGE_SQUARES, &[Input(1)], images);
                let read = [Input(0), Input(1), Input(3), gradient, Output(0)];
                let (launch, moved) = image_sums(launch, STEP_SQUARES, &read, images);
                let arguments = [Input(0), Input(1), Input(2), Input(3), gradient, moved, Output(0)];
                launch.then(STEP_L2, &arguments, &parameters, images.len())
            }
        }
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [images, gradient, radius, step] = inputs else {
            unreachable!("output_shapes checked the inputs")
        };
        let len = images.shape.per_batch();
        outputs[0].data.par_chunks_mut(len).enumerate().for_each(|(n, out)| {
            let (radius, step) = (radius.data[n], step.data[n]);
            let clean = &images.data[n * len..][..len];
            let gradient = &gradient.data[n * len..][..len];
            match self.norm {
                Norm::Linf => {
                    for ((out, x), g) in out.iter_mut().zip(clean).zip(gradient) {
                        let sign = if *g > 0.0 {
                            1.0
                        } else if *g < 0.0 {
                            -1.0
                        } else {
                            0.0
                        };
                        *out = (*out + step * sign).clamp(x - radius, x + radius).clamp(0.0, 1.0);
                    }
                }
                Norm::L2 => {
                    let steepness = per_image_squares(gradient.iter().copied()).sqrt();
                    let rate = if steepness == 0.0 { 0.0 } else { step / steepness };
                    let moved = |out: f32, x: f32, g: f32| out + rate * g - x;
                    let length = per_image_squares(
                        out.iter().zip(clean).zip(gradient).map(|((o, x), g)| moved(*o, *x, *g)),
                    )
                    .sqrt();
                    let shrink = if length > radius { radius / length } else { 1.0 };
                    for ((out, x), g) in out.iter_mut().zip(clean).zip(gradient) {
                        *out = (x + shrink * moved(*out, *x, *g)).clamp(0.0, 1.0);
                    }
                }
            }
        });
    }
}

impl Operation for KeepWorst {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [images, loss, correct] = arity(inputs)?;
        same(loss, Shape::per_image(images.batch()))?;
        same(correct, loss)?;
        Ok(vec![images, loss, correct])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let parameters = parameters(inputs[0]);
        // The images first: the decision reads what the second dispatch overwrites.
        let arguments = [Input(0), Input(1), Input(2), Output(1), Output(2), Output(0)];
        let launch = Launch::single(KEEP_WORST_IMAGE, &arguments, &parameters, inputs[0].len());
        let arguments = [Input(1), Input(2), Output(1), Output(2)];
        launch.then(KEEP_WORST, &arguments, &parameters, inputs[0].batch())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let len = inputs[0].shape.per_batch();
        let [best, best_loss, best_correct] = outputs else { unreachable!("three outputs") };
        for n in 0..inputs[0].shape.batch() {
            let (loss, correct) = (inputs[1].data[n], inputs[2].data[n]);
            let fools = correct < best_correct.data[n];
            if fools || (correct == best_correct.data[n] && loss > best_loss.data[n]) {
                best.data[n * len..][..len].copy_from_slice(&inputs[0].data[n * len..][..len]);
                best_loss.data[n] = loss;
                best_correct.data[n] = correct;
            }
        }
    }
}
