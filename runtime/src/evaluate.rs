//! Clean and robust accuracy, measured so that they can be trusted.
//!
//! An attack's word is never taken for its success: the images that it returned are classified
//! again, and audited on the host for norm, range and finiteness. Images that are misclassified
//! without an attack are not attacked, and an image leaves the batch with the first attempt
//! (restart or target) that fools it: what is left shares the device among fewer.

mod signs;
mod transfer;
mod warnings;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub use signs::Signs;
pub use transfer::evaluate_transfer;

use crate::attacks::{Attack, AttackSpec, Ball, Objective};
use crate::data::{Batch, Dataset, Loader, LoaderOptions};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::ops::Norm;
use crate::random::Purpose;
use crate::report::{AttackResult, CleanResult, EvaluationReport, WorstCase};
use crate::session::Session;

/// How to evaluate.
pub struct EvaluateOptions<'a> {
    pub attacks: &'a [AttackSpec],
    pub batch: usize,
    pub seed: u64,
    /// Set by another thread to stop between batches.
    pub stop: &'a AtomicBool,
}

/// Which images an attack meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// Every attack meets every image that is classified correctly.
    #[default]
    Independent,
    /// Only images that withstood the attacks before: the order of AutoAttack.
    InTurn,
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug)]
pub struct EvaluateProgress<'a> {
    pub images_done: usize,
    pub images: usize,
    pub clean_correct: u64,
    /// The attack that runs, and the images that withstand it so far.
    pub attack: Option<(&'a str, u64)>,
    /// The attempt of the attack that runs, from 0, and how many there are.
    pub attempt: (u32, u32),
    /// Part of the whole work that is done, 0 to 1.
    pub fraction: f64,
}

/// Which images were classified correctly, in file order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    pub clean: Vec<bool>,
    /// For each attack: correct both clean and attacked; of attacks in turn, also by those before.
    pub robust: Vec<Vec<bool>>,
    /// For each attack: seconds spent.
    pub seconds: Vec<f64>,
    /// Images whose gradient was exactly zero everywhere at the clean image.
    pub zero_gradients: usize,
    pub order: Order,
    pub signs: Signs,
    /// Classes that no image has.
    pub absent_classes: Vec<usize>,
}

