//! What each image of a batch meets: a ball of the radius that a schedule sets, one of its own, or noise.

use super::adversary::Adversary;
use super::atta::Atta;
use super::attack::AttackKind;
use super::daat::Daat;
use super::epsilon::EpsilonPolicy;
use super::guide::Teacher;
use super::iaat::Iaat;
use super::mma::Mma;
use super::recipe::Recipe;
use crate::data::{Augment, Batch, Dataset};
use crate::error::Result;
use crate::session::Session;

/// When a batch is trained on.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub seed: u64,
    /// Counted from 0.
    pub epoch: u32,
    pub epochs: u32,
    /// The number of the batch within its epoch, from 0.
    pub batch: u32,
    /// In epochs, with the part of the epoch that is done.
    pub time: f64,
    /// The part of an epoch that a batch takes.
    pub span: f64,
    pub rate: f64,
}

pub(super) enum Radii {
    Scheduled,
    Iaat(Iaat),
    Daat(Box<Daat>),
    Mma(Box<Mma>),
    /// Scheduled, from where the attack on each image ended the last time.
    Carried(Atta),
}

impl Radii {
    pub fn new(
        recipe: &Recipe,
        data: &Dataset,
        augment: Option<Augment>,
        session: &mut Session,
    ) -> Result<Self> {
        let (config, attack) = (&recipe.epsilon, &recipe.attack);
        Ok(match config.policy {
            _ if attack.kind == AttackKind::Atta => {
                Self::Carried(Atta::new(attack.reset_epochs.unwrap_or(10), augment, data)?)
            }
            EpsilonPolicy::Mma => Self::Mma(Box::new(Mma::new(attack, data, session)?)),
            EpsilonPolicy::Iaat => Self::Iaat(Iaat::new(config, attack, data)),
            policy if policy.is_daat() => Self::Daat(Box::new(Daat::new(config, attack, data, session)?)),
            _ => Self::Scheduled,
        })
    }

    /// What comes before the attack: learns from the clean images of the loaded batch.
    pub fn learn(&self, session: &mut Session, batch: &Batch, at: Moment) -> Result<()> {
        match self {
            Self::Daat(daat) => daat.learn(session, batch, at),
            _ => Ok(()),
        }
    }

    /// The same from a batch in parts, each of which `load` loads.
    pub fn learn_in_parts(
        &self,
        session: &mut Session,
        parts: &[Batch],
        at: Moment,
        load: impl Fn(&mut Session, &Batch) -> Result<()>,
    ) -> Result<()> {
        let Self::Daat(daat) = self else { return Ok(()) };
        let of = parts.iter().map(Batch::len).sum();
        for part in parts {
            load(session, part)?;
            daat.learn_part(session, part, of)?;
        }
        daat.learned_parts(session, at)
    }

    /// Whether [`Radii::adapt`] does anything.
    pub const fn adapts(&self) -> bool {
        matches!(self, Self::Daat(_))
    }

    /// Adversarial images := what training sees of the loaded batch; returns the sum of their radii.
    pub fn perturb(
        &mut self,
        session: &mut Session,
        recipe: &Recipe,
        adversary: &Adversary,
        teacher: Option<&Teacher>,
        batch: &Batch,
        at: Moment,
    ) -> Result<f64> {
        match self {
            Self::Scheduled => {
                let radius = scheduled(recipe, at);
                match teacher.filter(|_| recipe.replay.is_on(at.epoch) && radius > 0.0) {
                    None => adversary.perturb(session, batch.len(), at, radius)?,
                    Some(teacher) => {
                        let step = recipe.attack.spec_at(radius).map_or(0.0, |spec| spec.step);
                        let distances = teacher.distances(session, batch.len())?;
                        // Without a step, an image stays at its random start: uniform noise.
                        let replayed = |distance| distance > recipe.replay.threshold();
                        let balls: Vec<(f32, f32)> = distances
                            .iter()
                            .map(|&d| (radius, if replayed(d) { 0.0 } else { step }))
                            .collect();
                        adversary.perturb_each(session, batch.len(), at, &balls)?;
                    }
                }
                Ok(f64::from(radius) * batch.len() as f64)
            }
            Self::Iaat(iaat) => iaat.perturb(session, adversary, batch, at),
            Self::Daat(daat) => daat.perturb(session, adversary, batch, at),
            Self::Mma(mma) => mma.perturb(session, adversary, batch, at),
            Self::Carried(atta) => {
                let radius = scheduled(recipe, at);
                if let Some(spec) = recipe.attack.spec_at(radius) {
                    atta.perturb(session, adversary, &spec, batch, at)?;
                }
                Ok(f64::from(radius) * batch.len() as f64)
            }
        }
    }

