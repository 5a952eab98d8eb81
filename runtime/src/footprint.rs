//! How much memory a computation takes, known from its plan before any of it is allocated on a GPU.

use crate::autodiff::differentiate;
use crate::cpu::{only_rearranged, rearranged_bytes};
use crate::device::Device;
use crate::error::Result;
use crate::fours::in_fours;
use crate::fuse::fuse;
use crate::loss::Loss;
use crate::model::Model;
use crate::network::BatchNormMode;
use crate::ops::{CrossEntropy, Op, Sum};
use crate::optim::{Optimizer, OptimizerConfig};
use crate::plan::{Limits, Plan, Temporaries};
use crate::prologue::{Split, split};
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
    /// Predicts the memory of `model` at a batch of `batch` images on `device`, of which it takes none.
    pub fn predict(
        model: &Model,
        batch: usize,
        optimizer: &OptimizerConfig,
        device: &Device,
    ) -> Result<Self> {
        // Host memory that is never written to costs nothing, so the buffers are simply made.
        let mut session = Session::new(Device::cpu(), model, batch)?;
        let mut taken = Taken {
            on_cpu: device.is_cpu(),
            limits: device.limits(),
            temporaries: Temporaries::default(),
            rearranged: 0,
            spent: 0,
        };
        let mut graph = session.graph(batch);
        graph.input_gradient(Loss::CrossEntropy)?;
        taken.add(&mut session, &graph)?;
        let attack = taken.total(&mut session);

        let optimizer = Optimizer::new(optimizer, &mut session)?;
        let mut graph = session.graph(batch);
        training_step(&mut graph, &optimizer, Images::Clean)?;
        taken.add(&mut session, &graph)?;
        Ok(Self { batch, attack, training: taken.total(&mut session) })
    }
}

/// What programs take besides variables.
struct Taken {
    on_cpu: bool,
    limits: Limits,
    temporaries: Temporaries,
    /// Bytes of the weights that the CPU executor keeps rearranged.
    rearranged: u64,
    /// Bytes of what it rearranged and does not keep otherwise.
    spent: u64,
}

impl Taken {
    /// Makes the buffers of a graph as a device would.
    fn add(&mut self, session: &mut Session, model: &ModelGraph) -> Result<()> {
        let parameters = session.parameters().to_vec();
        let device = session.device();
        let graph = fuse(&model.graph);
        let graph = if self.on_cpu { graph } else { in_fours(graph)? };
        let Split { main, made, .. } = split(&graph, &parameters, |len| device.variable(len))?;
        let plan = Plan::new(&main, &self.limits)?;
        if self.on_cpu {
            let fixed = [&parameters[..], &made].concat();
            self.rearranged += rearranged_bytes(&plan, &fixed);
            self.spent +=
                only_rearranged(&plan, &fixed, &made).iter().map(|v| v.len() as u64 * 4).sum::<u64>();
        }
        self.temporaries = self.temporaries.with(&plan.temporaries);
        Ok(())
    }

    fn total(&self, session: &mut Session) -> u64 {
        session.device().variable_bytes() + self.rearranged + self.temporaries.bytes() - self.spent
    }
}

/// One update of every parameter by the mean cross-entropy of a batch's images.
pub(crate) fn training_step(m: &mut ModelGraph, optimizer: &Optimizer, images: Images) -> Result<()> {
    let logits = m.logits(images, BatchNormMode::BatchUpdate)?;
    let losses = m.graph.add(Op::CrossEntropy(CrossEntropy), &[logits, m.labels])?;
    let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / m.count as f32 }), &[losses])?;
    let trainable = optimizer.trainable(m);
    let gradients = differentiate(&mut m.graph, mean, &trainable)?;
    optimizer.update(m, &gradients)
}
