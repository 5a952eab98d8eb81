//! Clean and robust accuracy, measured so that they can be trusted.
//!
//! An attack's word is never taken for its success: the images that it stored are classified again,
//! and audited on the host for norm, range and finiteness.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::attacks::{AttackSpec, Ball, Objective};
use crate::data::{Batch, Dataset, Loader, LoaderOptions};
use crate::error::{Error, Result};
use crate::ops::Norm;
use crate::random::Purpose;
use crate::report::{AttackResult, CleanResult, EvaluationReport, Warning, WorstCase};
use crate::session::{Images, Session};

/// How to evaluate.
pub struct EvaluateOptions<'a> {
    pub attacks: &'a [AttackSpec],
    pub batch: usize,
    pub seed: u64,
    /// Set by another thread to stop between batches.
    pub stop: &'a AtomicBool,
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug)]
pub struct EvaluateProgress<'a> {
    pub images_done: usize,
    pub images: usize,
    pub clean_correct: u64,
    /// The attack that ran last, and the images that withstood it.
    pub attack: Option<(&'a str, u64)>,
    /// Part of the whole work that is done, 0 to 1.
    pub fraction: f64,
}

/// Which images were classified correctly, in file order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    pub clean: Vec<bool>,
    /// For each attack: correct both clean and attacked.
    pub robust: Vec<Vec<bool>>,
    /// For each attack: seconds spent.
    pub seconds: Vec<f64>,
    /// Images whose gradient was exactly zero everywhere at the clean image.
    pub zero_gradients: usize,
}

