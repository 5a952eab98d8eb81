//! Clean and robust accuracy, measured so that they can be trusted.
//!
//! An attack's word is never taken for its success: the images that it returned are classified
//! again, and audited on the host for norm, range and finiteness. Images that are misclassified
//! without an attack are not attacked, and an image leaves the batch with the first attempt
//! (restart or target) that fools it: what is left shares the device among fewer.

mod ardist;
mod audit;
#[cfg(feature = "data")]
mod corrupted;
mod curve;
mod outcome;
mod signs;
mod transfer;
mod warnings;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub use ardist::{Ardist, Tradeoff};
#[cfg(feature = "data")]
pub use corrupted::{
    Corrupted, CorruptionObserver, CorruptionReport, CorruptionResult, evaluate_corruptions,
};
pub use curve::{Curve, CurvePoint};
pub use outcome::{Distance, Outcome, ReportContext};
use serde::{Deserialize, Serialize};
pub use signs::{LossRise, Signs};
pub use transfer::evaluate_transfer;

use crate::attacks::{AttackSpec, Objective, Passes};
use crate::data::{Batch, Dataset, Loader, LoaderOptions};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::random::Purpose;
use crate::session::Session;
use audit::{audit, distance};
use outcome::{count_of, insert};
use work::Work;

/// How to evaluate.
pub struct EvaluateOptions<'a> {
    pub attacks: &'a [AttackSpec],
    pub batch: usize,
    pub seed: u64,
    /// Set by another thread to stop.
    pub stop: &'a AtomicBool,
}

/// Which images an attack meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// What an evaluation has found so far: from here it can go on.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct EvaluationState {
    /// Of the clean images, the attacks that ended, and, last, the attack under way.
    pub outcome: Outcome,
    /// The attempt of that attack, from 0.
    pub attempt: u32,
    /// The position of the first image that this attempt has not met.
    pub next: usize,
}