/// Attacks every image of `data` with every attack.
pub fn evaluate(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    progress: impl FnMut(EvaluateProgress<'_>),
) -> Result<Outcome> {
    evaluate_and_keep(session, data, options, Order::Independent, progress, |_, _, _| Ok(()))
}

/// As [`evaluate`], in the given order, and hands what each attack found to `keep`: the attack's
/// position, an image's position in `data`, and the image after the audit. `keep` gets every image of
/// every attack at least once; what it gets last counts. Of an image that is not attacked, it gets
/// the clean one.
pub fn evaluate_and_keep(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    order: Order,
    mut progress: impl FnMut(EvaluateProgress<'_>),
    mut keep: impl FnMut(usize, usize, &[f32]) -> Result<()>,
) -> Result<Outcome> {
    let absent = |class: &usize| !data.labels().contains(&(*class as u32));
    let mut outcome = Outcome {
        order,
        absent_classes: (0..session.classes()).filter(absent).collect(),
        ..Outcome::default()
    };
    let batch = options.batch.min(session.capacity());
    let attacks: Vec<_> = options.attacks.iter().map(AttackSpec::build).collect();
    let mut work = Work::new(options.attacks, &attacks, session.classes());
    let mut clean_losses = Vec::with_capacity(data.len());
    for part in Loader::new(data, LoaderOptions { batch, ..LoaderOptions::default() })? {
        check_stop(options)?;
        let count = part.len();
        session.load(&part.images, &part.labels, &part.indices)?;
        if outcome.clean.is_empty() {
            outcome.signs.look(session, count)?;
        }
        session.start_clean(count)?;
        if attacks.is_empty() {
            session.score(count, Loss::CrossEntropy)?;
        } else {
            session.gradient(count, Loss::CrossEntropy)?;
            let gradient = session.read_gradient(count)?;
            let images = gradient.chunks_exact(gradient.len() / count);
            outcome.zero_gradients += images.filter(|g| g.iter().all(|&v| v == 0.0)).count();
        }
        outcome.clean.extend(session.read_correct(count)?);
        clean_losses.extend(session.read_per_image(session.buffers().loss, count)?);
        progress(EvaluateProgress {
            images_done: outcome.clean.len(),
            images: data.len(),
            clean_correct: outcome.clean_correct(),
            attack: None,
            attempt: (0, 1),
            fraction: work.clean(outcome.clean.len() as f64 / data.len() as f64),
        });
    }

    let mut robust = outcome.clean.clone();
    for (i, attack) in attacks.iter().enumerate() {
        let start = Instant::now();
        if order == Order::Independent {
            robust.clone_from(&outcome.clean);
        }
        for at in (0..data.len()).filter(|&at| !robust[at]) {
            keep(i, at, &Batch::gather(data, &[at as u32]).images)?;
        }
        let mut losses = LossRise::default();
        let attempts = attack.attempts(session.classes());
        for attempt in 0..attempts {
            let left: Vec<u32> = (0..data.len() as u32).filter(|&at| robust[at as usize]).collect();
            for (n, part) in left.chunks(batch).enumerate() {
                check_stop(options)?;
                // Equal sizes share compiled programs; the images that fill up are not looked at.
                let mut positions = part.to_vec();
                positions.resize(filled(part.len(), batch), part[0]);
                let filled = Batch::gather(data, &positions);
                let count = filled.len();
                session.load(&filled.images, &filled.labels, &filled.indices)?;
                let mut objective = Objective::new(session, count, options.seed, Purpose::AttackStart, 0);
                attack.attempt(&mut objective, attempt)?;
                session.score(count, Loss::CrossEntropy)?;
                let withstood = session.read_correct(count)?;
                let loss = session.read_per_image(session.buffers().loss, count)?;
                let images = session.read_adversarial(count)?;
                let len = images.len() / count;
                audit(attack.name(), &attack.ball(), &filled.images, &images, count)?;
                for (k, &at) in part.iter().enumerate() {
                    let at = at as usize;
                    robust[at] = withstood[k];
                    if attempt == 0 {
                        losses.add(clean_losses[at], loss[k]);
                    }
                    if attempt == 0 || !withstood[k] {
                        keep(i, at, &images[k * len..][..len])?;
                    }
                }
                let images_done = (n * batch + part.len()).min(left.len());
                progress(EvaluateProgress {
                    images_done,
                    images: left.len(),
                    clean_correct: outcome.clean_correct(),
                    attack: Some((attack.name(), count_of(&robust))),
                    attempt: (attempt, attempts),
                    fraction: work.attack(i, attempt, images_done as f64 / left.len() as f64),
                });
            }
        }
        work.done(i);
        outcome.signs.loss_rise.push(losses.mean());
        outcome.robust.push(robust.clone());
        outcome.seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(outcome)
}

fn check_stop(options: &EvaluateOptions<'_>) -> Result<()> {
    if options.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}

/// The size of the batch that `count` images run in: few distinct ones, since each has its programs.
fn filled(count: usize, batch: usize) -> usize {
    let sizes = [batch / 16, batch / 8, batch / 4, batch / 2, batch - batch / 4];
    sizes.into_iter().find(|&size| size >= count).unwrap_or(batch)
}

/// How much the loss of images rises in an attack.
#[derive(Default)]
struct LossRise {
    sum: f64,
    images: usize,
}

impl LossRise {
    fn add(&mut self, clean: f32, attacked: f32) {
        self.sum += f64::from(attacked) - f64::from(clean);
        self.images += 1;
    }

    /// `None` where no image was attacked.
    fn mean(&self) -> Option<f64> {
        (self.images > 0).then(|| self.sum / self.images as f64)
    }
}

/// The work of an evaluation in forward passes of the data set, to tell how far it is.
struct Work {
    attacks: Vec<(f64, u32)>,
    done: f64,
}

impl Work {
    fn new(specs: &[AttackSpec], attacks: &[Box<dyn Attack>], classes: usize) -> Self {
        let mut work = Vec::with_capacity(specs.len());
        for (spec, attack) in specs.iter().zip(attacks) {
            let attempts = attack.attempts(classes);
            work.push((f64::from(attempts) * f64::from(spec.steps) * spec.passes() + 1.0, attempts));
        }
        Self { attacks: work, done: 0.0 }
    }

    fn part(&self, done: f64) -> f64 {
        done / (1.0 + self.attacks.iter().map(|(work, _)| work).sum::<f64>())
    }

    /// The part of everything, when `part` of the clean images are done.
    fn clean(&mut self, part: f64) -> f64 {
        self.done = part;
        self.part(self.done)
    }

    /// The part of everything, when `part` of an attempt is done.
    fn attack(&self, i: usize, attempt: u32, part: f64) -> f64 {
        let (work, attempts) = self.attacks[i];
        self.part(self.done + work * (f64::from(attempt) + part) / f64::from(attempts))
    }

    fn done(&mut self, i: usize) {
        self.done += self.attacks[i].0;
    }
}

/// Refuses adversarial images outside their ball, outside [0, 1], or not finite.
fn audit(name: &str, ball: &Ball, clean: &[f32], found: &[f32], count: usize) -> Result<()> {
    let fault =
        |what: String| Error::NonFinite(format!("audit of {name}: {what}; this is a fault of the attack"));
    let len = clean.len() / count;
    for (n, (x, y)) in clean.chunks_exact(len).zip(found.chunks_exact(len)).enumerate() {
        if let Some(value) = y.iter().find(|v| !(0.0..=1.0).contains(*v)) {
            return Err(fault(format!("image {n} of the batch holds {value}")));
        }
        let differences = x.iter().zip(y).map(|(x, y)| f64::from((x - y).abs()));
        let norm = match ball.norm {
            // Not a number stays one, and is not inside.
            Norm::Linf => differences.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }),
            Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
        };
        // Rounding of x + eps in f32 for pixels near 1.
        let inside = norm <= f64::from(ball.eps) * (1.0 + 1e-5) + 1e-7;
        if !inside {
            return Err(fault(format!(
                "image {n} of the batch moved by {norm}, the ball's radius is {}",
                ball.eps
            )));
        }
    }
    Ok(())
}

impl Outcome {
    pub fn clean_correct(&self) -> u64 {
        count_of(&self.clean)
    }

    /// Images that withstood attack `index`.
    pub fn robust_correct(&self, index: usize) -> u64 {
        count_of(&self.robust[index])
    }

    /// Images that withstood every attack.
    pub fn worst_case(&self) -> u64 {
        (0..self.clean.len()).filter(|&n| self.clean[n] && self.robust.iter().all(|r| r[n])).count() as u64
    }

    /// The outcome in the words of `evaluate --json`.
    pub fn report(&self, attacks: &[AttackSpec], context: &ReportContext<'_>) -> EvaluationReport {
        let images = self.clean.len() as u64;
        let results: Vec<AttackResult> = attacks
            .iter()
            .enumerate()
            .map(|(i, spec)| {
                let mut result = AttackResult {
                    name: spec.kind.clone(),
                    norm: spec.norm_name(),
                    eps: f64::from(spec.ball.eps),
                    step: f64::from(spec.step),
                    steps: spec.steps,
                    restarts: spec.restarts,
                    robust_correct: 0,
                    robust_accuracy: 0.0,
                    seconds: self.seconds[i],
                };
                result.set_correct(self.robust_correct(i), images);
                result
            })
            .collect();
        EvaluationReport {
            schema: EvaluationReport::SCHEMA,
            model: context.model.to_owned(),
            data: context.data.to_owned(),
            split: context.split.to_owned(),
            images,
            seed: context.seed,
            device: context.device.to_owned(),
            clean: CleanResult::new(self.clean_correct(), images),
            warnings: self.warnings(attacks, context.classes),
            worst_case: WorstCase::new(self.worst_case(), images),
            attacks: results,
        }
    }
}

fn count_of(flags: &[bool]) -> u64 {
    flags.iter().filter(|f| **f).count() as u64
}

/// What a report says about where its numbers come from.
pub struct ReportContext<'a> {
    pub model: &'a str,
    pub data: &'a str,
    pub split: &'a str,
    pub seed: u64,
    pub device: &'a str,
    pub classes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_finds_what_leaves_the_ball() {
        let ball = Ball { norm: Norm::Linf, eps: 0.1 };
        let clean = [0.5, 0.5, 0.0, 1.0];
        assert!(audit("a", &ball, &clean, &[0.6, 0.4, 0.1, 0.9], 2).is_ok());
        assert!(audit("a", &ball, &clean, &[0.61, 0.4, 0.1, 0.9], 2).is_err());
        assert!(audit("a", &ball, &clean, &[0.6, 0.4, -0.01, 0.9], 2).is_err());
        assert!(audit("a", &ball, &clean, &[0.6, 0.4, 0.1, f32::NAN], 2).is_err());
        let ball = Ball { norm: Norm::L2, eps: 0.1 };
        assert!(audit("a", &ball, &clean, &[0.58, 0.56, 0.0, 1.0], 2).is_ok());
        assert!(audit("a", &ball, &clean, &[0.58, 0.58, 0.0, 1.0], 2).is_err());
    }

    #[test]
    fn batches_come_in_few_sizes() {
        let sizes: std::collections::BTreeSet<usize> = (1..=128).map(|n| filled(n, 128)).collect();
        assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [8, 16, 32, 64, 96, 128]);
        for batch in 1..40 {
            assert!((1..=batch).all(|n| (n..=batch).contains(&filled(n, batch))), "{batch}");
        }
    }

    #[test]
    fn worst_case_counts_images_that_withstand_everything() {
        let outcome = Outcome {
            clean: vec![true, true, true, false],
            robust: vec![vec![true, true, false, false], vec![false, true, true, false]],
            seconds: vec![0.0; 2],
            ..Outcome::default()
        };
        assert_eq!((outcome.clean_correct(), outcome.robust_correct(0), outcome.worst_case()), (3, 2, 1));
    }
}