/// Attacks every image of `data` with every attack.
pub fn evaluate(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    progress: impl FnMut(EvaluateProgress<'_>),
) -> Result<Outcome> {
    evaluate_and_keep(session, data, options, progress, |_, _, _| Ok(()))
}

/// As [`evaluate`], and hands what each attack found to `keep`: the attack's position, the clean
/// batch, and its adversarial images after the audit.
pub fn evaluate_and_keep(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    mut progress: impl FnMut(EvaluateProgress<'_>),
    mut keep: impl FnMut(usize, &Batch, &[f32]) -> Result<()>,
) -> Result<Outcome> {
    let attacks: Vec<_> = options.attacks.iter().map(AttackSpec::build).collect();
    // Passes that an image takes, as a measure of the work.
    let work: Vec<f64> =
        options.attacks.iter().map(|a| f64::from(a.restarts) * f64::from(a.steps) * 2.0 + 1.0).collect();
    let total = (1.0 + work.iter().sum::<f64>()) * data.len().max(1) as f64;
    let mut done = 0.0;
    let mut outcome = Outcome {
        robust: vec![Vec::with_capacity(data.len()); attacks.len()],
        seconds: vec![0.0; attacks.len()],
        ..Outcome::default()
    };
    let batch = options.batch.min(session.capacity());
    for part in Loader::new(data, LoaderOptions { batch, ..LoaderOptions::default() })? {
        let count = part.labels.len();
        session.load(&part.images, &part.labels, &part.indices)?;
        session.start_clean(count)?;
        session.score(count)?;
        let clean = correct(session, count)?;
        done += count as f64;
        outcome.clean.extend(&clean);
        let clean_correct = outcome.clean.iter().filter(|c| **c).count() as u64;
        let images_done = outcome.clean.len();
        progress(EvaluateProgress {
            images_done,
            images: data.len(),
            clean_correct,
            attack: None,
            fraction: done / total,
        });
        for (i, attack) in attacks.iter().enumerate() {
            if options.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let start = Instant::now();
            let mut objective = Objective::new(session, count, options.seed, Purpose::AttackStart, 0);
            attack.perturb(&mut objective)?;
            session.score(count)?;
            let withstood = correct(session, count)?;
            let images = session.read_adversarial(count)?;
            audit(attack.name(), &attack.ball(), &part.images, &images, count)?;
            keep(i, &part, &images)?;
            outcome.seconds[i] += start.elapsed().as_secs_f64();
            outcome.robust[i].extend(clean.iter().zip(&withstood).map(|(c, w)| *c && *w));
            done += work[i] * count as f64;
            let robust = outcome.robust[i].iter().filter(|r| **r).count() as u64;
            progress(EvaluateProgress {
                images_done,
                images: data.len(),
                clean_correct,
                attack: Some((attack.name(), robust)),
                fraction: done / total,
            });
        }
        if !attacks.is_empty() {
            session.start_clean(count)?;
            session.gradient(count)?;
            let gradient = session.read_gradient(count)?;
            let per_image = gradient.len() / count;
            outcome.zero_gradients +=
                gradient.chunks_exact(per_image).filter(|g| g.iter().all(|&v| v == 0.0)).count();
        }
        if options.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
    }
    Ok(outcome)
}

fn correct(session: &mut Session, count: usize) -> Result<Vec<bool>> {
    let buffer = session.buffers().correct;
    Ok(session.read_per_image(buffer, count)?.iter().map(|&c| c == 1.0).collect())
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
            Norm::Linf => differences.fold(0.0, |a, b| if b > a { b } else { a }),
            Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
        };
        // Rounding of x + eps in f32 for pixels near 1.
        if norm > f64::from(ball.eps) * (1.0 + 1e-5) + 1e-7 {
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
        count(&self.clean)
    }

    /// Images that withstood attack `index`.
    pub fn robust_correct(&self, index: usize) -> u64 {
        count(&self.robust[index])
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
                    norm: spec.ball.norm.to_string(),
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

    /// Signs that a number says less than it seems to.
    fn warnings(&self, attacks: &[AttackSpec], classes: usize) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |flag: &str, message: String| warnings.push(Warning { flag: flag.into(), message });
        let images = self.clean.len() as f64;
        let clean = self.clean_correct() as f64 / images.max(1.0);
        let chance = 1.0 / classes as f64;
        if images >= 100.0 && clean < chance + 3.0 * (chance * (1.0 - chance) / images).sqrt() {
            warn(
                "clean-near-chance",
                format!(
                    "clean accuracy {:.1}% is what guessing among {classes} classes gives: check --mean and --std, \
                     the order of the classes, and that the data is what the model was trained on",
                    100.0 * clean
                ),
            );
        }
        if self.zero_gradients > 0 {
            warn(
                "zero-gradient",
                format!(
                    "{} image(s) have a gradient of exactly zero: attacks that follow the gradient cannot move \
                     them, and their robustness is overestimated",
                    self.zero_gradients
                ),
            );
        }
        for (i, weak) in attacks.iter().enumerate().filter(|(_, a)| a.kind == "fgsm") {
            for (j, strong) in
                attacks.iter().enumerate().filter(|(_, a)| a.kind == "pgd" && a.ball == weak.ball)
            {
                let (weak, robust) = (self.robust_correct(i), self.robust_correct(j));
                if robust > weak {
                    warn(
                        "pgd-weaker-than-fgsm",
                        format!(
                            "PGD with {} steps leaves {robust} images robust, FGSM only {weak}: its step or number \
                             of steps is wrong, or the model masks its gradients",
                            strong.steps
                        ),
                    );
                }
            }
        }
        warnings
    }
}

fn count(flags: &[bool]) -> u64 {
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

/// Class probabilities of each image of a batch: softmax of the logits, row-major.
pub fn probabilities(session: &mut Session, images: &[f32], count: usize) -> Result<Vec<f32>> {
    let zeros = vec![0; count];
    session.load(images, &zeros, &zeros)?;
    let mut values = session.logits(count, Images::Clean)?;
    for row in values.chunks_exact_mut(session.classes()) {
        let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| if a >= b { a } else { b });
        row.iter_mut().for_each(|z| *z = (*z - largest).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|z| *z /= sum);
    }
    Ok(values)
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
    fn worst_case_counts_images_that_withstand_everything() {
        let outcome = Outcome {
            clean: vec![true, true, true, false],
            robust: vec![vec![true, true, false, false], vec![false, true, true, false]],
            seconds: vec![0.0; 2],
            zero_gradients: 0,
        };
        assert_eq!((outcome.clean_correct(), outcome.robust_correct(0), outcome.worst_case()), (3, 2, 1));
    }
}
