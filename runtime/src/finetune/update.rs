//! One update of the weights, by the images of a batch as they are now: at once, or in parts.

use std::sync::Arc;

use super::branch::Branch;
use super::free::Free;
use super::guide::Teacher;
use super::loss::{BatchLoss, LossConfig};
use super::mixup::Mixup;
use super::mma::Mma;
use super::parts::Sums;
use super::totals::Totals;
use super::weights::WeightPerturbation;
use crate::autodiff::differentiate;
use crate::data::Batch;
use crate::error::Result;
use crate::graph::ValueId;
use crate::network::BatchNormMode;
use crate::ops::{Op, Sum};
use crate::optim::Optimizer;
use crate::session::{ModelGraph, Session};

/// What an update is made of.
pub(super) struct Update<'a> {
    pub config: LossConfig,
    pub mixup: Option<&'a Arc<Mixup>>,
    pub mma: Option<&'a Mma>,
    pub teacher: Option<&'a Teacher>,
    pub branch: Option<&'a Branch>,
    pub optimizer: &'a Optimizer,
    pub perturbation: Option<&'a WeightPerturbation>,
    /// Of the passes that train.
    pub mode: BatchNormMode,
}

/// Losses of several kinds in one run have programs of their own, as have parts of batches of several sizes.
const KINDS: u32 = 32;

impl Update<'_> {
    /// The loss, and the parameters of the branch.
    fn losses(&self, m: &mut ModelGraph, mode: BatchNormMode) -> Result<(BatchLoss, Vec<ValueId>)> {
        let second = self.branch.map_or_else(Vec::new, |branch| branch.values(m));
        let loss = match (self.mixup, self.mma, self.branch) {
            (Some(mixup), _, _) => mixup.add(m, mode)?,
            (_, Some(mma), _) => mma.add(m, mode)?,
            (_, _, Some(_)) => self.config.add_beside(m, mode, &second)?,
            (None, None, None) => self.config.add(m, mode)?,
        };
        let loss = match self.teacher {
            Some(teacher) => teacher.guide(m, loss)?,
            None => loss,
        };
        Ok((loss, second))
    }

    /// What trains: of the network, then of the branch.
    fn trainable(&self, m: &ModelGraph, second: &[ValueId]) -> Vec<ValueId> {
        let mut values = self.optimizer.trainable(m);
        values.extend(self.branch.iter().flat_map(|branch| branch.trainable(second)));
        values
    }

    /// Adds the update of what trains, by gradients in that order.
    fn step(&self, m: &mut ModelGraph, second: &[ValueId], gradients: &[ValueId]) -> Result<()> {
        let factor = self.optimizer.shortening(&mut m.graph, gradients)?;
        let (own, others) = gradients.split_at(self.optimizer.positions().count());
        let parameters = m.parameters.clone();
        self.optimizer.update_of(m, &parameters, own, factor)?;
        match self.branch {
            Some(branch) => branch.update(m, second, others, factor),
            None => Ok(()),
        }
    }

    /// By the `count` loaded images.
    pub fn whole(
        &self,
        session: &mut Session,
        count: usize,
        totals: &mut Totals,
        free: Option<&Free>,
    ) -> Result<()> {
        let variant = self.config.kind as u32;
        if let Some(perturbation) = self.perturbation {
            let losses = |m: &mut ModelGraph, mode| Ok(self.losses(m, mode)?.0);
            perturbation.apply(session, count, variant, self.mode, losses)?;
        }
        session.run_variant("train", variant, count, |m| {
            let (loss, second) = self.losses(m, self.mode)?;
            let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / count as f32 }), &[loss.losses])?;
            let mut wrt = self.trainable(m, &second);
            let weights = wrt.len();
            wrt.extend(free.map(|_| m.adversarial));
            let gradients = differentiate(&mut m.graph, mean, &wrt)?;
            let (of_weights, of_images) = gradients.split_at(weights);
            self.step(m, &second, of_weights)?;
            totals.count(m, &loss)?;
            match (free, of_images) {
                (Some(free), &[of_images]) => free.step(m, of_images),
                _ => Ok(()),
            }
        })?;
        match self.perturbation {
            Some(perturbation) => perturbation.restore(session),
            None => Ok(()),
        }
    }

    /// By images in parts: the gradient is that of the mean over all.
    pub fn in_parts(
        &self,
        session: &mut Session,
        sums: &Sums,
        parts: &[Found<'_>],
        totals: &mut Totals,
    ) -> Result<()> {
        let of = parts.iter().map(|found| found.part.len()).sum::<usize>();
        let variant = of as u32 * KINDS + self.config.kind as u32;
        let visit = |session: &mut Session, each: &mut dyn FnMut(&mut Session, usize) -> Result<()>| {
            for found in parts {
                found.load(session)?;
                if let Some(teacher) = self.teacher {
                    teacher.recall(session, &found.said);
                }
                if let Some(mma) = self.mma {
                    mma.recall(session, found.part);
                }
                each(session, found.part.len())?;
            }
            Ok(())
        };
        if let Some(perturbation) = self.perturbation {
            let losses = |m: &mut ModelGraph, mode| Ok(self.losses(m, mode)?.0);
            perturbation.apply_in_parts(session, sums, (of, variant), self.mode, visit, losses)?;
        }
        sums.reset(session)?;
        visit(session, &mut |session, count| {
            session.run_variant("train on a part", variant, count, |m| {
                let (loss, second) = self.losses(m, self.mode)?;
                let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / of as f32 }), &[loss.losses])?;
                let wrt = self.trainable(m, &second);
                let gradients = differentiate(&mut m.graph, mean, &wrt)?;
                sums.add(m, &gradients)?;
                totals.count(m, &loss)
            })
        })?;
        session.run("update", 1, |m| {
            let (gradients, second) = (sums.values(m), self.branch.map_or_else(Vec::new, |b| b.values(m)));
            self.step(m, &second, &gradients)
        })?;
        match self.perturbation {
            Some(perturbation) => perturbation.restore(session),
            None => Ok(()),
        }
    }
}

/// A part of a batch with what was found for it before the update.
pub(super) struct Found<'a> {
    pub part: &'a Batch,
    /// Its adversarial images.
    pub images: Vec<f32>,
    /// What the teacher that guides says of it; nothing where none does.
    pub said: Vec<Vec<f32>>,
}

impl Found<'_> {
    /// Loads the part with its adversarial images.
    pub fn load(&self, session: &mut Session) -> Result<()> {
        session.load(&self.part.images, &self.part.labels, &self.part.indices)?;
        let adversarial = session.buffers().adversarial;
        session.device().write(adversarial, &self.images);
        Ok(())
    }
}
