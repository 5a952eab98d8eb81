//! Batch normalisation with running statistics (inference): an affine map for each channel.
//!
//! y = (x - mean) / sqrt(variance + epsilon) * scale + shift

use serde::{Deserialize, Serialize};

use super::activation::Relu;
use super::batch_norm_fused::FusedBatchNorm;
use super::elementwise::{between, in_parts};
use super::launch::{Argument, ByFour, Launch, by_four, params};
use super::reduce::{add_parts, parts, sum_channels};
use super::{Operation, View, ViewMut, arity, per_channel, same};
use crate::shape::Shape;

/// Inputs: x, scale, shift, mean, variance.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct BatchNorm {
    pub epsilon: f32,
    /// Weight of a new batch in the running statistics when the network trains (PyTorch's
    /// convention, one minus ONNX's).
    pub momentum: f32,
}

/// Inputs: dy, scale, variance. Output: dx.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct BatchNormGrad {
    pub epsilon: f32,
}

/// Inputs: x, dy, mean, variance. Outputs: the gradients of scale and shift. The same for running
/// and for batch statistics.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct BatchNormParameterGrad {
    pub epsilon: f32,
}

params! {
    struct BatchNormParams { pixels: u32, channels: u32, epsilon: f32, option: u32, max: f32, }
}

params! {
    struct BatchNormGradParams { pixels: u32, channels: u32, epsilon: f32, }
}

params! {
    struct BatchNormGradSumsParams { pixels: u32, channels: u32, parts: u32, epsilon: f32, }
}

const BATCH_NORM: ByFour = by_four!("batch_norm", X_BUFFER, RESIDUAL_BUFFER, BATCH_NORM);
const BATCH_NORM_GRAD: ByFour = by_four!("batch_norm_grad", BATCH_NORM_GRAD);
const BATCH_NORM_GRAD_SUMS: ByFour =
    by_four!("batch_norm_grad_sums", X_BUFFER, DY_BUFFER, BATCH_NORM_GRAD_SUMS);

/// Pixels that a thread of the elementwise kernels handles.
const PIXELS: usize = 4;

/// Threads of an elementwise kernel that handles `at_once` channels.
pub(super) fn elementwise_threads(x: Shape, at_once: usize) -> usize {
    (x.len() / x.channels()).div_ceil(PIXELS) * (x.channels() / at_once)
}

/// What is done to a normalised activation before it is stored.
#[derive(Clone, Copy)]
pub(super) struct Following<T> {
    /// Is added; of the activation's shape.
    pub residual: Option<T>,
    pub relu: Option<Relu>,
}

impl<T> Following<T> {
    pub const NOTHING: Self = Self { residual: None, relu: None };
}

/// Adds the dispatch that normalises an activation of shape `x`; `arguments` are that activation, scale, shift, mean,
/// variance and y.
pub(super) fn launch_normalize(
    launch: Launch,
    x: Shape,
    epsilon: f32,
    [from, scale, shift, mean, variance, y]: [Argument; 6],
    following: Following<Argument>,
) -> Launch {
    let (kernel, at_once) = BATCH_NORM.pick(x.channels());
    let parameters = BatchNormParams {
        pixels: (x.len() / x.channels()) as u32,
        channels: (x.channels() / at_once) as u32,
        epsilon,
        option: u32::from(following.residual.is_some()) | u32::from(following.relu.is_some()) << 1,
        // WGSL has no infinity; no finite value is beyond the largest one.
        max: following.relu.map_or(f32::MAX, |r| r.max.min(f32::MAX)),
    };
    // A residual that is not there is not read.
    let arguments = [from, scale, shift, mean, variance, following.residual.unwrap_or(from), y];
    launch.then(kernel, &arguments, &parameters, elementwise_threads(x, at_once))
}

/// y = relu(x * factor + offset + residual) for each channel, on the CPU.
pub(super) fn affine(x: &[f32], y: &mut [f32], factor: &[f32], offset: &[f32], following: Following<&[f32]>) {
    let channels = factor.len();
    let (low, high) = following.relu.map_or((f32::NEG_INFINITY, f32::INFINITY), |r| (0.0, r.max));
    in_parts(y, channels, |first, part| {
        let rows = part.chunks_exact_mut(channels).zip(x[first..].chunks_exact(channels));
        match following.residual {
            None => {
                for (y, x) in rows {
                    for (((y, x), factor), offset) in y.iter_mut().zip(x).zip(factor).zip(offset) {
                        *y = between(low, high, x * factor + offset);
                    }
                }
            }
            Some(residual) => {
                for ((y, x), residual) in rows.zip(residual[first..].chunks_exact(channels)) {
                    let terms = y.iter_mut().zip(x).zip(residual).zip(factor).zip(offset);
                    for ((((y, x), residual), factor), offset) in terms {
                        *y = between(low, high, x * factor + offset + residual);
                    }
                }
            }
        }
    });
}

