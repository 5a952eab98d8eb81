//! One update of the weights, by the images of a batch as they are now: at once, or in parts.

use std::sync::Arc;

use super::free::Free;
use super::guide::Teacher;
use super::loss::{BatchLoss, LossConfig};
use super::mixup::Mixup;
use super::mma::Mma;
use super::partner::Partner;
use super::parts::Sums;
use super::totals::Totals;
use super::weights::WeightPerturbation;
use crate::autodiff::differentiate;
use crate::data::Batch;
use crate::error::Result;
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
    pub partner: Option<&'a Partner>,
    pub optimizer: &'a Optimizer,
    pub perturbation: Option<&'a WeightPerturbation>,
    /// Of the passes that train.
    pub mode: BatchNormMode,
}

/// Losses of several kinds in one run have programs of their own, as have parts of batches of several sizes.
const KINDS: u32 = 32;

impl Update<'_> {
    fn losses(&self, m: &mut ModelGraph, mode: BatchNormMode) -> Result<BatchLoss> {
        let loss = match (self.mixup, self.partner, self.mma) {
            (Some(mixup), _, _) => mixup.add(m, mode)?,
            (_, Some(partner), _) => partner.add(m, mode)?,
            (_, _, Some(mma)) => mma.add(m, mode)?,
            (None, None, None) => self.config.add(m, mode)?,
        };
        match self.teacher {
            Some(teacher) => teacher.guide(m, loss),
            None => Ok(loss),
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
            perturbation.apply(session, count, variant, self.mode, |m, mode| self.losses(m, mode))?;
        }
        session.run_variant("train", variant, count, |m| {
            let loss = self.losses(m, self.mode)?;
            let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / count as f32 }), &[loss.losses])?;
            let mut wrt = self.optimizer.trainable(m);
            let own = wrt.len();
            if let Some(partner) = self.partner {
                wrt.extend(partner.trainable(&loss.partner));
            }
            wrt.extend(free.map(|_| m.adversarial));
            let gradients = differentiate(&mut m.graph, mean, &wrt)?;
            let (of_weights, others) = gradients.split_at(own);
            self.optimizer.update(m, of_weights)?;
            if let Some(partner) = self.partner {
                partner.update(m, &loss.partner, others)?;
            }
            totals.count(m, &loss)?;
            match (free, others) {
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
            let losses = |m: &mut ModelGraph, mode| self.losses(m, mode);
            perturbation.apply_in_parts(session, sums, (of, variant), self.mode, visit, losses)?;
        }
        sums.reset(session)?;
        visit(session, &mut |session, count| {
            session.run_variant("train on a part", variant, count, |m| {
                let loss = self.losses(m, self.mode)?;
                let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / of as f32 }), &[loss.losses])?;
                let mut wrt = self.optimizer.trainable(m);
                if let Some(partner) = self.partner {
                    wrt.extend(partner.trainable(&loss.partner));
                }
                let gradients = differentiate(&mut m.graph, mean, &wrt)?;
                sums.add(m, &gradients)?;
                totals.count(m, &loss)
            })
        })?;
        session.run("update", 1, |m| {
            let (own, others) = sums.values(m);
            self.optimizer.update(m, &own)?;
            match self.partner {
                Some(partner) => {
                    let parameters = partner.values(m);
                    partner.update(m, &parameters, &others)
                }
                None => Ok(()),
            }
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
