//! Does a device compute what the CPU executor computes? A small network with every kind of layer
//! goes through what attacks and training are made of, on both.

use crate::attacks::{Ball, Objective};
use crate::device::Device;
use crate::error::Result;
use crate::footprint::training_step;
use crate::loss::Loss;
use crate::model::{Model, Preprocessing};
use crate::network::{Layer, Network, Parameter, Role, Source};
use crate::ops::{Add, AvgPool, BatchNorm, Conv2d, MaxPool, Norm, Op, Relu, Window};
use crate::optim::{Optimizer, OptimizerConfig};
use crate::random::{Purpose, Stream};
use crate::session::{Images, Session};
use crate::shape::{Shape, Tensor, relative_difference};

/// Rounding differs between devices: sums are taken in another order, and a GPU fuses
/// multiply-adds. This part of the largest value covers that, and no wrong kernel.
const TOLERANCE: f32 = 1e-3;

const IMAGES: usize = 4;
const CLASSES: usize = 10;

/// One comparison of a device with the CPU executor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Check {
    pub name: &'static str,
    /// Largest difference, as a part of the largest value; infinite when one is not finite.
    pub difference: f32,
}

impl Check {
    pub fn passed(&self) -> bool {
        self.difference <= TOLERANCE
    }

    fn compare(name: &'static str, found: &[f32], expected: &[f32]) -> Self {
        Self { name, difference: relative_difference(found, expected) }
    }
}

/// Compares `device` with the CPU executor: a forward pass, an input gradient, steps of attacks in
/// both norms, and an update of the weights.
///
/// # Errors
/// What the device could not do at all. A wrong result is a [`Check`] that did not pass.
pub fn self_test(device: Device) -> Result<Vec<Check>> {
    let (found, expected) = (results(device)?, results(Device::cpu())?);
    Ok(found.iter().zip(&expected).map(|((name, f), (_, e))| Check::compare(name, f, e)).collect())
}

fn results(device: Device) -> Result<Vec<(&'static str, Vec<f32>)>> {
    let model = small_model();
    let mut session = Session::new(device, &model, IMAGES)?;
    let images: Vec<f32> =
        (0..session.network().image_shape(IMAGES).len() as u32).map(|i| stream(0).uniform(i, 0)).collect();
    session.load(&images, &[3, 1, 4, 9], &[0, 1, 2, 3])?;
    let mut results = vec![("forward", session.logits(IMAGES, Images::Clean)?)];

    session.start_clean(IMAGES)?;
    session.gradient(IMAGES, Loss::CrossEntropy)?;
    results.push(("gradient", session.read_gradient(IMAGES)?));

    for (name, norm, eps) in [("linf step", Norm::Linf, 0.1), ("l2 step", Norm::L2, 0.5)] {
        let mut objective = Objective::new(&mut session, IMAGES, 0, Purpose::Probe, 0);
        objective.set_ball(&Ball { norm, eps }, eps / 4.0);
        objective.start_random(norm, 0)?;
        // The gradient is that of the clean images: the same on both devices but for rounding.
        objective.step(norm)?;
        results.push((name, session.read_adversarial(IMAGES)?));
    }

    let optimizer = Optimizer::new(&OptimizerConfig::default(), &mut session)?;
    optimizer.set_rate(&mut session, 0.1, 1);
    session.run("self-test", IMAGES, |m| training_step(m, &optimizer, Images::Clean))?;
    let weights = session.read_parameters()?;
    results.push(("training step", weights.iter().flat_map(|w| &w.data).copied().collect()));
    Ok(results)
}

fn stream(index: u32) -> Stream {
    Stream::new(0, Purpose::Probe, index, 0)
}

