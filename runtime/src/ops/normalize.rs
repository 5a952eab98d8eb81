//! The first operation of every network: an image in [0, 1], batch x channels x height x width,
//! becomes (x - mean) / std, channels last. Epsilon therefore always means pixels.

use serde::{Deserialize, Serialize};

use super::elementwise::in_parts;
use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, per_channel};
use crate::shape::Shape;

/// Inputs: images, mean, std (per-channel vectors).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Normalize;

/// Inputs: dy (channels last), std. Output: the gradient with respect to the image, in its layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NormalizeGrad;

params! {
    struct NormalizeParams { batch: u32, channels: u32, pixels: u32, }
}

impl NormalizeParams {
    fn new(batch: usize, channels: usize, height: usize, width: usize) -> Self {
        Self { batch: batch as u32, channels: channels as u32, pixels: (height * width) as u32 }
    }
}

const NORMALIZE: Kernel = Kernel {
    name: "normalize",
    sources: &[adamant_shaders::INDEX, adamant_shaders::NORMALIZE],
    workgroup: 64,
};

const NORMALIZE_GRAD: Kernel = Kernel {
    name: "normalize_grad",
    sources: &[adamant_shaders::INDEX, adamant_shaders::NORMALIZE_GRAD],
    workgroup: 64,
};

impl Operation for Normalize {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [image, mean, std] = arity(inputs)?;
        let [batch, channels, height, width] = image.0;
        let y = Shape([batch, height, width, channels]);
        per_channel(y, &[mean, std])?;
        Ok(vec![y])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let [batch, channels, height, width] = inputs[0].0;
        let parameters = NormalizeParams::new(batch, channels, height, width);
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Input(2), Argument::Output(0)];
        Launch::single(NORMALIZE, &arguments, &parameters, batch * height * width)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [image, mean, std] = inputs else { unreachable!("output_shapes checked the inputs") };
        let [_, channels, height, width] = image.shape.0;
        let pixels = height * width;
        in_parts(outputs[0].data, channels, |first, part| {
            for (i, pixel) in part.chunks_exact_mut(channels).enumerate() {
                let (n, p) = ((first / channels + i) / pixels, (first / channels + i) % pixels);
                for (c, y) in pixel.iter_mut().enumerate() {
                    *y = (image.data[(n * channels + c) * pixels + p] - mean.data[c]) / std.data[c];
                }
            }
        });
    }
}

impl Operation for NormalizeGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [dy, std] = arity(inputs)?;
        per_channel(dy, &[std])?;
        let [batch, height, width, channels] = dy.0;
        Ok(vec![Shape([batch, channels, height, width])])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let [batch, height, width, channels] = inputs[0].0;
        let parameters = NormalizeParams::new(batch, channels, height, width);
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(NORMALIZE_GRAD, &arguments, &parameters, batch * height * width)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let (dy, std) = (inputs[0], inputs[1]);
        let [_, height, width, channels] = dy.shape.0;
        let pixels = height * width;
        in_parts(outputs[0].data, pixels, |first, part| {
            for (i, plane) in part.chunks_exact_mut(pixels).enumerate() {
                let (n, c) = ((first / pixels + i) / channels, (first / pixels + i) % channels);
                for (p, dx) in plane.iter_mut().enumerate() {
                    *dx = dy.data[(n * pixels + p) * channels + c] / std.data[c];
                }
            }
        });
    }
}
