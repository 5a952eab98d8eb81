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
use crate::session::{Session, part};

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
    /// Steps of the attacks that radii are chosen by.
    probe_steps: u32,
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
            probe_steps: config.probe_steps.unwrap_or(attack.steps),
            smallest: config.smallest(),
            largest: config.largest(attack),
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
        let mut radii = self.memory.get(&batch.indices);
        session.start_clean(batch.len())?;
        let right = correct(session, batch.len())?;
        let mut found = Found::clean(batch, right.clone());
        let probing = adversary.in_steps(self.probe_steps);
        let mut probe =
            |radii: &[f32], found: &mut Found| self.attack(session, &probing, batch, at, radii, found);
        let warm = at.epoch >= self.warmup_epochs;
        if warm && self.rule == IaatRule::LineSearch {
            radii.fill(0.0);
            // Every radius up to the largest: an image may withstand one that is beyond one it does not.
            for k in 1..=(self.largest / self.gamma + 1e-3) as u32 {
                let radius = k as f32 * self.gamma;
                probe(&vec![radius; batch.len()], &mut found)?;
                for (largest, &withstands) in radii.iter_mut().zip(&found.withstands) {
                    *largest = if withstands { radius } else { *largest };
                }
            }
            radii.iter_mut().for_each(|r| *r = r.max(self.smallest));
        } else if warm {
            // By the authors' code what is misclassified is not probed.
            let is_probed = |i: usize| right[i] || self.rule != IaatRule::Code;
            let of = |radius: &dyn Fn(usize) -> f32| -> Vec<f32> {
                (0..batch.len()).map(|i| if is_probed(i) { radius(i) } else { 0.0 }).collect()
            };
            let larger = of(&|i| radii[i] + self.gamma);
            probe(&larger, &mut found)?;
            let withstands_larger = found.withstands.clone();
            // What withstands the larger ball need not be tried in its own.
            probe(&of(&|i| if withstands_larger[i] { larger[i] } else { radii[i] }), &mut found)?;
            for (i, m) in radii.iter_mut().enumerate() {
                *m = match is_probed(i) {
                    true => self.update(*m, withstands_larger[i], found.withstands[i]),
                    false => ((1.0 - self.beta) * *m).max(self.smallest),
                };
            }
        } else if self.rule == IaatRule::Code {
            radii = right.iter().map(|&right| if right { self.attack.eps.0 } else { 0.0 }).collect();
        }
        // By the authors' code what is misclassified is attacked all the same, in its shrinking ball.
        let stays = |right: bool| !right && self.rule != IaatRule::Code;
        let used: Vec<f32> =
            radii.iter().zip(&right).map(|(&r, &right)| if stays(right) { 0.0 } else { r }).collect();
        if self.probe_steps != adversary.steps() {
            // What probes found is not what training is to see.
            found = Found::clean(batch, right);
        }
        self.attack(session, adversary, batch, at, &used, &mut found)?;
        self.memory.set(&batch.indices, &radii);
        Ok(used.iter().map(|&r| f64::from(r)).sum())
    }

    /// Adversarial images := `found`, after what is missing there is found: the images within their radii. An
    /// attack is a function of the seed, the moment, the weights and the image, so that none is needed where
    /// the radius is what it was.
    fn attack(
        &self,
        session: &mut Session,
        adversary: &Adversary,
        batch: &Batch,
        at: Moment,
        radii: &[f32],
        found: &mut Found,
    ) -> Result<()> {
        let adversarial = session.buffers().adversarial;
        let missing: Vec<bool> = radii.iter().zip(&found.radii).map(|(wanted, had)| wanted != had).collect();
        let positions = part(&missing, batch.len());
        let ball = |i: usize| (radii[i], self.step(radii[i], adversary.steps()));
        let balls = |at: &[usize]| -> Vec<_> { at.iter().map(|&i| ball(i)).collect() };
        if let Some(kept) = adversary.kept().filter(|_| (1..batch.len()).contains(&positions.len())) {
            let (size, balls) = (positions.len(), balls(&positions));
            let whole = session.narrow(batch.len(), positions.clone(), &kept)?;
            adversary.perturb_each(session, size, at, &balls)?;
            let (withstands, images) = (correct(session, size)?, session.read_adversarial(size)?);
            session.widen(whole)?;
            let len = images.len() / size;
            for ((i, withstands), image) in
                positions.into_iter().zip(withstands).zip(images.chunks_exact(len))
            {
                found.withstands[i] = withstands;
                found.images[i * len..][..len].copy_from_slice(image);
            }
        } else if missing.contains(&true) {
            let balls = balls(&(0..batch.len()).collect::<Vec<_>>());
            adversary.perturb_each(session, batch.len(), at, &balls)?;
            found.withstands = correct(session, batch.len())?;
            found.images = session.read_adversarial(batch.len())?;
        }
        found.radii = radii.to_vec();
        session.device().write(adversarial, &found.images);
        Ok(())
    }

    /// Step length in a ball of this radius: what reaches its rim in half the steps, or the attack's own.
    fn step(&self, radius: f32, steps: u32) -> f32 {
        let own = self.attack.spec().map_or(0.0, |spec| spec.step);
        own.max(radius / (0.5 * steps as f32))
    }

    /// The new radius of an image whose radius was `m`.
    fn update(&self, m: f32, withstands_larger: bool, withstands: bool) -> f32 {
        let wanted = match (withstands_larger, withstands) {
            (true, _) => m + self.gamma,
            // Exactly, so that what was found there serves.
            (false, true) => return m,
            (false, false) => (m - self.gamma).max(0.0),
        };
        ((1.0 - self.beta) * m + self.beta * wanted).max(self.smallest)
    }
}

