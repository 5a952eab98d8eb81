//! How much memory a computation takes, known from its plan before any of it is allocated on a GPU.

use crate::autodiff::differentiate;
use crate::device::Device;
use crate::error::Result;
use crate::fuse::fuse;
use crate::model::Model;
use crate::network::BatchNormMode;
use crate::ops::{Copy, CrossEntropy, Op, Sum};
use crate::optim::{Optimizer, OptimizerConfig};
use crate::plan::{Limits, Plan};
use crate::session::{Images, ModelGraph, Session};

/// Bytes that attacking and training one batch take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    pub batch: usize,
    /// Weights, images, and the buffers of one step of an attack.
    pub attack: u64,
    /// Weights, their gradients, the optimiser's state, images, and activations.
    pub training: u64,
}

impl Footprint {
    /// Predicts the memory of `model` at a batch of `batch` images, on any device.
    pub fn predict(model: &Model, batch: usize, optimizer: &OptimizerConfig) -> Result<Self> {
        // Host memory that is never written to costs nothing, so the buffers are simply made.
        let mut session = Session::new(Device::cpu(), model, batch)?;
        let mut attack = session.graph(batch);
        attack_step(&mut attack)?;
        let attack = session.device().variable_bytes() + temporaries(&attack)?;

        let optimizer = Optimizer::new(optimizer, &mut session)?;
        let mut training = session.graph(batch);
        training_step(&mut training, &optimizer)?;
        let training = session.device().variable_bytes() + temporaries(&training)?;
        Ok(Self { batch, attack, training })
    }
}

fn temporaries(model: &ModelGraph) -> Result<u64> {
    Ok(Plan::new(&fuse(&model.graph), &Limits::HOST)?.temporary_bytes())
}

/// The expensive part of a gradient attack's step: the gradient at the adversarial images.
fn attack_step(m: &mut ModelGraph) -> Result<()> {
    let logits = m.logits(Images::Adversarial, BatchNormMode::Running)?;
    let losses = m.graph.add(Op::CrossEntropy(CrossEntropy), &[logits, m.labels])?;
    let sum = m.graph.add(Op::Sum(Sum { factor: 1.0 }), &[losses])?;
    let gradient = differentiate(&mut m.graph, sum, &[m.adversarial])?[0];
    let target = m.graph.variable(m.buffers.gradient, m.graph.shape(gradient));
    m.graph.update(Op::Copy(Copy), &[gradient], &[target])
}

/// One update of every parameter by the mean cross-entropy of the clean images.
pub(crate) fn training_step(m: &mut ModelGraph, optimizer: &Optimizer) -> Result<()> {
    let logits = m.logits(Images::Clean, BatchNormMode::BatchUpdate)?;
    let losses = m.graph.add(Op::CrossEntropy(CrossEntropy), &[logits, m.labels])?;
    let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / m.count as f32 }), &[losses])?;
    let trainable = optimizer.trainable(m);
    let gradients = differentiate(&mut m.graph, mean, &trainable)?;
    optimizer.update(m, &gradients)
}
