//! IAAT, instance-adaptive adversarial training: Balaji, Goldstein and Hoffman, 2019. The radius of an
//! image grows while the model withstands the attack and shrinks while it does not.

use super::adversary::Adversary;
use super::attack::AttackConfig;
use super::epsilon::{EpsilonConfig, IaatRule};
use super::memory::Memory;
use super::radii::Moment;
use crate::data::{Batch, Dataset};
use crate::error::Result;
use crate::loss::Loss;
use crate::session::Session;

/// Algorithm 2, or another rule, with the step length of the authors' code.
pub(super) struct Iaat {
    memory: Memory,
    attack: AttackConfig,
    /// How much larger the first probe's ball is.
    gamma: f32,
    /// Part of the new radius in the smoothed one.
    beta: f32,
    warmup_epochs: u32,
    rule: IaatRule,
    /// The radius below which none falls.
    smallest: f32,
    /// Line search: the largest radius that is tried.
    largest: f32,
}

impl Iaat {
    /// Every image starts at `attack.eps`, the radius of the warm-up.
    pub fn new(config: &EpsilonConfig, attack: &AttackConfig, data: &Dataset) -> Self {
        Self {
            memory: Memory::new(data, attack.eps.0),
            attack: attack.clone(),
            gamma: config.gamma(),
            beta: config.beta(),
            warmup_epochs: config.warmup_epochs(),
            rule: config.rule.unwrap_or_default(),
            smallest: config.smallest(),
            largest: config.largest(),
        }
    }

    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Adversarial images := what training sees; returns the sum of their radii. By the paper an image that is
    /// misclassified as it is stays as it is.
    pub fn perturb(
        &mut self,
        session: &mut Session,
        adversary: &Adversary,
        batch: &Batch,
        at: Moment,
    ) -> Result<f64> {
        let count = batch.len();
        let attack = |session: &mut Session, radii: &[f32]| {
            let balls: Vec<_> = radii.iter().map(|&r| (r, self.step(r))).collect();
            adversary.perturb_each(session, count, at, &balls)
        };
        let mut radii = self.memory.get(&batch.indices);
        session.start_clean(count)?;
        let right = correct(session, count)?;
        let warm = at.epoch >= self.warmup_epochs;
        if warm && self.rule == IaatRule::LineSearch {
            radii.fill(0.0);
            // Every radius up to the largest: an image may withstand one that is beyond one it does not.
            for k in 1..=(self.largest / self.gamma + 1e-3) as u32 {
                let radius = k as f32 * self.gamma;
                attack(session, &vec![radius; count])?;
                for (found, withstands) in radii.iter_mut().zip(correct(session, count)?) {
                    *found = if withstands { radius } else { *found };
                }
            }
        } else if warm {
            let larger: Vec<f32> = radii.iter().map(|m| m + self.gamma).collect();
            attack(session, &larger)?;
            let withstands_larger = correct(session, count)?;
            attack(session, &radii)?;
            let withstands = correct(session, count)?;
            for (i, m) in radii.iter_mut().enumerate() {
                *m = match self.rule == IaatRule::Code && !right[i] {
                    true => (1.0 - self.beta) * *m,
                    false => self.update(*m, withstands_larger[i], withstands[i]),
                };
            }
        } else if self.rule == IaatRule::Code {
            radii = right.iter().map(|&right| if right { self.attack.eps.0 } else { 0.0 }).collect();
        }
        // By the authors' code what is misclassified is attacked all the same, in its shrinking ball.
        let stays = |right: bool| !right && self.rule != IaatRule::Code;
        let used: Vec<f32> =
            radii.iter().zip(right).map(|(&r, right)| if stays(right) { 0.0 } else { r }).collect();
        attack(session, &used)?;
        self.memory.set(&batch.indices, &radii);
        Ok(used.iter().map(|&r| f64::from(r)).sum())
    }

    /// Step length in a ball of this radius: what reaches its rim in half the steps, or the attack's own.
    fn step(&self, radius: f32) -> f32 {
        let own = self.attack.spec().map_or(0.0, |spec| spec.step);
        own.max(radius / (0.5 * self.attack.steps as f32))
    }

    /// The new radius of an image whose radius was `m`.
    fn update(&self, m: f32, withstands_larger: bool, withstands: bool) -> f32 {
        let wanted = match (withstands_larger, withstands) {
            (true, _) => m + self.gamma,
            (false, true) => m,
            (false, false) => (m - self.gamma).max(self.smallest),
        };
        (1.0 - self.beta) * m + self.beta * wanted
    }
}

/// Whether each adversarial image is classified correctly.
fn correct(session: &mut Session, count: usize) -> Result<Vec<bool>> {
    session.score(count, Loss::CrossEntropy)?;
    session.read_correct(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finetune::{On, Recipe};

    fn iaat(on: &[On], settings: &[&str]) -> Iaat {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        let recipe = Recipe::load_on("iaat", on, &settings).unwrap();
        let data = Dataset::from_pixels("x", [1, 1, 1], vec!["a".to_owned()], vec![0], vec![0]).unwrap();
        Iaat::new(&recipe.epsilon, &recipe.attack, &data)
    }

    /// In 255ths, with the paper's gamma of 1.9 and beta of 0.1.
    fn next(m: f32, larger: bool, same: bool) -> f32 {
        iaat(&[], &[]).update(m / 255.0, larger, same) * 255.0
    }

    #[test]
    fn the_radius_follows_the_probes() {
        for (found, expected) in [
            (next(8.0, true, true), 8.19),
            (next(8.0, true, false), 8.19),
            (next(8.0, false, true), 8.0),
            (next(8.0, false, false), 7.81),
            (next(1.0, false, false), 0.9),
        ] {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    }

    #[test]
    fn radii_move_slowly_and_never_below_zero() {
        for m in [0.0, 0.1, 1.0, 8.0, 30.0] {
            for (larger, same) in [(true, true), (false, true), (false, false)] {
                let next = next(m, larger, same);
                assert!(next >= 0.0 && (next - m).abs() <= 0.19 + 1e-5, "{m} to {next}");
            }
        }
        let constant = iaat(&[], &["epsilon.gamma=0", "epsilon.beta=1"]);
        assert_eq!(constant.update(0.03, false, false), 0.03, "without gamma the radius is constant");
    }

    /// The paper's numbers for ImageNet: gamma 4, and no radius below 4.
    #[test]
    fn radii_have_a_floor_on_imagenet() {
        let iaat = iaat(&[On::Imagenet], &[]);
        let next = |m: f32, larger, same| iaat.update(m / 255.0, larger, same) * 255.0;
        for (found, expected) in
            [(next(16.0, true, true), 16.4), (next(16.0, false, false), 15.6), (next(5.0, false, false), 4.9)]
        {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
        assert!((next(4.0, false, false) - 4.0).abs() < 1e-5);
    }
}
