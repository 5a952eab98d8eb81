//! Parameters that train beside the network's own, for passes of clean images: all of them, which is a second network
//! (LBGAT), or those of BatchNorms (`batchnorm.mode = split`), so that clean and attacked images, which are distributed
//! differently, do not share statistics (Xie et al., "Adversarial examples improve image recognition", 2020). As in
//! AR-AT (Waseda et al., 2025) the network's own, which a run ends with, are those of the attacked images.

use super::copies::Copies;
use super::loss::LossKind;
use super::recipe::{BatchNormTraining, Recipe};
use crate::error::{Error, Result};
use crate::graph::ValueId;
use crate::network::{Network, Source};
use crate::ops::Op;
use crate::optim::Optimizer;
use crate::session::{ModelGraph, Session};

/// The second values of some of the network's parameters: at the start, copies.
pub(super) struct Branch {
    /// Before a name in a checkpoint.
    prefix: &'static str,
    parameters: Copies,
    optimizer: Optimizer,
}

impl Branch {
    /// The one that `recipe` asks for, where it does; of the network's parameters, `trained` names those that an
    /// optimiser changes, and `kept` those that nothing changes.
    ///
    /// # Errors
    /// [`Error::Config`] when the network has no BatchNorm that could be split.
    pub fn new(
        recipe: &Recipe,
        trained: &[bool],
        kept: &[bool],
        session: &mut Session,
    ) -> Result<Option<Self>> {
        let (prefix, second) = match (recipe.loss.kind, recipe.batchnorm.mode) {
            (LossKind::Lbgat, _) => ("partner.", vec![true; kept.len()]),
            (_, BatchNormTraining::Split) => ("clean.", norms(session.network(), kept)),
            _ => return Ok(None),
        };
        if !second.contains(&true) {
            return Err(Error::Config(
                "batchnorm.mode = split: no BatchNorm of this network trains; set batchnorm.mode = train"
                    .into(),
            ));
        }
        let parameters = Copies::new(prefix, &second, session)?;
        let trained: Vec<bool> =
            trained.iter().zip(&second).map(|(trained, second)| *trained && *second).collect();
        let optimizer = Optimizer::of(&recipe.optimizer, &trained, session)?;
        Ok(Some(Self { prefix, parameters, optimizer }))
    }

    pub fn set_rate(&self, session: &mut Session, rate: f64, step: u64) {
        self.optimizer.set_rate(session, rate, step);
    }

    /// A value for each of the network's parameters: its own, or the network's.
    pub fn values(&self, m: &mut ModelGraph) -> Vec<ValueId> {
        self.parameters.values(m)
    }

    /// The positions of those that an optimiser changes, among the network's parameters.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.optimizer.positions()
    }

    /// Those of `values` that an optimiser changes.
    pub fn trainable(&self, values: &[ValueId]) -> Vec<ValueId> {
        self.optimizer.trainable_of(values)
    }

    /// Adds their update, by gradients times `factor`.
    pub fn update(
        &self,
        m: &mut ModelGraph,
        values: &[ValueId],
        gradients: &[ValueId],
        factor: Option<ValueId>,
    ) -> Result<()> {
        self.optimizer.update_of(m, values, gradients, factor)
    }

    /// Parameters and optimiser by name, for a checkpoint.
    pub fn read(&self, session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
        let state = self.optimizer.read(session)?.into_iter();
        let mut tensors = self.parameters.read(session)?;
        tensors.extend(state.map(|(name, values)| (format!("{}{name}", self.prefix), values)));
        Ok(tensors)
    }

    pub fn restore(&self, session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        self.parameters.restore(session, tensors)?;
        let own = tensors
            .iter()
            .filter_map(|(name, values)| Some((name.strip_prefix(self.prefix)?.to_owned(), values.clone())));
        self.optimizer.write(session, &own.collect::<Vec<_>>())
    }
}

/// Which parameters are of BatchNorms that change in training: scale, shift and both running statistics.
fn norms(network: &Network, kept: &[bool]) -> Vec<bool> {
    let mut second = vec![false; kept.len()];
    for layer in network.layers.iter().filter(|layer| matches!(layer.op, Op::BatchNorm(_))) {
        for source in &layer.inputs {
            if let Source::Parameter(p) = *source {
                second[p] = !kept[p];
            }
        }
    }
    second
}
