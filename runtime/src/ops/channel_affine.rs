//! A fixed scale and shift for each channel, such as a normalisation baked into the ONNX file.

use serde::{Deserialize, Serialize};

use super::elementwise::in_parts;
use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, per_channel};
use crate::shape::Shape;

/// Inputs: x, scale, shift. y = x * scale + shift.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChannelAffine;

/// Inputs: dy, scale. dx = dy * scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChannelAffineGrad;

params! {
    struct ChannelAffineParams { len: u32, channels: u32, }
}

const CHANNEL_AFFINE: Kernel = Kernel {
    name: "channel_affine",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CHANNEL_AFFINE],
    workgroup: 64,
};

const CHANNEL_AFFINE_GRAD: Kernel = Kernel {
    name: "channel_affine_grad",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CHANNEL_AFFINE_GRAD],
    workgroup: 64,
};

fn parameters(x: Shape) -> ChannelAffineParams {
    ChannelAffineParams { len: x.len() as u32, channels: x.channels() as u32 }
}

impl Operation for ChannelAffine {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, scale, shift] = arity(inputs)?;
        per_channel(x, &[scale, shift])?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Input(2), Argument::Output(0)];
        Launch::single(CHANNEL_AFFINE, &arguments, &parameters(inputs[0]), inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let (x, scale, shift) = (inputs[0], inputs[1].data, inputs[2].data);
        let channels = x.shape.channels();
        in_parts(outputs[0].data, channels, |first, part| {
            for (y, x) in part.chunks_exact_mut(channels).zip(x.data[first..].chunks_exact(channels)) {
                for c in 0..channels {
                    y[c] = x[c] * scale[c] + shift[c];
                }
            }
        });
    }
}

impl Operation for ChannelAffineGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [dy, scale] = arity(inputs)?;
        per_channel(dy, &[scale])?;
        Ok(vec![dy])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(CHANNEL_AFFINE_GRAD, &arguments, &parameters(inputs[0]), inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let (dy, scale) = (inputs[0], inputs[1].data);
        let channels = dy.shape.channels();
        in_parts(outputs[0].data, channels, |first, part| {
            for (dx, dy) in part.chunks_exact_mut(channels).zip(dy.data[first..].chunks_exact(channels)) {
                for c in 0..channels {
                    dx[c] = dy[c] * scale[c];
                }
            }
        });
    }
}
