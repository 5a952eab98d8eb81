//! Batch normalisation with the statistics of the batch (training), its gradient, and the update
//! of the running statistics.

use serde::{Deserialize, Serialize};

use super::batch_norm::{elementwise_threads, launch_parameter_grad, parameter_grad};
use super::batch_norm_fused::FusedBatchNormTrain;
use super::elementwise::in_parts;
use super::launch::{Argument, ByFour, Kernel, Launch, Textured, by_four, params, textured};
use super::{Operation, View, ViewMut, arity, per_channel, same};
use crate::plan::Limits;
use crate::shape::Shape;

/// Inputs: x, scale, shift. Outputs: y, the batch's mean and its biased variance for each channel.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct BatchNormTrain {
    pub epsilon: f32,
}

/// Inputs: x, dy, scale, and the batch's mean and variance. Outputs: dx and the gradients of scale
/// and shift.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct BatchNormTrainGrad {
    pub epsilon: f32,
}

/// Inputs: the batch's mean and biased variance. Updates in place: the running mean and variance.
/// As in PyTorch, the running variance takes the unbiased one.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunningStatistics {
    pub momentum: f32,
    /// Values that each statistic was taken over: batch x height x width.
    pub count: u32,
}

params! {
    struct BatchNormTrainGradParams { pixels: u32, channels: u32, epsilon: f32, per_count: f32, }
}

params! {
    struct RunningStatisticsParams { channels: u32, momentum: f32, unbias: f32, }
}

const BATCH_NORM_TRAIN_GRAD: ByFour =
    by_four!("batch_norm_train_grad", X_BUFFER, DY_BUFFER, BATCH_NORM_TRAIN_GRAD);

/// The dispatches of [`BatchNormTrainGrad`] that read x and dy.
const GRAD_TEXTURED: [Textured; 2] = [
    textured!("batch_norm_grad_sums_by_four", &[0, 1], FOUR, X_TEXTURE, DY_TEXTURE, BATCH_NORM_GRAD_SUMS),
    textured!("batch_norm_train_grad_by_four", &[0, 1], FOUR, X_TEXTURE, DY_TEXTURE, BATCH_NORM_TRAIN_GRAD),
];

const RUNNING_STATISTICS: Kernel = Kernel {
    name: "running_statistics",
    sources: &[adamant_shaders::INDEX, adamant_shaders::RUNNING_STATISTICS],
    workgroup: 64,
};

impl Operation for BatchNormTrain {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        FusedBatchNormTrain::plain(*self).output_shapes(inputs)
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        FusedBatchNormTrain::plain(*self).launch(inputs, outputs)
    }

    fn launches(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Vec<Launch> {
        FusedBatchNormTrain::plain(*self).launches(inputs, outputs, limits)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        FusedBatchNormTrain::plain(*self).run(inputs, outputs);
    }
}

impl Operation for BatchNormTrainGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, dy, scale, mean, variance] = arity(inputs)?;
        same(x, dy)?;
        per_channel(x, &[scale, mean, variance])?;
        Ok(vec![x, scale, scale])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let x = inputs[0];
        let sums = [Input(0), Input(1), Input(3), Input(4), Output(1), Output(2)];
        let launch = launch_parameter_grad(Launch::default(), x, self.epsilon, sums);
        let (kernel, at_once) = BATCH_NORM_TRAIN_GRAD.pick(x.channels());
        let parameters = BatchNormTrainGradParams {
            pixels: (x.len() / x.channels()) as u32,
            channels: (x.channels() / at_once) as u32,
            epsilon: self.epsilon,
            per_count: x.channels() as f32 / x.len() as f32,
        };
        let arguments = [Input(0), Input(1), Input(2), Input(3), Input(4), Output(1), Output(2), Output(0)];
        launch.then(kernel, &arguments, &parameters, elementwise_threads(x, at_once))
    }

    fn launches(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Vec<Launch> {
        self.launch(inputs, outputs).or_textured(&GRAD_TEXTURED, inputs, limits)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [x, dy, scale, mean, variance] = inputs else { unreachable!("output_shapes checked the inputs") };
        let channels = x.shape.channels();
        let per_count = channels as f64 / x.data.len() as f64;
        let [dscale, dshift] = parameter_grad(x.data, dy.data, mean.data, variance.data, self.epsilon);
        // dx = scale / sigma * (dy - mean(dy) - xhat * mean(dy * xhat)), as dy * a + x * b + c.
        let mut coefficients = vec![[0.0f32; 3]; channels];
        for c in 0..channels {
            let sigma = f64::from(variance.data[c] + self.epsilon).sqrt();
            let a = f64::from(scale.data[c]) / sigma;
            let b = -a * dscale[c] * per_count / sigma;
            let offset = -a * dshift[c] * per_count - b * f64::from(mean.data[c]);
            coefficients[c] = [a as f32, b as f32, offset as f32];
        }
        in_parts(outputs[0].data, channels, |first, part| {
            let rows = x.data[first..].chunks_exact(channels).zip(dy.data[first..].chunks_exact(channels));
            for (dx, (x, dy)) in part.chunks_exact_mut(channels).zip(rows) {
                for (((dx, x), dy), [a, b, c]) in dx.iter_mut().zip(x).zip(dy).zip(&coefficients) {
                    *dx = dy * a + x * b + c;
                }
            }
        });
        for (output, sum) in outputs[1..].iter_mut().zip([dscale, dshift]) {
            for (out, sum) in output.data.iter_mut().zip(sum) {
                *out = sum as f32;
            }
        }
    }
}

impl RunningStatistics {
    /// Turns a biased variance into an unbiased one. A single value has none; PyTorch refuses it,
    /// here it keeps the biased one.
    fn unbias(&self) -> f32 {
        if self.count > 1 { self.count as f32 / (self.count - 1) as f32 } else { 1.0 }
    }
}

impl Operation for RunningStatistics {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [mean, variance] = arity(inputs)?;
        same(mean, variance)?;
        Ok(vec![mean, variance])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let channels = inputs[0].channels();
        let parameters = RunningStatisticsParams {
            channels: channels as u32,
            momentum: self.momentum,
            unbias: self.unbias(),
        };
        Launch::single(RUNNING_STATISTICS, &[Input(0), Input(1), Output(0), Output(1)], &parameters, channels)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        for (i, correction) in [1.0, self.unbias()].into_iter().enumerate() {
            for (running, batch) in outputs[i].data.iter_mut().zip(inputs[i].data) {
                *running = *running * (1.0 - self.momentum) + batch * correction * self.momentum;
            }
        }
    }
}
