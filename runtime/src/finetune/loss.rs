//! What training minimises: the axis `[loss]`. Every loss is one number for each image, whose mean
//! over the batch is differentiated.

mod alp;
mod lbgat;
mod mart;
mod mixed;
mod trades;

use serde::{Deserialize, Serialize};

use super::attack::{AttackConfig, AttackKind};
use super::formula::Formula;
use crate::error::{Error, Result};
use crate::graph::ValueId;
use crate::network::{BatchNormMode, Forward};
use crate::session::{Images, ModelGraph};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Cross-entropy on clean images.
    Clean,
    /// Cross-entropy on adversarial images (Madry et al., 2018).
    Adversarial,
    /// Both: the mean of the two, or clean + `beta` * adversarial where `beta` is given.
    Mixed,
    /// Cross-entropy on clean images + `beta` * KL between clean and adversarial predictions (Zhang et
    /// al., 2019).
    Trades,
    /// Boosted cross-entropy on adversarial images + `beta` * KL weighted by 1 - p(label) on clean ones
    /// (Wang et al., 2020).
    Mart,
    /// The mean of both cross-entropies + `beta` * squared distance of the logits (Kannan et al., 2018).
    Alp,
    /// Cross-entropies of both labels of attacked mixtures of two images (Rice et al., 2020).
    Mixup,
    /// The same of mixtures of clean images and of mixtures of attacked ones, half each (Lamb et al., 2019).
    Interpolated,
    /// Clean images, and those at the boundary that is nearer than `attack.eps`, 1 to 2 (Ding et al., 2020).
    Mma,
    /// Distance of the logits to those of a second network, trained beside on clean images, + `beta` * KL
    /// between clean and adversarial predictions (Cui et al., 2021).
    Lbgat,
}

impl LossKind {
    const fn has_beta(self) -> bool {
        matches!(self, Self::Mixed | Self::Trades | Self::Mart | Self::Alp | Self::Lbgat)
    }

    /// Whether it needs more than the images and the network.
    pub(super) const fn has_state(self) -> bool {
        matches!(self, Self::Mixup | Self::Interpolated | Self::Mma | Self::Lbgat)
    }
}

/// The table `[loss]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    pub kind: LossKind,
    /// Weight of the last term. When absent 6 for trades, 5 for mart, 0.5 for alp, 0 for lbgat; mixed then
    /// takes the mean of its terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f32>,
}

/// The loss of a batch in a training graph.
pub struct BatchLoss {
    /// The loss of each image: the sum of its terms.
    pub losses: ValueId,
    /// What the loss is made of, by name, with the weights that they have in it.
    pub terms: Vec<Term>,
    /// The pass that training accuracy is counted on: that of the adversarial images, where there are
    /// any.
    pub forward: Forward,
}

/// A name, and a value for each image.
pub type Term = (&'static str, ValueId);

impl LossConfig {
    pub(super) fn check(&self, attack: &AttackConfig) -> Result<()> {
        let fault = |message: &str| Err(Error::Config(message.to_owned()));
        let attacks = attack.kind != AttackKind::None;
        if self.kind == LossKind::Clean && attacks {
            return fault(
                "loss.kind = clean trains on clean images only; set attack.kind = none, or loss.kind = adversarial",
            );
        }
        if self.kind != LossKind::Clean && !attacks {
            let kind = toml::Value::try_from(self.kind).map_or_else(|_| String::new(), |v| v.to_string());
            return fault(&format!("loss.kind = {kind} needs an attack; attack.kind is none"));
        }
        match self.beta {
            Some(_) if !self.kind.has_beta() => fault(
                "loss.beta weighs a second term, which clean and adversarial have not, nor the mixtures of mixup \
                 and interpolated, nor mma; leave it out",
            ),
            Some(beta) if !(beta.is_finite() && beta >= 0.0) => {
                fault(&format!("loss.beta = {beta}: it is finite and not negative"))
            }
            _ => Ok(()),
        }
    }

    /// Adds the forward passes and the loss to a training graph, where the loss is a function of the images
    /// and the network alone. `mode` is that of every pass; where
    /// there are two, the clean one updates the running statistics first.
    pub fn add(&self, m: &mut ModelGraph, mode: BatchNormMode) -> Result<BatchLoss> {
        if self.kind.has_state() {
            return Err(Error::Config(
                "this loss is of mixtures, margins or a second network: a trainer has them".into(),
            ));
        }
        let parameters = m.parameters.clone();
        self.add_beside(m, mode, &parameters)
    }

    /// As [`LossConfig::add`], with other parameters in the pass of clean images that is beside one of attacked ones:
    /// those of a branch.
    pub(super) fn add_beside(
        &self,
        m: &mut ModelGraph,
        mode: BatchNormMode,
        of_clean: &[ValueId],
    ) -> Result<BatchLoss> {
        if matches!(self.kind, LossKind::Clean | LossKind::Adversarial) {
            let images = if self.kind == LossKind::Clean { Images::Clean } else { Images::Adversarial };
            let forward = m.forward(images, mode)?;
            m.graph.set_label("loss");
            let losses = m.graph.cross_entropy(forward.logits, m.labels)?;
            let name = if self.kind == LossKind::Clean { "clean" } else { "adversarial" };
            return Ok(BatchLoss { losses, terms: vec![(name, losses)], forward });
        }
        if self.kind == LossKind::Lbgat {
            return lbgat::add(m, mode, of_clean, self.beta.unwrap_or(0.0));
        }
        let clean = m.forward_with(Images::Clean, of_clean, mode)?.logits;
        let forward = m.forward(Images::Adversarial, mode)?;
        let pair = Pair { clean, adversarial: forward.logits, labels: m.labels };
        m.graph.set_label("loss");
        let graph = &mut m.graph;
        let terms = match self.kind {
            LossKind::Mixed => mixed::terms(graph, &pair, self.beta)?,
            LossKind::Trades => trades::terms(graph, &pair, self.beta.unwrap_or(6.0))?,
            LossKind::Mart => mart::terms(graph, &pair, self.beta.unwrap_or(5.0))?,
            LossKind::Alp => alp::terms(graph, &pair, self.beta.unwrap_or(0.5))?,
            LossKind::Clean
            | LossKind::Adversarial
            | LossKind::Mixup
            | LossKind::Interpolated
            | LossKind::Mma
            | LossKind::Lbgat => unreachable!("they are dealt with elsewhere"),
        };
        let mut losses = terms[0].1;
        for &(_, term) in &terms[1..] {
            losses = graph.plus(losses, term)?;
        }
        Ok(BatchLoss { losses, terms, forward })
    }
}

/// The logits of clean and adversarial images, z and z', and their labels.
struct Pair {
    clean: ValueId,
    adversarial: ValueId,
    labels: ValueId,
}
