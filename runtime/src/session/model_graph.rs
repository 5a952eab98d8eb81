//! What programs on a model begin with.

use super::{Buffers, Images};
use crate::autodiff::differentiate;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::loss::Loss;
#[cfg(feature = "train")]
use crate::network::Source;
use crate::network::{BatchNormMode, Forward, Network};
use crate::ops::{Copy, Correct, Normalize, Op, Sum};
use crate::shape::Shape;

/// A graph that starts with a model's parameters and a batch: what attacks and training objectives
/// build on.
pub struct ModelGraph {
    pub graph: Graph,
    pub images: ValueId,
    pub adversarial: ValueId,
    pub labels: ValueId,
    pub targets: ValueId,
    /// One value for each of the network's parameters.
    pub parameters: Vec<ValueId>,
    pub count: usize,
    pub buffers: Buffers,
    pub network: Network,
    pub(super) frozen_layers: Vec<bool>,
    pub(super) mean: ValueId,
    pub(super) std: ValueId,
}

impl ModelGraph {
    /// A forward pass: batch x 1 x 1 x classes.
    pub fn logits(&mut self, images: Images, mode: BatchNormMode) -> Result<ValueId> {
        Ok(self.forward(images, mode)?.logits)
    }

    /// A forward pass with the output of every layer.
    pub fn forward(&mut self, images: Images, mode: BatchNormMode) -> Result<Forward> {
        let parameters = self.parameters.clone();
        self.forward_with(images, &parameters, mode)
    }

    /// A forward pass of the same network with other parameters, one value for each.
    pub fn forward_with(
        &mut self,
        images: Images,
        parameters: &[ValueId],
        mode: BatchNormMode,
    ) -> Result<Forward> {
        let images = match images {
            Images::Clean => self.images,
            Images::Adversarial => self.adversarial,
        };
        self.graph.set_label("normalize");
        let image = self.graph.add(Op::Normalize(Normalize), &[images, self.mean, self.std])?;
        self.network.forward_partly(&mut self.graph, image, parameters, mode, &self.frozen_layers)
    }

    /// The output of layer `last`, with running statistics, by the layers up to it alone.
    #[cfg(feature = "train")]
    pub(crate) fn first_layers(&mut self, images: Images, last: usize) -> Result<ValueId> {
        let images = match images {
            Images::Clean => self.images,
            Images::Adversarial => self.adversarial,
        };
        self.graph.set_label("normalize");
        let image = self.graph.add(Op::Normalize(Normalize), &[images, self.mean, self.std])?;
        let part = Network {
            layers: self.network.layers[..=last].to_vec(),
            output: Source::Layer(last),
            ..self.network.clone()
        };
        part.forward(&mut self.graph, image, &self.parameters, BatchNormMode::Running)
    }

    /// What [`Session::gradient`] runs.
    pub(crate) fn input_gradient(&mut self, loss: Loss) -> Result<()> {
        let logits = self.logits(Images::Adversarial, BatchNormMode::Running)?;
        let losses = loss.add(self, logits)?;
        self.ascend(logits, losses)
    }

    /// Writes the gradient of the summed losses at the adversarial images to its buffer, and [scores](Self::score)
    /// them.
    pub(crate) fn ascend(&mut self, logits: ValueId, losses: ValueId) -> Result<()> {
        let sum = self.graph.add(Op::Sum(Sum { factor: 1.0 }), &[losses])?;
        let gradient = differentiate(&mut self.graph, sum, &[self.adversarial])?[0];
        let target = self.graph.variable(self.buffers.gradient, self.graph.shape(gradient));
        self.graph.update(Op::Copy(Copy), &[gradient], &[target])?;
        self.score(logits, losses)
    }

    /// Writes losses and correctness to their buffers.
    pub(crate) fn score(&mut self, logits: ValueId, losses: ValueId) -> Result<()> {
        let one = Shape::per_image(self.count);
        let loss = self.graph.variable(self.buffers.loss, one);
        self.graph.update(Op::Copy(Copy), &[losses], &[loss])?;
        let correct = self.graph.variable(self.buffers.correct, one);
        self.graph.update(Op::Correct(Correct), &[logits, self.labels], &[correct])
    }
}
