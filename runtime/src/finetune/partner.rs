//! LBGAT, learnable boundary guided adversarial training: Cui et al., 2021. A second network is trained on
//! clean images beside the first; the first learns to answer on attacked images what the second answers on
//! the clean ones, and so keeps its boundary.

use super::formula::Formula;
use super::loss::BatchLoss;
use crate::error::{Error, Result};
use crate::graph::{ValueId, Variable};
use crate::network::BatchNormMode;
use crate::optim::{Optimizer, OptimizerConfig};
use crate::session::{Images, ModelGraph, Session};

/// The second network: at the start, a copy of the first.
pub(super) struct Partner {
    beta: f32,
    parameters: Vec<Variable>,
    optimizer: Optimizer,
}

impl Partner {
    pub fn new(beta: f32, config: &OptimizerConfig, session: &mut Session) -> Result<Self> {
        let values = session.read_parameters()?;
        let device = session.device();
        let parameters = values.iter().map(|t| device.variable_from(&t.data)).collect::<Result<_>>()?;
        Ok(Self { beta, parameters, optimizer: Optimizer::new(config, session)? })
    }

    pub fn set_rate(&self, session: &mut Session, rate: f64, step: u64) {
        self.optimizer.set_rate(session, rate, step);
    }

    /// `CE(t, y) + |z' - t|^2 / classes + beta KL(p || p')`: t the partner's logits of the clean images, z'
    /// the network's of the attacked ones. The gradient reaches both networks.
    pub fn add(&self, m: &mut ModelGraph, mode: BatchNormMode) -> Result<BatchLoss> {
        let partner = self.values(m);
        let natural = m.forward_with(Images::Clean, &partner, mode)?.logits;
        // Without its term, the pass of the clean images is not needed.
        let clean = match self.beta > 0.0 {
            true => Some(m.logits(Images::Clean, mode)?),
            false => None,
        };
        let forward = m.forward(Images::Adversarial, mode)?;
        m.graph.set_label("loss");
        let (g, labels) = (&mut m.graph, m.labels);
        let cross_entropy = g.cross_entropy(natural, labels)?;
        let difference = g.minus(forward.logits, natural)?;
        let squares = g.product(difference, difference)?;
        let distance = g.image_sum(squares)?;
        let boundary = g.times(1.0 / g.shape(natural).per_batch() as f32, distance)?;
        let mut losses = g.plus(cross_entropy, boundary)?;
        let mut terms = vec![("clean", cross_entropy), ("boundary", boundary)];
        if let Some(clean) = clean {
            let (log_p, log_q) = (g.log_softmax(clean)?, g.log_softmax(forward.logits)?);
            let divergence = g.kl(log_p, log_q)?;
            let robust = g.times(self.beta, divergence)?;
            losses = g.plus(losses, robust)?;
            terms.push(("divergence", robust));
        }
        Ok(BatchLoss { losses, terms, forward, partner })
    }

    /// Its parameters, as values of a graph.
    pub fn values(&self, m: &mut ModelGraph) -> Vec<ValueId> {
        let shapes = m.network.parameters.iter().map(|p| p.shape);
        self.parameters.iter().zip(shapes).map(|(&v, shape)| m.graph.variable(v, shape)).collect()
    }

    /// The positions of its parameters that train.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.optimizer.positions()
    }

    /// Those of the partner's parameters that train.
    pub fn trainable(&self, parameters: &[ValueId]) -> Vec<ValueId> {
        self.optimizer.trainable_of(parameters)
    }

    pub fn update(&self, m: &mut ModelGraph, parameters: &[ValueId], gradients: &[ValueId]) -> Result<()> {
        self.optimizer.update_of(m, parameters, gradients)
    }

    /// Parameters and optimiser by name, for a checkpoint.
    pub fn read(&self, session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
        let mut tensors = self.optimizer.read(session)?;
        let names: Vec<String> = session.network().parameters.iter().map(|p| p.name.clone()).collect();
        for (name, &variable) in names.into_iter().zip(&self.parameters) {
            tensors.push((name, session.device().read(variable)?));
        }
        Ok(tensors.into_iter().map(|(name, values)| (format!("{PREFIX}{name}"), values)).collect())
    }

    pub fn restore(&self, session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        let own: Vec<(String, Vec<f32>)> = tensors
            .iter()
            .filter_map(|(name, values)| Some((name.strip_prefix(PREFIX)?.to_owned(), values.clone())))
            .collect();
        self.optimizer.write(session, &own)?;
        let names: Vec<String> = session.network().parameters.iter().map(|p| p.name.clone()).collect();
        for (name, &variable) in names.into_iter().zip(&self.parameters) {
            let (_, values) = own
                .iter()
                .find(|(n, v)| *n == name && v.len() == variable.len())
                .ok_or_else(|| Error::Config(format!("the checkpoint has no '{PREFIX}{name}'")))?;
            session.device().write(variable, values);
        }
        Ok(())
    }
}

const PREFIX: &str = "partner.";
