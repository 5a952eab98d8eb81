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
use crate::session::{Images, Session, part};

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
            AttackObjective::Ce | AttackObjective::Margin => None,
            AttackObjective::Kl => {
                let len = session.capacity() * session.classes();
                Some(session.device().variable(len)?)
            }
        };
        let guide = teacher.cloned().zip(config.guide.filter(|&part| part > 0.0));
        Ok(Self { config: config.clone(), mixup: None, clean, guide })
    }

    /// The same in another number of steps.
    pub(super) fn in_steps(&self, steps: u32) -> Self {
        let config = AttackConfig { steps, ..self.config.clone() };
        Self { config, mixup: self.mixup.clone(), clean: self.clean, guide: self.guide.clone() }
    }

    pub(super) const fn steps(&self) -> u32 {
        self.config.steps
    }

    /// What is kept of each image for its attack, in buffers with a row for each; nothing where images are not attacked
    /// one by one.
    pub(super) fn kept(&self) -> Option<Vec<Variable>> {
        let guide = self.guide.iter().flat_map(|(teacher, _)| teacher.said());
        self.mixup.is_none().then(|| self.clean.into_iter().chain(guide).collect())
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
        self.remember(session, count)?;
        self.search(session, count, at, &*attack, None)
    }

    /// As [`Adversary::perturb`], with a radius and a step length for each image. One that has no step stays where it
    /// starts, and takes no part in the search.
    pub(super) fn perturb_each(
        &self,
        session: &mut Session,
        count: usize,
        at: Moment,
        balls: &[(f32, f32)],
    ) -> Result<()> {
        let eps = self.config.eps.0;
        let Some(attack) = self.config.build(eps, at.epoch, at.epochs) else { return Ok(()) };
        self.remember(session, count)?;
        let moves: Vec<bool> = balls.iter().map(|&(radius, step)| radius > 0.0 && step > 0.0).collect();
        let positions = part(&moves, count);
        let start = self.config.start_at(eps).filter(|_| positions.len() < count);
        let (Some(start), Some(kept)) = (start, self.kept()) else {
            return self.search(session, count, at, &*attack, Some(balls));
        };
        self.search(session, count, at, &*start, Some(balls))?;
        if positions.is_empty() {
            return Ok(());
        }
        let balls: Vec<_> = positions.iter().map(|&i| balls[i]).collect();
        let whole = session.narrow(count, positions, &kept)?;
        self.search(session, balls.len(), at, &*attack, Some(&balls))?;
        session.widen(whole)?;
        Ok(())
    }

    fn search(
        &self,
        session: &mut Session,
        count: usize,
        at: Moment,
        attack: &dyn Attack,
        balls: Option<&[(f32, f32)]>,
    ) -> Result<()> {
        let follow = |session: &mut Session, count| self.follow(session, count);
        let mut objective = Objective::new(session, count, at.seed, Purpose::TrainingAttackStart, at.epoch);
        let plain = self.config.objective == AttackObjective::Ce;
        if !plain || self.mixup.is_some() || self.guide.is_some() {
            objective = objective.with_gradient(&follow).with_kept(self.kept());
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
            (None, None, None) => session.gradient(count, self.config.objective.loss()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finetune::Recipe;
    use crate::finetune::testing::eight_images;

    /// As the last epochs of dra have none to search.
    #[test]
    fn a_ball_of_one_point_is_not_searched() {
        let (mut session, batch) = eight_images();
        let at = Moment { seed: 1, epoch: 55, epochs: 60, batch: 0, time: 55.0, span: 0.1, rate: 0.01 };
        for name in ["dra", "madry", "trades", "fat"] {
            let recipe = Recipe::load(name, &[]).unwrap();
            let adversary = Adversary::new(&recipe.attack, None, &mut session).unwrap();
            adversary.perturb(&mut session, 8, at, 0.1).unwrap();
            let loss = session.buffers().loss;
            session.device().write(loss, &[-1.0; 8]);
            assert!(session.read_adversarial(8).unwrap() != batch.images, "{name}");
            adversary.perturb(&mut session, 8, at, 0.0).unwrap();
            assert!(session.read_adversarial(8).unwrap() == batch.images, "{name}");
            assert_eq!(session.read_per_image(loss, 8).unwrap(), [-1.0; 8], "{name}");
        }
    }

    /// What has no step, or no ball, goes through the network no more often than its start does; all images end where
    /// the attack on the whole batch leaves them.
    #[test]
    fn only_what_moves_is_attacked() {
        let (mut session, batch) = eight_images();
        let at = Moment { seed: 1, epoch: 6, epochs: 20, batch: 2, time: 6.5, span: 0.1, rate: 0.01 };
        let (eps, step) = (0.03, 0.01);
        let images = |session: &mut Session| session.read_adversarial(8).unwrap();
        for (settings, sees_single) in [
            (&[][..], true),
            (&["attack.objective=kl", "attack.start=normal"], true),
            (&["guide.kind=features", "attack.guide=1"], true),
            (&["attack.kind=mi-fgsm"], false),
        ] {
            let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
            let recipe = Recipe::load("madry", &settings).unwrap();
            let teacher =
                Teacher::new(&recipe.guide, &recipe.replay, &mut session).unwrap().map(std::sync::Arc::new);
            if let Some(teacher) = &teacher {
                teacher.look(&mut session, 8).unwrap();
                // Another network than the teacher, so that the guide has a gradient.
                let mut values = session.read_parameters().unwrap();
                values.iter_mut().flat_map(|t| &mut t.data).for_each(|x| *x *= 1.1);
                session.write_parameters(&values).unwrap();
            }
            let adversary = Adversary::new(&recipe.attack, teacher.as_ref(), &mut session).unwrap();
            for moving in [&[][..], &[5], &[1, 2, 6, 7], &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4, 5, 6, 7]] {
                let ball = |i: usize| match moving.contains(&i) {
                    true => (eps, step),
                    false if i.is_multiple_of(2) => (eps, 0.0),
                    false => (0.0, 0.0),
                };
                let balls: Vec<_> = (0..8).map(ball).collect();
                let attack = recipe.attack.build(eps, at.epoch, at.epochs).unwrap();
                adversary.remember(&mut session, 8).unwrap();
                adversary.search(&mut session, 8, at, &*attack, Some(&balls)).unwrap();
                let whole = images(&mut session);
                assert_eq!(whole == batch.images, moving.is_empty() && !sees_single);
                let loss = session.buffers().loss;
                session.device().write(loss, &[-1.0; 8]);
                adversary.perturb_each(&mut session, 8, at, &balls).unwrap();
                assert!(images(&mut session) == whole, "{settings:?}, {moving:?}");
                let attacked =
                    session.read_per_image(loss, 8).unwrap().iter().filter(|&&l| l != -1.0).count();
                let expected = if sees_single { moving.len().next_multiple_of(2) } else { 8 };
                assert_eq!(attacked, expected, "{settings:?}, {moving:?}");
            }
        }
    }
}
