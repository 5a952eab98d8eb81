//! What attacks do to whole images with one number for each: choosing, measuring, moving. Images are
//! batch x channels x height x width in [0, 1]; anything with a batch axis will do where no box is
//! mentioned.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, same};
use crate::random::Stream;
use crate::shape::Shape;

/// Inputs: x, and a flag for each image. Updates in place: y, which becomes x for the images whose
/// flag equals `wanted`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct CopyWhere {
    pub wanted: f32,
}

/// Which norm of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Sum of magnitudes.
    L1,
    /// Root of the sum of squares.
    L2,
    /// Largest magnitude.
    Max,
}

/// The norm of each image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageNorm {
    pub order: Order,
}

/// Inputs: data set index of each image (u32), stream key (two u32). Output: a random number for
/// each element, uniform in [-1, 1) or standard normal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Noise {
    pub shape: Shape,
    pub normal: bool,
}

/// Inputs: x, direction, and for each image the norm of its direction and the distance to go.
/// Output: `x + distance * direction / (norm + 1e-12)`, clipped to [0, 1].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MoveAlong;

/// Inputs: x, and the l1 norm of each image. Updates in place:
/// `total = decay * total + x / (norm / elements)`; an image without a norm adds nothing.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct AccumulateDirection {
    pub decay: f32,
}

params! {
    struct CopyWhereParams { batch: u32, per_image: u32, wanted: f32, }
}

params! {
    struct ImageNormParams { batch: u32, per_image: u32, parts: u32, order: u32, }
}

params! {
    struct NoiseParams { batch: u32, per_image: u32, normal: u32, }
}

params! {
    struct MoveAlongParams { batch: u32, per_image: u32, }
}

params! {
    struct AccumulateDirectionParams { batch: u32, per_image: u32, decay: f32, }
}

macro_rules! kernel {
    ($name:literal, $($source:ident),+) => {
        Kernel { name: $name, sources: &[adamant_shaders::INDEX, $(adamant_shaders::$source),+], workgroup: 64 }
    };
}

const COPY_WHERE: Kernel = kernel!("copy_where", COPY_WHERE);
const IMAGE_NORM_PARTS: Kernel = kernel!("image_norm_parts", IS_NAN, IMAGE_NORM_PARTS);
const IMAGE_NORM: Kernel = kernel!("image_norm", IS_NAN, IMAGE_NORM);
const NOISE: Kernel = kernel!("noise", RANDOM, NOISE);
const MOVE_ALONG: Kernel = kernel!("move_along", MOVE_ALONG);
const ACCUMULATE_DIRECTION: Kernel = kernel!("accumulate_direction", ACCUMULATE_DIRECTION);

/// Keeps a division by a vanishing norm finite.
const TINY: f32 = 1e-12;

impl Operation for CopyWhere {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, flag] = arity(inputs)?;
        same(flag, Shape::per_image(x.batch()))?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let x = inputs[0];
        let parameters =
            CopyWhereParams { batch: x.batch() as u32, per_image: x.per_batch() as u32, wanted: self.wanted };
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(COPY_WHERE, &arguments, &parameters, x.len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let len = inputs[0].shape.per_batch();
        let images = outputs[0].data.chunks_exact_mut(len).zip(inputs[0].data.chunks_exact(len));
        for ((y, x), flag) in images.zip(inputs[1].data) {
            if *flag == self.wanted {
                y.copy_from_slice(x);
            }
        }
    }
}

