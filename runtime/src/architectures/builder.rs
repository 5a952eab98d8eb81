//! Puts a network together layer by layer, as the `forward` of a PyTorch module does.

use super::initial::{Fans, Initial, Rule};
use crate::error::{Error, Result};
use crate::network::{Layer, Network, Parameter, Role, Source};
use crate::ops::{Add, AvgPool, BatchNorm, Conv2d, Flatten, MaxPool, Op, Pad, Relu, Slice, Window};
use crate::random::{Purpose, Stream};
use crate::shape::{Shape, Tensor};

/// Positions in a stream of random numbers have 32 bits, and no device holds a larger network.
const MOST_PARAMETERS: u64 = u32::MAX as u64;

/// A network whose values are not drawn yet.
pub(super) struct Draft {
    pub network: Network,
    /// One entry for each of the network's parameters.
    pub initial: Vec<Initial>,
}

impl Draft {
    pub(super) fn values(&self, seed: u64) -> Vec<Tensor> {
        let parameters = self.network.parameters.iter().zip(&self.initial).enumerate();
        parameters
            .map(|(index, (parameter, initial))| {
                let stream = Stream::new(seed, Purpose::Initialize, index as u32, 0);
                initial.draw(parameter.shape, stream)
            })
            .collect()
    }
}

/// Every method that adds a layer takes the layer's input and name and gives back its output.
/// Parameters are named `{layer}.weight` and so on, exactly as in a PyTorch `state_dict`.
pub(super) struct Builder {
    input: [usize; 3],
    layers: Vec<Layer>,
    /// The output shape of each layer for one image.
    shapes: Vec<Shape>,
    parameters: Vec<Parameter>,
    initial: Vec<Initial>,
    /// Number of values in `parameters`.
    size: usize,
    /// How the architecture starts its convolutions.
    convolution: Rule,
}

impl Builder {
    pub(super) fn new(input: [usize; 3], convolution: Rule) -> Self {
        Self {
            input,
            layers: vec![],
            shapes: vec![],
            parameters: vec![],
            initial: vec![],
            size: 0,
            convolution,
        }
    }

    pub(super) fn finish(self, output: Source) -> Draft {
        let Self { input, layers, parameters, initial, .. } = self;
        Draft { network: Network { input, parameters, layers, output }, initial }
    }

    /// The shape of a value for one image.
    pub(super) fn shape(&self, source: Source) -> Shape {
        match source {
            Source::Image => {
                let [c, h, w] = self.input;
                Shape([1, h, w, c])
            }
            Source::Layer(i) => self.shapes[i],
            Source::Parameter(i) => self.parameters[i].shape,
        }
    }

    fn parameter(&mut self, name: String, shape: Shape, role: Role, initial: Initial) -> Result<Source> {
        let size = shape.checked_len().and_then(|len| self.size.checked_add(len));
        self.size = size.filter(|&size| size as u64 <= MOST_PARAMETERS).ok_or_else(|| {
            let message =
                format!("parameter '{name}' is {shape:?}: more than {MOST_PARAMETERS} values in total");
            Error::Config(message)
        })?;
        self.parameters.push(Parameter { name, shape, role });
        self.initial.push(initial);
        Ok(Source::Parameter(self.parameters.len() - 1))
    }

    fn layer(&mut self, name: &str, op: Op, inputs: &[Source]) -> Result<Source> {
        let fault = |message: String| Error::Shape { node: name.into(), message };
        let shapes: Vec<Shape> = inputs.iter().map(|&s| self.shape(s)).collect();
        // Every operation of the architectures has one output.
        let shape = op.output_shapes(&shapes).map_err(fault)?[0];
        if shape.checked_len().is_none() {
            return Err(fault(format!("output {shape:?} is too large")));
        }
        self.layers.push(Layer { name: name.into(), op, inputs: inputs.to_vec() });
        self.shapes.push(shape);
        Ok(Source::Layer(self.layers.len() - 1))
    }