    /// The search for margins, which its loss is of.
    pub fn mma(&self) -> Option<&Mma> {
        match self {
            Self::Mma(mma) => Some(mma),
            _ => None,
        }
    }

    /// What follows from the updated network for the radii of the next epoch.
    pub fn adapt(&mut self, session: &mut Session, batch: &Batch, at: Moment) -> Result<()> {
        match self {
            Self::Daat(daat) => daat.adapt(session, batch, at.epoch, at.epochs),
            Self::Scheduled | Self::Iaat(_) | Self::Mma(_) | Self::Carried(_) => Ok(()),
        }
    }

    /// The least radius of the training images, the quartiles and the largest, where each has its own.
    pub fn quartiles(&mut self) -> Option<[f32; 5]> {
        let memory = match self {
            Self::Scheduled | Self::Carried(_) => return None,
            Self::Iaat(iaat) => iaat.memory(),
            Self::Daat(daat) => daat.memory(),
            Self::Mma(mma) => mma.memory(),
        };
        let mut radii = memory.all().to_vec();
        radii.sort_by(f32::total_cmp);
        let last = radii.len().checked_sub(1)?;
        Some([0, 1, 2, 3, 4].map(|k| radii[last * k / 4]))
    }

    /// What a checkpoint needs, by name.
    pub fn read(&mut self, session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
        let (memory, mut tensors) = match self {
            Self::Scheduled => return Ok(Vec::new()),
            Self::Carried(atta) => return Ok(vec![atta.read()]),
            Self::Iaat(iaat) => (iaat.memory(), Vec::new()),
            Self::Mma(mma) => (mma.memory(), Vec::new()),
            Self::Daat(daat) => {
                let tensors = daat.read(session)?;
                (daat.memory(), tensors)
            }
        };
        tensors.push((NAME.to_owned(), memory.all().to_vec()));
        Ok(tensors)
    }

    pub fn restore(&mut self, session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        match self {
            Self::Scheduled => Ok(()),
            Self::Carried(atta) => atta.restore(tensors),
            Self::Iaat(iaat) => iaat.memory().restore(NAME, tensors),
            Self::Mma(mma) => mma.memory().restore(NAME, tensors),
            Self::Daat(daat) => {
                daat.restore(session, tensors)?;
                daat.memory().restore(NAME, tensors)
            }
        }
    }
}

/// The radius that the schedule has for all images.
pub(super) fn scheduled(recipe: &Recipe, at: Moment) -> f32 {
    let eps = recipe.attack.spec().map_or(0.0, |attack| attack.ball.eps);
    recipe.epsilon.radius(eps, at.time, f64::from(at.epochs))
}

/// The radii of all training images in a checkpoint.
const NAME: &str = "epsilon";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finetune::testing::eight_images;

    /// Images are replayed from beyond the threshold on: at it they are attacked (ARREST, equation 5).
    #[test]
    fn an_image_at_the_threshold_is_attacked() {
        let (mut session, batch) = eight_images();
        let at = Moment { seed: 1, epoch: 0, epochs: 20, batch: 0, time: 0.5, span: 0.1, rate: 0.01 };
        let recipe = |angle: &str| Recipe::load("arrest", &[format!("replay.angle={angle}")]).unwrap();
        let right = recipe("90");
        let teacher = Teacher::new(&right.guide, &right.replay, &mut session).unwrap().expect("it guides");
        teacher.look(&mut session, 8).unwrap();
        // Features of zeros are as far from all others as a right angle is.
        let mut values = session.read_parameters().unwrap();
        values.iter_mut().for_each(|t| t.data.fill(0.0));
        session.write_parameters(&values).unwrap();
        assert_eq!(teacher.distances(&mut session, 8).unwrap(), [right.replay.threshold(); 8]);
        let adversary = Adversary::new(&right.attack, None, &mut session).unwrap();
        let loss = session.buffers().loss;
        for (recipe, attacked) in [(right, 8), (recipe("89.9"), 0)] {
            session.device().write(loss, &[-1.0; 8]);
            let teacher = Some(&teacher);
            Radii::Scheduled.perturb(&mut session, &recipe, &adversary, teacher, &batch, at).unwrap();
            let losses = session.read_per_image(loss, 8).unwrap();
            assert_eq!(losses.iter().filter(|&&l| l != -1.0).count(), attacked);
        }
    }
}
