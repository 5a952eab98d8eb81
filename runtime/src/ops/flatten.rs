//! All pixels and channels of an image as one vector, in ONNX's order: channel, row, column.

use serde::{Deserialize, Serialize};

use super::elementwise::in_parts;
use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity};
use crate::shape::Shape;

/// N x H x W x C to N x 1 x 1 x CHW.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Flatten;

/// The inverse of [`Flatten`], and its gradient.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unflatten {
    /// Height, width, channels.
    pub to: [usize; 3],
}

params! {
    struct FlattenParams { len: u32, channels: u32, pixels: u32, }
}

const FLATTEN: Kernel =
    Kernel { name: "flatten", sources: &[adamant_shaders::INDEX, adamant_shaders::FLATTEN], workgroup: 64 };

const UNFLATTEN: Kernel = Kernel {
    name: "unflatten",
    sources: &[adamant_shaders::INDEX, adamant_shaders::UNFLATTEN],
    workgroup: 64,
};

fn launch(kernel: Kernel, image: Shape) -> Launch {
    let parameters = FlattenParams {
        len: image.len() as u32,
        channels: image.channels() as u32,
        pixels: (image.height() * image.width()) as u32,
    };
    Launch::single(kernel, &[Argument::Input(0), Argument::Output(0)], &parameters, image.len())
}

impl Operation for Flatten {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![Shape([x.batch(), 1, 1, x.per_batch()])])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        launch(FLATTEN, inputs[0])
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [_, height, width, channels] = inputs[0].shape.0;
        let pixels = height * width;
        in_parts(outputs[0].data, channels * pixels, |first, part| {
            for (i, y) in part.iter_mut().enumerate() {
                let (n, c, p) = position(first + i, channels, pixels);
                *y = inputs[0].data[(n * pixels + p) * channels + c];
            }
        });
    }
}

/// Image, channel and pixel of element `i` in channel-first order.
fn position(i: usize, channels: usize, pixels: usize) -> (usize, usize, usize) {
    (i / (channels * pixels), i / pixels % channels, i % pixels)
}

impl Operation for Unflatten {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        let [height, width, channels] = self.to;
        let y = Shape([x.batch(), height, width, channels]);
        if y.checked_len() == Some(x.len()) {
            Ok(vec![y])
        } else {
            Err(format!("{x:?} does not unflatten to {y:?}"))
        }
    }

    fn launch(&self, _inputs: &[Shape], outputs: &[Shape]) -> Launch {
        launch(UNFLATTEN, outputs[0])
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [_, height, width, channels] = outputs[0].shape.0;
        let pixels = height * width;
        in_parts(outputs[0].data, channels * pixels, |first, part| {
            for (i, y) in part.iter_mut().enumerate() {
                let (n, p, c) = position(first + i, pixels, channels);
                *y = inputs[0].data[(n * channels + c) * pixels + p];
            }
        });
    }
}