/// What an evaluation tells while it runs.
pub trait Observer {
    fn progress(&mut self, _progress: EvaluateProgress<'_>) {}

    /// What an attack found: the attack's position, an image's position in the data set, and the image
    /// after the audit. Every image of every attack comes at least once; what comes last counts. Of
    /// an image that is not attacked, it is the clean one.
    fn keep(&mut self, _attack: usize, _image: usize, _pixels: &[f32]) -> Result<()> {
        Ok(())
    }

    /// Comes after every batch that was attacked.
    fn state(&mut self, _state: &EvaluationState) -> Result<()> {
        Ok(())
    }
}

/// An observer that is told of progress alone.
struct Told<F>(F);

impl<F: FnMut(EvaluateProgress<'_>)> Observer for Told<F> {
    fn progress(&mut self, progress: EvaluateProgress<'_>) {
        (self.0)(progress);
    }
}

/// Attacks every image of `data` with every attack.
pub fn evaluate(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    progress: impl FnMut(EvaluateProgress<'_>),
) -> Result<Outcome> {
    evaluate_with(session, data, options, Order::Independent, None, &mut Told(progress))
}

/// As [`evaluate`], in the given order, from where an earlier one stopped, and with an observer that
/// gets all there is to know. Only the clean images are measured again when it goes on.
///
/// # Errors
/// [`Error::Config`] when `resume` is not of these images and attacks, or when the model now classifies
/// the clean images otherwise.
pub fn evaluate_with(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    order: Order,
    resume: Option<EvaluationState>,
    observer: &mut impl Observer,
) -> Result<Outcome> {
    let batch = options.batch.min(session.capacity());
    let attacks: Vec<_> = options.attacks.iter().map(AttackSpec::build).collect();
    let mut work = Work::new(options.attacks, &attacks, session.classes());
    let (clean, clean_losses) = measure_clean(session, data, options, &mut work, observer)?;
    let mut state = match resume {
        None => EvaluationState { outcome: Outcome { order, ..clean }, ..EvaluationState::default() },
        Some(state) => {
            check_resumed(&state, &clean, order)?;
            state
        }
    };

    for (i, (attack, spec)) in attacks.iter().zip(options.attacks).enumerate() {
        let begun = state.outcome.robust.len();
        if i + 1 < begun {
            work.done(i);
            continue;
        }
        if i == begun {
            state.begin();
            for at in (0..data.len()).filter(|&at| !state.outcome.robust[i][at]) {
                observer.keep(i, at, &Batch::gather(data, &[at as u32]).images)?;
            }
        }
        let attempts = attack.attempts(session.classes());
        for attempt in state.attempt..attempts {
            let robust = &state.outcome.robust[i];
            let left: Vec<u32> =
                (state.next as u32..data.len() as u32).filter(|&at| robust[at as usize]).collect();
            for (n, part) in left.chunks(batch).enumerate() {
                check_stop(options)?;
                let start = Instant::now();
                // Equal sizes share compiled programs; the images that fill up are not looked at.
                let mut positions = part.to_vec();
                positions.resize(filled(part.len(), batch), part[0]);
                let filled = Batch::gather(data, &positions);
                let count = filled.len();
                session.load(&filled.images, &filled.labels, &filled.indices)?;
                let mut objective = Objective::new(session, count, options.seed, Purpose::AttackStart, 0)
                    .with_stop(options.stop);
                attack.attempt(&mut objective, attempt)?;
                let passes = objective.passes();
                session.score(count, Loss::CrossEntropy)?;
                let withstood = session.read_correct(count)?;
                let loss = session.read_per_image(session.buffers().loss, count)?;
                let images = session.read_adversarial(count)?;
                let len = images.len() / count;
                audit(attack.name(), &attack.ball(), &filled.images, &images, count)?;
                let outcome = &mut state.outcome;
                if let Some(total) = outcome.passes.get_mut(i) {
                    // One more forward pass than the attack's: the result is classified again.
                    total.forwards += (passes.forwards + 1) * part.len() as u64;
                    total.gradients += passes.gradients * part.len() as u64;
                }
                for (k, &at) in part.iter().enumerate() {
                    let at = at as usize;
                    outcome.robust[i][at] = withstood[k];
                    if !withstood[k] && spec.minimises() && i < outcome.distances.len() {
                        let image = k * len..(k + 1) * len;
                        let away = distance(&filled.images[image.clone()], &images[image], spec.ball.norm);
                        insert(&mut outcome.distances[i], away as f32);
                    }
                    if attempt == 0 {
                        outcome.signs.loss_rise[i].add(clean_losses[at], loss[k]);
                    }
                    if attempt == 0 || !withstood[k] {
                        observer.keep(i, at, &images[k * len..][..len])?;
                    }
                }
                outcome.seconds[i] += start.elapsed().as_secs_f64();
                let images_done = (n * batch + part.len()).min(left.len());
                observer.progress(EvaluateProgress {
                    images_done,
                    images: left.len(),
                    clean_correct: outcome.clean_correct(),
                    attack: Some((attack.name(), outcome.robust_correct(i))),
                    attempt: (attempt, attempts),
                    fraction: work.attack(i, attempt, images_done as f64 / left.len() as f64),
                });
                state.next = part[part.len() - 1] as usize + 1;
                observer.state(&state)?;
            }
            (state.attempt, state.next) = (attempt + 1, 0);
        }
        work.done(i);
    }
    Ok(state.outcome)
}

/// The clean images: what the model makes of them, and the loss of each.
fn measure_clean(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    work: &mut Work,
    observer: &mut impl Observer,
) -> Result<(Outcome, Vec<f32>)> {
    let absent = |class: &usize| !data.labels().contains(&(*class as u32));
    let absent_classes = (0..session.classes()).filter(absent).collect();
    let mut outcome = Outcome { absent_classes, ..Outcome::default() };
    let mut losses = Vec::with_capacity(data.len());
    let batch = options.batch.min(session.capacity());
    for part in Loader::new(data, LoaderOptions { batch, ..LoaderOptions::default() })? {
        check_stop(options)?;
        let count = part.len();
        session.load(&part.images, &part.labels, &part.indices)?;
        if outcome.clean.is_empty() {
            outcome.signs.look(session, count)?;
        }
        session.start_clean(count)?;
        if options.attacks.is_empty() {
            session.score(count, Loss::CrossEntropy)?;
        } else {
            session.gradient(count, Loss::CrossEntropy)?;
            let gradient = session.read_gradient(count)?;
            let images = gradient.chunks_exact(gradient.len() / count);
            outcome.zero_gradients += images.filter(|g| g.iter().all(|&v| v == 0.0)).count();
        }
        outcome.clean.extend(session.read_correct(count)?);
        losses.extend(session.read_per_image(session.buffers().loss, count)?);
        observer.progress(EvaluateProgress {
            images_done: outcome.clean.len(),
            images: data.len(),
            clean_correct: outcome.clean_correct(),
            attack: None,
            attempt: (0, 1),
            fraction: work.clean(outcome.clean.len() as f64 / data.len() as f64),
        });
    }
    Ok((outcome, losses))
}

impl EvaluationState {
    /// The next attack begins.
    fn begin(&mut self) {
        let outcome = &mut self.outcome;
        let before = match outcome.order {
            Order::Independent => &outcome.clean,
            Order::InTurn => outcome.robust.last().unwrap_or(&outcome.clean),
        };
        outcome.robust.push(before.clone());
        // A state of an earlier version does not know of the attacks before, and so not of this one.
        if outcome.passes.len() == outcome.seconds.len() {
            outcome.passes.push(Passes::default());
        }
        if outcome.distances.len() == outcome.seconds.len() {
            outcome.distances.push(Vec::new());
        }
        outcome.seconds.push(0.0);
        outcome.signs.loss_rise.push(LossRise::default());
        (self.attempt, self.next) = (0, 0);
    }
}

/// Refuses a state of another evaluation.
fn check_resumed(state: &EvaluationState, clean: &Outcome, order: Order) -> Result<()> {
    let images = clean.clean.len();
    if !state.outcome.is_whole(images) || state.next > images || state.outcome.order != order {
        return Err(Error::Config(
            "the saved state is of other images or attacks; start again without it".into(),
        ));
    }
    if state.outcome.clean != clean.clean {
        return Err(Error::Config(
            "the model classifies the clean images otherwise than when the state was saved: another device,              or a model that answers at random; start again without it"
                .into(),
        ));
    }
    Ok(())
}

fn check_stop(options: &EvaluateOptions<'_>) -> Result<()> {
    if options.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}

/// The size of the batch that `count` images run in: few distinct ones, since each has its programs.
fn filled(count: usize, batch: usize) -> usize {
    let sizes = [batch / 16, batch / 8, batch / 4, batch / 2, batch - batch / 4];
    sizes.into_iter().find(|&size| size >= count).unwrap_or(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_in_few_sizes() {
        let sizes: std::collections::BTreeSet<usize> = (1..=128).map(|n| filled(n, 128)).collect();
        assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [8, 16, 32, 64, 96, 128]);
        for batch in 1..40 {
            assert!((1..=batch).all(|n| (n..=batch).contains(&filled(n, batch))), "{batch}");
        }
    }
}