    /// A square convolution, padded so that stride 1 keeps the size, without a bias: a BatchNorm
    /// follows.
    pub(super) fn conv(
        &mut self,
        x: Source,
        name: &str,
        filters: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<Source> {
        let shape = Shape([kernel, kernel, self.shape(x).channels(), filters]);
        let initial = (self.convolution)(Fans::of(shape));
        let weight = self.parameter(format!("{name}.weight"), shape, Role::Weight, initial)?;
        let conv = Conv2d { stride: [stride; 2], pads: [kernel / 2; 4], dilation: [1, 1], groups: 1 };
        self.layer(name, Op::Conv2d(conv), &[x, weight])
    }

    /// A square convolution without padding, with a bias that starts at 0.
    pub(super) fn conv_unpadded(
        &mut self,
        x: Source,
        name: &str,
        filters: usize,
        kernel: usize,
    ) -> Result<Source> {
        let shape = Shape([kernel, kernel, self.shape(x).channels(), filters]);
        let initial = (self.convolution)(Fans::of(shape));
        let weight = self.parameter(format!("{name}.weight"), shape, Role::Weight, initial)?;
        let bias = self.parameter(
            format!("{name}.bias"),
            Shape::vector(filters),
            Role::Bias,
            Initial::Constant(0.0),
        )?;
        let conv = Conv2d { stride: [1, 1], pads: [0; 4], dilation: [1, 1], groups: 1 };
        self.layer(name, Op::Conv2d(conv), &[x, weight, bias])
    }

    /// A linear layer on one vector an image.
    pub(super) fn linear(
        &mut self,
        x: Source,
        name: &str,
        features: usize,
        weight: Rule,
        bias: Rule,
    ) -> Result<Source> {
        let shape = Shape([1, 1, self.shape(x).channels(), features]);
        let fans = Fans::of(shape);
        let weight = self.parameter(format!("{name}.weight"), shape, Role::Weight, weight(fans))?;
        let bias = self.parameter(format!("{name}.bias"), Shape::vector(features), Role::Bias, bias(fans))?;
        self.layer(name, Op::Conv2d(Conv2d::LINEAR), &[x, weight, bias])
    }

    pub(super) fn batch_norm(&mut self, x: Source, name: &str) -> Result<Source> {
        let mut inputs = vec![x];
        for (suffix, role, value) in [
            ("weight", Role::Scale, 1.0),
            ("bias", Role::Shift, 0.0),
            ("running_mean", Role::RunningMean, 0.0),
            ("running_var", Role::RunningVariance, 1.0),
        ] {
            let shape = Shape::vector(self.shape(x).channels());
            let initial = Initial::Constant(value);
            inputs.push(self.parameter(format!("{name}.{suffix}"), shape, role, initial)?);
        }
        self.layer(name, Op::BatchNorm(BatchNorm { epsilon: 1e-5, momentum: 0.1 }), &inputs)
    }

    pub(super) fn relu(&mut self, x: Source, name: &str) -> Result<Source> {
        self.layer(name, Op::Relu(Relu::PLAIN), &[x])
    }

    pub(super) fn add(&mut self, x: Source, y: Source, name: &str) -> Result<Source> {
        self.layer(name, Op::Add(Add), &[x, y])
    }

    pub(super) fn max_pool(
        &mut self,
        x: Source,
        name: &str,
        kernel: usize,
        stride: usize,
        pad: usize,
    ) -> Result<Source> {
        let window = Window {
            kernel: [kernel; 2],
            stride: [stride; 2],
            pads: [pad; 4],
            dilation: [1, 1],
            ceil: false,
        };
        self.layer(name, Op::MaxPool(MaxPool { window }), &[x])
    }

    /// The mean over all pixels: one vector an image.
    pub(super) fn global_average(&mut self, x: Source, name: &str) -> Result<Source> {
        let shape = self.shape(x);
        let window = Window::global(shape.height(), shape.width());
        self.layer(name, Op::AvgPool(AvgPool { window, count_include_pad: false }), &[x])
    }

    pub(super) fn flatten(&mut self, x: Source, name: &str) -> Result<Source> {
        self.layer(name, Op::Flatten(Flatten), &[x])
    }

    /// Every second pixel of every second row.
    pub(super) fn every_second_pixel(&mut self, x: Source, name: &str) -> Result<Source> {
        let [_, h, w, c] = self.shape(x).0;
        let slice = Slice { start: [0; 3], step: [2, 2, 1], len: [h.div_ceil(2), w.div_ceil(2), c] };
        self.layer(name, Op::Slice(slice), &[x])
    }

    /// `channels` channels of zeros before the present ones, and as many after.
    pub(super) fn pad_channels(&mut self, x: Source, name: &str, channels: usize) -> Result<Source> {
        let around = [0, 0, channels];
        let pad = Pad { before: around, after: around, interior: [0; 3], value: 0.0 };
        self.layer(name, Op::Pad(pad), &[x])
    }
}
