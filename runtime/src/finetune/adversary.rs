//! The adversary that training meets: the recipe's attack on each batch.

use std::sync::Arc;

use super::attack::{AttackConfig, AttackObjective};
use super::formula::Formula;
use super::mixup::Mixup;
use super::radii::Moment;
use crate::attacks::{Attack, Objective};
use crate::autodiff::differentiate;
use crate::error::Result;
use crate::graph::Variable;
use crate::loss::Loss;
use crate::network::BatchNormMode;
use crate::ops::{Copy, Op, Sum};
use crate::random::Purpose;
use crate::session::{Images, Session};

/// An attack as a recipe sets it, with what it keeps on the device.
pub struct Adversary {
    config: AttackConfig,
    /// What is attacked instead of whole images.
    mixup: Option<Arc<Mixup>>,
    /// Logarithms of the class probabilities of the clean images: what the objective `kl` leaves.
    clean: Option<Variable>,
}

impl Adversary {
    pub fn new(config: &AttackConfig, session: &mut Session) -> Result<Self> {
        let clean = match config.objective {
            AttackObjective::Ce => None,
            AttackObjective::Kl => {
                let len = session.capacity() * session.classes();
                Some(session.device().variable(len)?)
            }
        };
        Ok(Self { config: config.clone(), mixup: None, clean })
    }

    /// Attacks the mixtures of `mixup`, where they are what is attacked.
    pub(super) fn on_mixtures(mut self, mixup: Option<&Arc<Mixup>>) -> Self {
        self.mixup = mixup.filter(|mixup| mixup.is_attacked()).cloned();
        self
    }

    /// Adversarial images := those that the attack finds within `radius` of the `count` clean ones.
    /// They are a function of the seed, the moment, the weights and each image.
    pub(super) fn perturb(&self, session: &mut Session, count: usize, at: Moment, radius: f32) -> Result<()> {
        let Some(attack) = self.config.build(radius, at.epoch, at.epochs) else { return Ok(()) };
        if radius == 0.0 {
            // A ball of one point: the steps of an attack would lead nowhere.
            return session.start_clean(count);
        }
        self.search(session, count, at, &*attack, None)
    }

    /// As [`Adversary::perturb`], with a radius and a step length for each image.
    pub(super) fn perturb_each(
        &self,
        session: &mut Session,
        count: usize,
        at: Moment,
        balls: &[(f32, f32)],
    ) -> Result<()> {
        let Some(attack) = self.config.build(self.config.eps.0, at.epoch, at.epochs) else { return Ok(()) };
        self.search(session, count, at, &*attack, Some(balls))
    }

    fn search(
        &self,
        session: &mut Session,
        count: usize,
        at: Moment,
        attack: &dyn Attack,
        balls: Option<&[(f32, f32)]>,
    ) -> Result<()> {
        self.remember(session, count)?;
        let follow = |session: &mut Session, count| self.follow(session, count);
        let mut objective = Objective::new(session, count, at.seed, Purpose::TrainingAttackStart, at.epoch);
        if self.clean.is_some() || self.mixup.is_some() {
            objective = objective.with_gradient(&follow);
        }
        if let Some(balls) = balls {
            objective = objective.with_balls(balls);
        }
        attack.perturb(&mut objective)
    }

    /// Keeps what the objective needs of the clean images.
    pub fn remember(&self, session: &mut Session, count: usize) -> Result<()> {
        self.clean.map_or(Ok(()), |clean| remember_clean(session, count, clean))
    }

    /// The gradient that the attack follows, at the adversarial images of the first `count`, into
    /// [`Buffers::gradient`](crate::Buffers::gradient); their losses and correctness beside it.
    pub fn follow(&self, session: &mut Session, count: usize) -> Result<()> {
        match (self.clean, &self.mixup) {
            (None, Some(mixup)) => mixup.gradient(session, count),
            (None, None) => session.gradient(count, Loss::CrossEntropy),
            (Some(clean), _) => kl_gradient(session, count, clean),
        }
    }

    /// Both: for a batch that is new.
    pub fn gradient(&self, session: &mut Session, count: usize) -> Result<()> {
        self.remember(session, count)?;
        self.follow(session, count)
    }
}

/// Keeps the predictions for the clean images.
fn remember_clean(session: &mut Session, count: usize, clean: Variable) -> Result<()> {
    session.run("clean predictions", count, |m| {
        let logits = m.logits(Images::Clean, BatchNormMode::Running)?;
        let log_p = m.graph.log_softmax(logits)?;
        let target = m.graph.variable(clean, m.graph.shape(log_p));
        m.graph.update(Op::Copy(Copy), &[log_p], &[target])
    })
}

/// Gradient of the sum of `KL(p || p')` at the adversarial images, p as it was kept (TRADES).
fn kl_gradient(session: &mut Session, count: usize, clean: Variable) -> Result<()> {
    session.run("kl gradient", count, |m| {
        let logits = m.logits(Images::Adversarial, BatchNormMode::Running)?;
        let log_q = m.graph.log_softmax(logits)?;
        let log_p = m.graph.variable(clean, m.graph.shape(log_q));
        let divergence = m.graph.kl(log_p, log_q)?;
        let sum = m.graph.add(Op::Sum(Sum { factor: 1.0 }), &[divergence])?;
        let gradient = differentiate(&mut m.graph, sum, &[m.adversarial])?[0];
        let target = m.graph.variable(m.buffers.gradient, m.graph.shape(gradient));
        m.graph.update(Op::Copy(Copy), &[gradient], &[target])?;
        m.score(logits, divergence)
    })
}
