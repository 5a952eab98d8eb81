//! A classifier as imported: layers and parameters, without a batch size, without a device.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::{BatchNormTrain, Conv2d, Op, RunningStatistics};
use crate::shape::{Shape, Tensor};

/// Where a layer takes an input from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// The normalised image, N x H x W x C.
    Image,
    /// The output of an earlier layer.
    Layer(usize),
    Parameter(usize),
}

/// One operation with one output. Layers are in execution order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// The name of the ONNX node it came from.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<Source>,
}

/// What a parameter is for: decides whether it trains, and how it is written to ONNX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Convolution or linear weight, stored kernel height x kernel width x input channels x output channels.
    Weight,
    Bias,
    /// BatchNorm scale (gamma).
    Scale,
    /// BatchNorm shift (beta).
    Shift,
    RunningMean,
    RunningVariance,
    /// A fixed number of the file, such as a normalisation baked into the graph.
    Constant,
}

impl Role {
    /// Whether an optimiser changes it.
    pub const fn trains(self) -> bool {
        matches!(self, Self::Weight | Self::Bias | Self::Scale | Self::Shift)
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Parameter {
    /// The initialiser's name in the ONNX file.
    pub name: String,
    pub shape: Shape,
    pub role: Role,
}

/// The layers of a classifier from normalised image to logits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Channels, height, width of an image.
    pub input: [usize; 3],
    pub parameters: Vec<Parameter>,
    pub layers: Vec<Layer>,
    /// The layer whose output is the logits, batch x 1 x 1 x classes.
    pub output: Source,
}

/// How BatchNorm layers behave in one forward pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchNormMode {
    /// Running statistics, as in inference and in attacks.
    Running,
    /// Statistics of the batch; the running statistics stay as they are.
    Batch,
    /// Statistics of the batch, which also update the running statistics.
    BatchUpdate,
}

/// Every value of one forward pass.
pub struct Forward {
    /// The output of each layer, in order.
    pub layers: Vec<ValueId>,
    /// batch x 1 x 1 x classes.
    pub logits: ValueId,
}

impl Forward {
    /// What the network's last, linear layer sees: batch x 1 x 1 x features.
    pub fn features(&self, network: &Network) -> Result<ValueId> {
        let head =
            network.head().ok_or_else(|| Error::Config("the model's last layer is not linear".into()))?;
        Ok(self.layers[head.features])
    }

    /// What the pooling before the last layers sees: batch x height x width x channels.
    pub fn feature_map(&self, network: &Network) -> Result<ValueId> {
        let layer = network.feature_map().ok_or_else(|| {
            Error::Config(
                "the model does not end in a linear layer on pooled features, so it has no feature map"
                    .into(),
            )
        })?;
        Ok(self.layers[layer])
    }
}

/// The last layer of a classifier: linear, with a bias.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The layer whose output it takes.
    pub features: usize,
    /// Positions of its parameters.
    pub weight: usize,
    pub bias: usize,
}

impl Network {
    /// The last layer, where it is linear with a bias on one value a feature.
    pub fn head(&self) -> Option<Head> {
        let Source::Layer(last) = self.output else { return None };
        let layer = &self.layers[last];
        match (&layer.op, layer.inputs.as_slice()) {
            (
                Op::Conv2d(conv),
                &[Source::Layer(features), Source::Parameter(weight), Source::Parameter(bias)],
            ) if *conv == Conv2d::LINEAR && self.parameters[weight].shape.0[..2] == [1, 1] => {
                Some(Head { features, weight, bias })
            }
            _ => None,
        }
    }

    /// The layer whose output is pooled, flattened and handed to the last layer.
    pub fn feature_map(&self) -> Option<usize> {
        let mut at = self.head()?.features;
        while let Op::AvgPool(_) | Op::Flatten(_) = self.layers[at].op {
            match self.layers[at].inputs[0] {
                Source::Layer(before) => at = before,
                Source::Image | Source::Parameter(_) => return None,
            }
        }
        Some(at)
    }

    pub fn classes(&self) -> Result<usize> {
        let shapes = self.layer_shapes(1)?;
        Ok(self.shape_of(self.output, 1, &shapes).channels())
    }

    pub fn has_batch_norm(&self) -> bool {
        self.layers.iter().any(|l| matches!(l.op, Op::BatchNorm(_)))
    }

    /// Shape of an image batch at the public boundary: batch x channels x height x width.
    pub fn image_shape(&self, batch: usize) -> Shape {
        let [c, h, w] = self.input;
        Shape([batch, c, h, w])
    }

