//! The sum over each image, and its transpose.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::reduce::add_parts;
use super::{Operation, View, ViewMut, arity};
use crate::shape::Shape;

/// `y[n] = factor * sum over i of x[n,i]`: one value for each image.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct ImageSum {
    pub factor: f32,
}

/// `y[n,i] = factor * x[n]`: the value of an image in each of its elements.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct ImageSpread {
    pub factor: f32,
    pub shape: Shape,
}

params! {
    struct ImageSumParams { batch: u32, per_image: u32, parts: u32, }
}

params! {
    struct ImageSpreadParams { len: u32, per_image: u32, factor: f32, }
}

const IMAGE_SUM: Kernel = Kernel {
    name: "image_sum",
    sources: &[adamant_shaders::INDEX, adamant_shaders::IMAGE_SUM],
    workgroup: 64,
};

const IMAGE_SPREAD: Kernel = Kernel {
    name: "image_spread",
    sources: &[adamant_shaders::INDEX, adamant_shaders::IMAGE_SPREAD],
    workgroup: 64,
};

/// Elements of an image that one thread adds up.
const PART: usize = 64;

impl Operation for ImageSum {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![Shape::per_image(x.batch())])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let (batch, per_image) = (inputs[0].batch(), inputs[0].per_batch());
        let parts = per_image.div_ceil(PART);
        let mut launch = Launch::default();
        let partial = launch.scratch(parts * batch);
        let parameters =
            ImageSumParams { batch: batch as u32, per_image: per_image as u32, parts: parts as u32 };
        launch = launch.then(IMAGE_SUM, &[Argument::Input(0), partial], &parameters, parts * batch);
        add_parts(launch, partial, Argument::Output(0), parts, batch, 0, batch, self.factor)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let images = inputs[0].data.par_chunks(inputs[0].shape.per_batch());
        outputs[0].data.par_iter_mut().zip(images).with_min_len(64).for_each(|(out, image)| {
            let sum: f64 = image.iter().map(|&x| f64::from(x)).sum();
            *out = (sum * f64::from(self.factor)) as f32;
        });
    }
}

impl Operation for ImageSpread {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        if x == Shape::per_image(self.shape.batch()) {
            Ok(vec![self.shape])
        } else {
            Err(format!("spreads one value for each of {} images, got {x:?}", self.shape.batch()))
        }
    }

    fn launch(&self, _inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let parameters = ImageSpreadParams {
            len: outputs[0].len() as u32,
            per_image: outputs[0].per_batch() as u32,
            factor: self.factor,
        };
        Launch::single(
            IMAGE_SPREAD,
            &[Argument::Input(0), Argument::Output(0)],
            &parameters,
            outputs[0].len(),
        )
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        for (image, x) in outputs[0].data.chunks_exact_mut(self.shape.per_batch()).zip(inputs[0].data) {
            image.fill(self.factor * x);
        }
    }
}
