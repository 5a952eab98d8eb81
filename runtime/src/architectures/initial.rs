//! How parameters start: the rules of `torch.nn.init`.

use rayon::prelude::*;

use crate::random::Stream;
use crate::shape::{Shape, Tensor};

/// The numbers of values that one output reads, and that one input reaches.
#[derive(Clone, Copy)]
pub(super) struct Fans {
    pub input: usize,
    pub output: usize,
}

impl Fans {
    /// Of a weight: kernel height x kernel width x input channels x output channels.
    pub(super) fn of(weight: Shape) -> Self {
        let [height, width, input, output] = weight.0;
        Self { input: height * width * input, output: height * width * output }
    }
}

/// What the values of a parameter start as.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Initial {
    Constant(f32),
    /// Normal around 0, with this standard deviation.
    Normal(f32),
    /// Uniform from minus this bound to the bound.
    Uniform(f32),
}

/// Chooses the start of a weight, or of its bias, by the fans of the weight.
pub(super) type Rule = fn(Fans) -> Initial;

/// Keeps the variance of activations through a ReLU network (He et al., "Delving deep into
/// rectifiers", 2015).
pub(super) fn kaiming_normal_fan_in(fans: Fans) -> Initial {
    Initial::Normal((2.0 / fans.input as f32).sqrt())
}

/// The same for the variance of gradients.
pub(super) fn kaiming_normal_fan_out(fans: Fans) -> Initial {
    Initial::Normal((2.0 / fans.output as f32).sqrt())
}

/// What PyTorch does when nothing is said, for weights (`kaiming_uniform_(a=sqrt(5))`) and biases.
pub(super) fn pytorch_default(fans: Fans) -> Initial {
    Initial::Uniform(1.0 / (fans.input as f32).sqrt())
}

pub(super) fn zero(_: Fans) -> Initial {
    Initial::Constant(0.0)
}

impl Initial {
    /// The values. Each depends on its position only, so the number of threads does not matter.
    pub(super) fn draw(self, shape: Shape, stream: Stream) -> Tensor {
        let fill = |value: &(dyn Fn(u32) -> f32 + Sync)| {
            (0..shape.len() as u32).into_par_iter().map(value).collect::<Vec<f32>>()
        };
        let data = match self {
            Self::Constant(value) => vec![value; shape.len()],
            Self::Normal(deviation) => fill(&|i| deviation * stream.normal(0, i)),
            Self::Uniform(bound) => fill(&|i| bound * (2.0 * stream.uniform(0, i) - 1.0)),
        };
        Tensor::new(shape, data)
    }
}