/// The factor and offset that normalise each channel.
pub(super) fn factors(
    scale: &[f32],
    shift: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>) {
    let factor: Vec<f32> = scale.iter().zip(variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let offset = shift.iter().zip(mean).zip(&factor).map(|((b, m), f)| b - m * f).collect();
    (factor, offset)
}

impl Operation for BatchNorm {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        FusedBatchNorm::plain(*self).output_shapes(inputs)
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        FusedBatchNorm::plain(*self).launch(inputs, outputs)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        FusedBatchNorm::plain(*self).run(inputs, outputs);
    }
}

impl Operation for BatchNormGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [dy, vectors @ ..] = arity::<3>(inputs)?;
        per_channel(dy, &vectors)?;
        Ok(vec![dy])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let dy = inputs[0];
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Input(2), Argument::Output(0)];
        let (kernel, at_once) = BATCH_NORM_GRAD.pick(dy.channels());
        let parameters = BatchNormGradParams {
            pixels: (dy.len() / dy.channels()) as u32,
            channels: (dy.channels() / at_once) as u32,
            epsilon: self.epsilon,
        };
        Launch::single(kernel, &arguments, &parameters, elementwise_threads(dy, at_once))
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let zero = vec![0.0; inputs[1].data.len()];
        let (factor, offset) = factors(inputs[1].data, &zero, &zero, inputs[2].data, self.epsilon);
        affine(inputs[0].data, outputs[0].data, &factor, &offset, Following::NOTHING);
    }
}

/// Adds the dispatches of the gradients of scale and shift.
pub(super) fn launch_parameter_grad(
    mut launch: Launch,
    x: Shape,
    epsilon: f32,
    [x_argument, dy, mean, variance, dscale, dshift]: [Argument; 6],
) -> Launch {
    let channels = x.channels();
    let pixels = x.len() / channels;
    let parts = parts(pixels, channels);
    let partial = launch.scratch(parts * 2 * channels);
    let (kernel, at_once) = BATCH_NORM_GRAD_SUMS.pick(channels);
    let parameters = BatchNormGradSumsParams {
        pixels: pixels as u32,
        channels: (channels / at_once) as u32,
        parts: parts as u32,
        epsilon,
    };
    launch = launch.then(
        kernel,
        &[x_argument, dy, mean, variance, partial],
        &parameters,
        parts * channels / at_once,
    );
    launch = add_parts(launch, partial, dscale, parts, 2 * channels, 0, channels, 1.0);
    add_parts(launch, partial, dshift, parts, 2 * channels, channels, channels, 1.0)
}

/// Sums over dy * (x - mean) / sqrt(variance + epsilon), and over dy, for each channel.
pub(super) fn parameter_grad(
    x: &[f32],
    dy: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
) -> [Vec<f64>; 2] {
    let channels = mean.len();
    let [mut scaled, plain] = sum_channels(x.len() / channels, channels, |pixels, [scaled, plain]| {
        let range = pixels.start * channels..pixels.end * channels;
        for (x, dy) in x[range.clone()].chunks_exact(channels).zip(dy[range].chunks_exact(channels)) {
            for c in 0..channels {
                scaled[c] += dy[c] * (x[c] - mean[c]);
                plain[c] += dy[c];
            }
        }
    });
    for (sum, variance) in scaled.iter_mut().zip(variance) {
        *sum /= f64::from(variance + epsilon).sqrt();
    }
    [scaled, plain]
}

impl Operation for BatchNormParameterGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, dy, mean, variance] = arity(inputs)?;
        same(x, dy)?;
        per_channel(x, &[mean, variance])?;
        Ok(vec![mean, mean])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let arguments = [Input(0), Input(1), Input(2), Input(3), Output(0), Output(1)];
        launch_parameter_grad(Launch::default(), inputs[0], self.epsilon, arguments)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let sums =
            parameter_grad(inputs[0].data, inputs[1].data, inputs[2].data, inputs[3].data, self.epsilon);
        for (output, sum) in outputs.iter_mut().zip(sums) {
            for (out, sum) in output.data.iter_mut().zip(sum) {
                *out = sum as f32;
            }
        }
    }
}