/// What attacks found for the images of a batch, the radii they searched within, and whether the images are still
/// classified correctly.
struct Found {
    images: Vec<f32>,
    radii: Vec<f32>,
    withstands: Vec<bool>,
}

impl Found {
    fn clean(batch: &Batch, right: Vec<bool>) -> Self {
        Self { images: batch.images.clone(), radii: vec![0.0; batch.len()], withstands: right }
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
    use crate::finetune::testing::eight_images;
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

    /// An attack on a part of the batch finds what one on all of it does, bit for bit, and leaves the rest alone.
    #[test]
    fn only_what_is_missing_is_attacked() {
        let (mut session, batch) = eight_images();
        let iaat = iaat(&[], &[]);
        let adversary = Adversary::new(&iaat.attack, None, &mut session).unwrap();
        let at = Moment { seed: 1, epoch: 6, epochs: 20, batch: 2, time: 6.5, span: 0.1, rate: 0.01 };
        let radii: Vec<f32> = (1..=8u8).map(|i| f32::from(i) / 255.0).collect();
        let whole = {
            let mut found = Found::clean(&batch, vec![true; 8]);
            iaat.attack(&mut session, &adversary, &batch, at, &radii, &mut found).unwrap();
            found
        };
        let mut found = Found::clean(&batch, vec![true; 8]);
        // Three of eight at first, which makes four; the third is not asked for and stays clean.
        let mut first = radii.clone();
        for i in [0, 2, 3, 4, 6] {
            first[i] = 0.0;
        }
        iaat.attack(&mut session, &adversary, &batch, at, &first, &mut found).unwrap();
        assert_eq!(found.images[2 * 192..][..192], batch.images[2 * 192..][..192]);
        let mark = vec![0.5; 192];
        found.images[5 * 192..][..192].copy_from_slice(&mark);
        iaat.attack(&mut session, &adversary, &batch, at, &radii, &mut found).unwrap();
        // Five were missing, six are attacked: of the others the first again.
        assert_eq!(found.images[5 * 192..][..192], mark, "it was found before");
        found.images[5 * 192..][..192].copy_from_slice(&whole.images[5 * 192..][..192]);
        assert_eq!(found.images, whole.images);
        assert_eq!(found.withstands, whole.withstands);
        assert_ne!(whole.images, batch.images);
        // The device holds the batch, and what was found for it.
        iaat.attack(&mut session, &adversary, &batch, at, &radii, &mut found).unwrap();
        assert_eq!(session.read_adversarial(8).unwrap(), whole.images);
        assert_eq!(correct(&mut session, 8).unwrap(), whole.withstands);
    }

    /// The paper's numbers for ImageNet: gamma 4, no smoothed radius below 4, and weaker attacks to choose it by
    /// (appendix E.2).
    #[test]
    fn radii_have_a_floor_on_imagenet() {
        let iaat = iaat(&[On::Imagenet], &[]);
        let next = |m: f32, larger, same| iaat.update(m / 255.0, larger, same) * 255.0;
        for (found, expected) in
            [(next(16.0, true, true), 16.4), (next(16.0, false, false), 15.6), (next(5.0, false, false), 4.6)]
        {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
        assert!((next(4.0, false, false) - 4.0).abs() < 1e-5);
        assert_eq!((iaat.probe_steps, iaat.attack.steps), (10, 30));
    }
}