/// A residual block between a strided convolution and a linear layer, on 3x12x12 images.
fn small_model() -> Model {
    let mut parts = Parts {
        network: Network {
            input: [3, 12, 12],
            parameters: Vec::new(),
            layers: Vec::new(),
            output: Source::Image,
        },
        values: Vec::new(),
    };
    let first = parts.convolution(Source::Image, 3, 8, 2);
    let normed = parts.batch_norm(first, 8);
    let active = parts.layer(Op::Relu(Relu::PLAIN), &[normed]);
    let inner = parts.convolution(active, 8, 8, 1);
    let sum = parts.layer(Op::Add(Add), &[inner, active]);
    let window = |side, stride| Window {
        kernel: [side; 2],
        stride: [stride; 2],
        pads: [0; 4],
        dilation: [1; 2],
        ceil: false,
    };
    let pooled = parts.layer(Op::MaxPool(MaxPool { window: window(2, 2) }), &[sum]);
    let pool = AvgPool { window: window(3, 1), count_include_pad: false };
    let pooled = parts.layer(Op::AvgPool(pool), &[pooled]);
    let weight = parts.parameter("linear", Shape([1, 1, 8, CLASSES]), Role::Weight);
    let bias = parts.parameter("bias", Shape::vector(CLASSES), Role::Bias);
    let output = parts.layer(Op::Conv2d(Conv2d::LINEAR), &[pooled, weight, bias]);
    Model {
        network: Network { output, ..parts.network },
        values: parts.values,
        preprocessing: Preprocessing { mean: vec![0.5; 3], std: vec![0.25; 3] },
        labels: Vec::new(),
        onnx_skeleton: Vec::new(),
    }
}

/// A network under construction, with random weights.
struct Parts {
    network: Network,
    values: Vec<Tensor>,
}

impl Parts {
    fn layer(&mut self, op: Op, inputs: &[Source]) -> Source {
        let name = op.name().to_owned();
        self.network.layers.push(Layer { name, op, inputs: inputs.to_vec() });
        Source::Layer(self.network.layers.len() - 1)
    }

    fn parameter(&mut self, name: &str, shape: Shape, role: Role) -> Source {
        let index = self.values.len();
        let stream = stream(1 + index as u32);
        let data = (0..shape.len() as u32).map(|i| match role {
            // Positive, and away from zero.
            Role::Scale | Role::RunningVariance => 0.5 + stream.uniform(i, 0),
            _ => 0.3 * stream.normal(i, 0),
        });
        self.values.push(Tensor { shape, data: data.collect() });
        self.network.parameters.push(Parameter { name: name.to_owned(), shape, role });
        Source::Parameter(index)
    }

    fn convolution(&mut self, x: Source, from: usize, to: usize, stride: usize) -> Source {
        let weight = self.parameter("weight", Shape([3, 3, from, to]), Role::Weight);
        let op = Conv2d { stride: [stride; 2], pads: [1; 4], dilation: [1; 2], groups: 1 };
        self.layer(Op::Conv2d(op), &[x, weight])
    }

    fn batch_norm(&mut self, x: Source, channels: usize) -> Source {
        let roles = [Role::Scale, Role::Shift, Role::RunningMean, Role::RunningVariance];
        let mut inputs = vec![x];
        inputs.extend(roles.map(|role| self.parameter("norm", Shape::vector(channels), role)));
        self.layer(Op::BatchNorm(BatchNorm { epsilon: 1e-5, momentum: 0.1 }), &inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_executor_equals_itself() {
        let checks = self_test(Device::cpu()).unwrap();
        assert_eq!(checks.len(), 5);
        for check in checks {
            assert_eq!(check.difference, 0.0, "{}", check.name);
        }
    }

    #[test]
    fn wrong_results_do_not_pass() {
        let passes = |found: &[f32], expected: &[f32]| Check::compare("x", found, expected).passed();
        assert!(passes(&[1.0, 2.0], &[1.0, 2.0005]));
        assert!(!passes(&[1.0, 2.0], &[1.0, 2.1]));
        assert!(!passes(&[1.0, f32::NAN], &[1.0, 2.0]));
        assert!(!passes(&[1.0], &[1.0, 2.0]));
        assert!(!passes(&[0.0], &[0.0]), "all zero is no result");
    }
}
