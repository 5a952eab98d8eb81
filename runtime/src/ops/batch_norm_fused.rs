//! A BatchNorm with what follows it, residual and activation, in one pass over its output.
//!
//! [`crate::fuse`] makes these from BatchNorms and their neighbours; no network holds one.

use serde::{Deserialize, Serialize};

use super::activation::Relu;
use super::batch_norm::{BatchNorm, Following, affine, factors, launch_normalize};
use super::batch_norm_train::BatchNormTrain;
use super::launch::{Argument, ByFour, Launch, Textured, by_four, textured};
use super::reduce::{add_parts, channel_sum, channel_sum_params, parts, sum_channels};
use super::{Operation, View, ViewMut, per_channel, same};
use crate::plan::Limits;
use crate::shape::Shape;

/// Inputs: x, scale, shift, mean, variance, and the residual (of x's shape) where there is one.
///
/// y = relu((x - mean) / sqrt(variance + epsilon) * scale + shift + residual)
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct FusedBatchNorm {
    pub norm: BatchNorm,
    pub residual: bool,
    pub relu: Option<Relu>,
}

/// The same with the statistics of the batch.
///
/// Inputs: x, scale, shift, and the residual where there is one. Outputs: y, the batch's mean and its
/// biased variance for each channel.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct FusedBatchNormTrain {
    pub norm: BatchNormTrain,
    pub residual: bool,
    pub relu: Option<Relu>,
}

const CHANNEL_SQUARES: ByFour = by_four!("channel_squares", X_BUFFER, CHANNEL_SQUARES);

/// The dispatches that read x, and the residual.
const TEXTURED: [Textured; 3] = [
    textured!("channel_sum_by_four", &[0], FOUR, X_TEXTURE, CHANNEL_SUM),
    textured!("channel_squares_by_four", &[0], FOUR, X_TEXTURE, CHANNEL_SQUARES),
    textured!("batch_norm_by_four", &[0, 5], FOUR, X_TEXTURE, RESIDUAL_TEXTURE, BATCH_NORM),
];

/// The `N` inputs of a BatchNorm alone, and the residual.
fn split<T: Copy, const N: usize>(inputs: &[T], residual: bool) -> Result<([T; N], Option<T>), String> {
    match inputs.split_first_chunk() {
        Some((&own, rest)) if rest.len() == usize::from(residual) => Ok((own, rest.first().copied())),
        _ => Err(format!("takes {} inputs, got {}", N + usize::from(residual), inputs.len())),
    }
}

/// Checks what follows a BatchNorm of `x`.
fn check(x: Shape, following: Following<Shape>) -> Result<(), String> {
    following.residual.map_or(Ok(()), |residual| same(residual, x))?;
    following.relu.map_or(Ok(()), |relu| relu.check())
}

impl FusedBatchNorm {
    /// A BatchNorm and nothing else.
    pub const fn plain(norm: BatchNorm) -> Self {
        Self { norm, residual: false, relu: None }
    }
}

impl FusedBatchNormTrain {
    /// A BatchNorm and nothing else.
    pub const fn plain(norm: BatchNormTrain) -> Self {
        Self { norm, residual: false, relu: None }
    }
}

impl Operation for FusedBatchNorm {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let ([x, vectors @ ..], residual) = split::<_, 5>(inputs, self.residual)?;
        let BatchNorm { epsilon, momentum } = self.norm;
        if !(epsilon >= 0.0 && epsilon.is_finite() && (0.0..=1.0).contains(&momentum)) {
            return Err(format!("epsilon {epsilon} or momentum {momentum} out of range"));
        }
        per_channel(x, &vectors)?;
        check(x, Following { residual, relu: self.relu })?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let following = Following { residual: self.residual.then_some(Input(5)), relu: self.relu };
        let arguments = [Input(0), Input(1), Input(2), Input(3), Input(4), Output(0)];
        launch_normalize(Launch::default(), inputs[0], self.norm.epsilon, arguments, following)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let ([x, scale, shift, mean, variance], residual) =
            split(inputs, self.residual).expect("output_shapes checked the inputs");
        let epsilon = self.norm.epsilon;
        let (factor, offset) = factors(scale.data, shift.data, mean.data, variance.data, epsilon);
        let following = Following { residual: residual.map(|r| r.data), relu: self.relu };
        affine(x.data, outputs[0].data, &factor, &offset, following);
    }
}

impl Operation for FusedBatchNormTrain {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let ([x, scale, shift], residual) = split(inputs, self.residual)?;
        per_channel(x, &[scale, shift])?;
        check(x, Following { residual, relu: self.relu })?;
        Ok(vec![x, scale, scale])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let x = inputs[0];
        let channels = x.channels();
        let pixels = x.len() / channels;
        let per_count = 1.0 / pixels as f32;
        let (input, mean, variance) = (Input(0), Output(1), Output(2));
        let mut launch = channel_sum(Launch::default(), input, x, mean, per_count);
        // Squares of differences from the mean: a difference of squares would cancel.
        let parts = parts(pixels, channels);
        let partial = launch.scratch(parts * channels);
        let (kernel, at_once) = CHANNEL_SQUARES.pick(channels);
        let sums = channel_sum_params(x, parts, at_once);
        launch = launch.then(kernel, &[input, mean, partial], &sums, parts * channels / at_once);
        launch = add_parts(launch, partial, variance, parts, channels, 0, channels, per_count);
        let following = Following { residual: self.residual.then_some(Input(3)), relu: self.relu };
        let arguments = [input, Input(1), Input(2), mean, variance, Output(0)];
        launch_normalize(launch, x, self.norm.epsilon, arguments, following)
    }

    fn launches(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Vec<Launch> {
        self.launch(inputs, outputs).or_textured(&TEXTURED, inputs, limits)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let ([x, scale, shift], residual) =
            split(inputs, self.residual).expect("output_shapes checked the inputs");
        let [y, mean, variance] = outputs else { unreachable!("three outputs") };
        let channels = x.shape.channels();
        let pixels = x.data.len() / channels;
        let rows = |range: std::ops::Range<usize>| {
            x.data[range.start * channels..range.end * channels].chunks_exact(channels)
        };
        let [sums] = sum_channels(pixels, channels, |range, [sum]| {
            for row in rows(range) {
                for (sum, x) in sum.iter_mut().zip(row) {
                    *sum += x;
                }
            }
        });
        for (mean, sum) in mean.data.iter_mut().zip(sums) {
            *mean = (sum / pixels as f64) as f32;
        }
        let center = &*mean.data;
        let [squares] = sum_channels(pixels, channels, |range, [sum]| {
            for row in rows(range) {
                for ((sum, x), mean) in sum.iter_mut().zip(row).zip(center) {
                    *sum += (x - mean) * (x - mean);
                }
            }
        });
        for (variance, sum) in variance.data.iter_mut().zip(squares) {
            *variance = (sum / pixels as f64) as f32;
        }
        let epsilon = self.norm.epsilon;
        let (factor, offset) = factors(scale.data, shift.data, mean.data, variance.data, epsilon);
        let following = Following { residual: residual.map(|r| r.data), relu: self.relu };
        affine(x.data, y.data, &factor, &offset, following);
    }
}