    /// The output shape of every layer; an error names the first layer that does not fit.
    pub fn layer_shapes(&self, batch: usize) -> Result<Vec<Shape>> {
        let mut shapes = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let fault = |message: String| Error::Shape { node: layer.name.clone(), message };
            let mut inputs = Vec::with_capacity(layer.inputs.len());
            for &source in &layer.inputs {
                let known = match source {
                    Source::Image => true,
                    Source::Layer(i) => i < index,
                    Source::Parameter(i) => i < self.parameters.len(),
                };
                if !known {
                    return Err(fault(format!("input {source:?} is not defined before it")));
                }
                inputs.push(self.shape_of(source, batch, &shapes));
            }
            let outputs = layer.op.output_shapes(&inputs).map_err(fault)?;
            let &[shape] = outputs.as_slice() else {
                return Err(fault("a layer has one output".into()));
            };
            if shape.checked_len().is_none() {
                return Err(fault(format!("output {shape:?} is too large")));
            }
            shapes.push(shape);
        }
        Ok(shapes)
    }

    fn shape_of(&self, source: Source, batch: usize, layers: &[Shape]) -> Shape {
        match source {
            Source::Image => {
                let [c, h, w] = self.input;
                Shape([batch, h, w, c])
            }
            Source::Layer(i) => layers[i],
            Source::Parameter(i) => self.parameters[i].shape,
        }
    }

    /// Checks that layers, parameters and values fit together and end in logits.
    pub fn verify(&self, values: &[Tensor]) -> Result<()> {
        let fault = |message: String| Error::Shape { node: "network".into(), message };
        if let Some(layer) = self.layers.iter().find(|l| !l.op.is_layer()) {
            let message = format!("{} is not an operation of a classifier", layer.op.name());
            return Err(Error::Shape { node: layer.name.clone(), message });
        }
        // The shape rules count on inputs that are neither empty nor too large.
        let parameters = self.parameters.iter().map(|p| p.shape);
        for shape in parameters.chain([self.image_shape(2)]) {
            if matches!(shape.checked_len(), None | Some(0)) {
                return Err(fault(format!("an image or parameter of {shape:?} is empty or too large")));
            }
        }
        match self.output {
            Source::Layer(i) if i < self.layers.len() => {}
            other => return Err(fault(format!("the output {other:?} is not a layer"))),
        }
        // At two batch sizes, so that logits computed from parameters alone do not pass.
        for batch in [1, 2] {
            let shapes = self.layer_shapes(batch)?;
            let logits = self.shape_of(self.output, batch, &shapes);
            let [images, height, width, classes] = logits.0;
            if [images, height, width] != [batch, 1, 1] || classes < 2 {
                return Err(fault(format!(
                    "the output for {batch} image(s) is {logits:?}; a classifier ends in at least two logits an image"
                )));
            }
        }
        if values.len() != self.parameters.len() {
            return Err(fault(format!("{} parameters, {} tensors", self.parameters.len(), values.len())));
        }
        for (p, v) in self.parameters.iter().zip(values) {
            if p.shape != v.shape || v.shape.len() != v.data.len() {
                return Err(fault(format!(
                    "parameter '{}' is {:?}, its tensor {:?}",
                    p.name, p.shape, v.shape
                )));
            }
        }
        Ok(())
    }

    /// Adds this network's layers to `graph`, from the normalised `image` on, and returns the logits.
    pub fn forward(
        &self,
        graph: &mut Graph,
        image: ValueId,
        parameters: &[ValueId],
        mode: BatchNormMode,
    ) -> Result<ValueId> {
        Ok(self.forward_all(graph, image, parameters, mode)?.logits)
    }

    /// As [`Network::forward`], with the output of every layer.
    ///
    /// `parameters` holds one value of the graph for each of [`Network::parameters`].
    pub fn forward_all(
        &self,
        graph: &mut Graph,
        image: ValueId,
        parameters: &[ValueId],
        mode: BatchNormMode,
    ) -> Result<Forward> {
        self.forward_partly(graph, image, parameters, mode, &[])
    }

    /// As [`Network::forward_all`], with running statistics in the layers that `frozen` names by `true`.
    pub(crate) fn forward_partly(
        &self,
        graph: &mut Graph,
        image: ValueId,
        parameters: &[ValueId],
        mode: BatchNormMode,
        frozen: &[bool],
    ) -> Result<Forward> {
        let mut values: Vec<ValueId> = Vec::with_capacity(self.layers.len());
        let resolve = |source: Source, values: &[ValueId]| match source {
            Source::Image => image,
            Source::Layer(i) => values[i],
            Source::Parameter(i) => parameters[i],
        };
        for (at, layer) in self.layers.iter().enumerate() {
            let mode = if frozen.get(at) == Some(&true) { BatchNormMode::Running } else { mode };
            let inputs: Vec<ValueId> = layer.inputs.iter().map(|&s| resolve(s, &values)).collect();
            graph.set_label(&layer.name);
            let output = match (&layer.op, mode) {
                (Op::BatchNorm(norm), BatchNormMode::Batch | BatchNormMode::BatchUpdate) => {
                    let &[x, scale, shift, mean, variance] = inputs.as_slice() else {
                        unreachable!("BatchNorm has five inputs: layer_shapes checked it")
                    };
                    let train = Op::BatchNormTrain(BatchNormTrain { epsilon: norm.epsilon });
                    let outputs = graph.add_all(train, &[x, scale, shift])?;
                    if mode == BatchNormMode::BatchUpdate {
                        let shape = graph.shape(x);
                        let update = RunningStatistics {
                            momentum: norm.momentum,
                            count: (shape.len() / shape.channels()) as u32,
                        };
                        graph.update(
                            Op::RunningStatistics(update),
                            &[outputs[1], outputs[2]],
                            &[mean, variance],
                        )?;
                    }
                    outputs[0]
                }
                (op, _) => graph.add(op.clone(), &inputs)?,
            };
            values.push(output);
        }
        graph.set_label("");
        let logits = resolve(self.output, &values);
        Ok(Forward { layers: values, logits })
    }
}
