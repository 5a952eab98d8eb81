//! The adversary that training meets: the recipe's attack on each batch.

use std::sync::Arc;

use super::attack::{AttackConfig, AttackObjective};
use super::formula::Formula;
use super::guide::Teacher;
use super::mixup::Mixup;
use super::radii::Moment;
use crate::attacks::{Attack, Objective};
use crate::error::Result;
use crate::graph::Variable;
use crate::loss::Loss;
use crate::network::BatchNormMode;
use crate::ops::{Copy, Op};
use crate::random::Purpose;
use crate::session::{Images, Session};

/// An attack as a recipe sets it, with what it keeps on the device.
pub struct Adversary {
    config: AttackConfig,
    /// What is attacked instead of whole images.
    mixup: Option<Arc<Mixup>>,
    /// Logarithms of the class probabilities of the clean images: what the objective `kl` leaves.
    clean: Option<Variable>,
    /// Who has looked at the clean images, and how much of its guide is raised.
    guide: Option<(Arc<Teacher>, f32)>,
}

impl Adversary {
    /// What a recipe's attack raises; `teacher` is the one that guides, if one does.
    pub fn new(config: &AttackConfig, teacher: Option<&Arc<Teacher>>, session: &mut Session) -> Result<Self> {
        let clean = match config.objective {
            AttackObjective::Ce => None,
            AttackObjective::Kl => {
                let len = session.capacity() * session.classes();
                Some(session.device().variable(len)?)
            }
        };
        let guide = teacher.cloned().zip(config.guide.filter(|&part| part > 0.0));
        Ok(Self { config: config.clone(), mixup: None, clean, guide })
    }

    /// Whether the teacher must have looked at the images before they are attacked.
    pub(super) const fn is_guided(&self) -> bool {
        self.guide.is_some()
    }

    /// Whether an image is attacked as if it were alone: nothing that is kept of the batch goes with it.
    pub(super) const fn sees_single_images(&self) -> bool {
        self.mixup.is_none() && self.clean.is_none() && self.guide.is_none()
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
        if self.clean.is_some() || self.mixup.is_some() || self.guide.is_some() {
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
        match (self.clean, &self.mixup, &self.guide) {
            (None, Some(mixup), _) => mixup.gradient(session, count),
            (None, None, Some((teacher, part))) => guided_gradient(session, count, teacher, *part),
            (None, None, None) => session.gradient(count, Loss::CrossEntropy),
            (Some(clean), _, _) => kl_gradient(session, count, clean),
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
        m.ascend(logits, divergence)
    })
}

/// Gradient of the sum of the cross-entropy and a part of the guide's term at the adversarial images.
fn guided_gradient(session: &mut Session, count: usize, teacher: &Teacher, part: f32) -> Result<()> {
    session.run("guided gradient", count, |m| {
        let forward = m.forward(Images::Adversarial, BatchNormMode::Running)?;
        let loss = Loss::CrossEntropy.add(m, forward.logits)?;
        let distance = teacher.weighted_distance(m, &forward)?;
        let distance = m.graph.times(part, distance)?;
        let losses = m.graph.plus(loss, distance)?;
        m.ascend(forward.logits, losses)
    })
}