impl Operation for ImageNorm {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![Shape::per_image(x.batch())])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        /// Elements of an image that one thread takes.
        const PART: usize = 256;
        let (batch, per_image) = (inputs[0].batch(), inputs[0].per_batch());
        let parts = per_image.div_ceil(PART);
        let order = match self.order {
            Order::L1 => 1,
            Order::L2 => 2,
            Order::Max => 3,
        };
        let parameters =
            ImageNormParams { batch: batch as u32, per_image: per_image as u32, parts: parts as u32, order };
        let mut launch = Launch::default();
        let partial = launch.scratch(parts * batch);
        launch.then(IMAGE_NORM_PARTS, &[Argument::Input(0), partial], &parameters, parts * batch).then(
            IMAGE_NORM,
            &[partial, Argument::Output(0)],
            &parameters,
            batch,
        )
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let len = inputs[0].shape.per_batch();
        outputs[0].data.par_iter_mut().zip(inputs[0].data.par_chunks_exact(len)).for_each(|(norm, x)| {
            let magnitudes = x.iter().map(|v| f64::from(v.abs()));
            *norm = match self.order {
                Order::L1 => magnitudes.sum::<f64>(),
                Order::L2 => magnitudes.map(|v| v * v).sum::<f64>().sqrt(),
                // Not a number stays visible.
                Order::Max => magnitudes.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }),
            } as f32;
        });
    }
}

impl Operation for Noise {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [indices, key] = arity(inputs)?;
        same(indices, Shape::per_image(self.shape.batch()))?;
        if key.len() != 2 {
            return Err(format!("a stream key is two words, got {key:?}"));
        }
        Ok(vec![self.shape])
    }

    fn launch(&self, _inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let parameters = NoiseParams {
            batch: outputs[0].batch() as u32,
            per_image: outputs[0].per_batch() as u32,
            normal: self.normal.into(),
        };
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(NOISE, &arguments, &parameters, outputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let indices: &[u32] = bytemuck::cast_slice(inputs[0].data);
        let key: &[u32] = bytemuck::cast_slice(inputs[1].data);
        let stream = Stream { key: [key[0], key[1]] };
        let len = outputs[0].shape.per_batch();
        outputs[0].data.par_chunks_exact_mut(len).zip(indices).for_each(|(out, &index)| {
            for (i, out) in (0u32..).zip(out) {
                *out =
                    if self.normal { stream.normal(index, i) } else { 2.0 * stream.uniform(index, i) - 1.0 };
            }
        });
    }
}

impl Operation for MoveAlong {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, direction, norm, distance] = arity(inputs)?;
        same(x, direction)?;
        same(norm, Shape::per_image(x.batch()))?;
        same(norm, distance)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let parameters =
            MoveAlongParams { batch: inputs[0].batch() as u32, per_image: inputs[0].per_batch() as u32 };
        let arguments = [Input(0), Input(1), Input(2), Input(3), Output(0)];
        Launch::single(MOVE_ALONG, &arguments, &parameters, inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [x, direction, norm, distance] = inputs else { unreachable!("output_shapes checked the inputs") };
        let len = x.shape.per_batch();
        outputs[0].data.par_chunks_exact_mut(len).enumerate().for_each(|(n, out)| {
            let (norm, distance) = (norm.data[n] + TINY, distance.data[n]);
            let images = x.data[n * len..].iter().zip(&direction.data[n * len..]);
            for (out, (x, d)) in out.iter_mut().zip(images) {
                *out = (x + distance * (d / norm)).clamp(0.0, 1.0);
            }
        });
    }
}

impl Operation for AccumulateDirection {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, norm] = arity(inputs)?;
        same(norm, Shape::per_image(x.batch()))?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let x = inputs[0];
        let parameters = AccumulateDirectionParams {
            batch: x.batch() as u32,
            per_image: x.per_batch() as u32,
            decay: self.decay,
        };
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(ACCUMULATE_DIRECTION, &arguments, &parameters, x.len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let len = inputs[0].shape.per_batch();
        let images = outputs[0].data.par_chunks_exact_mut(len).zip(inputs[0].data.par_chunks_exact(len));
        images.zip(inputs[1].data).for_each(|((total, x), norm)| {
            let mean = norm / len as f32;
            for (total, x) in total.iter_mut().zip(x) {
                *total = self.decay * *total + if mean == 0.0 { 0.0 } else { x / mean };
            }
        });
    }
}
