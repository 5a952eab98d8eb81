//! Clean and robust accuracy, measured so that they can be trusted.
//!
//! An attack's word is never taken for its success: the images that it returned are classified
//! again, and audited on the host for norm, range and finiteness. Images that are misclassified
//! without an attack are not attacked, and an image leaves the batch with the first attempt
//! (restart or target), or the first piece of a long one, that fools it: what is left shares the device
//! among fewer.

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

use crate::attacks::{Attack, AttackSpec, Objective, Passes};
use crate::data::{Batch, Dataset, Loader, LoaderOptions};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::random::Purpose;
use crate::session::Session;
use audit::{audit, distance};
use outcome::{count_of, insert};
use work::{Place, Work};

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
    /// The position of the attack that runs.
    pub position: usize,
    /// Its name, and the images that withstand it so far.
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
    let mut work = Work::new(options.attacks, &attacks, session.classes(), order);
    let (clean, clean_losses) = measure_clean(session, data, options, &mut work, observer)?;
    let right = clean.clean_correct();
    let mut state = match resume {
        None => EvaluationState { outcome: Outcome { order, ..clean }, ..EvaluationState::default() },
        Some(state) => {
            check_resumed(&state, &clean, order)?;
            state
        }
    };

    for (i, (attack, spec)) in attacks.iter().zip(options.attacks).enumerate() {
        let attempts = attack.attempts(session.classes());
        let begun = state.outcome.robust.len();
        if i + 1 < begun {
            work.done(i, attempts, count_of(state.outcome.before(i)) as usize);
            continue;
        }
        if i == begun {
            state.begin();
            for at in (0..data.len()).filter(|&at| !state.outcome.robust[i][at]) {
                observer.keep(i, at, &Batch::gather(data, &[at as u32]).images)?;
            }
        }
        // Of an evaluation that goes on: how many images they met is not known any more.
        work.done(i, state.attempt, count_of(state.outcome.before(i)) as usize);
        for attempt in state.attempt..attempts {
            let robust = &state.outcome.robust[i];
            let left: Vec<u32> =
                (state.next as u32..data.len() as u32).filter(|&at| robust[at as usize]).collect();
            for (n, part) in left.chunks(batch).enumerate() {
                check_stop(options)?;
                let start = Instant::now();
                let mut place = Place {
                    attack: i,
                    attempt,
                    meets: left.len(),
                    met: n * batch,
                    batch: part.len(),
                    part: 0.0,
                    standing: state.outcome.robust_correct(i),
                    right,
                };
                let tell = |place: Place, observer: &mut _| {
                    let images_done = place.met + (place.part * place.batch as f64) as usize;
                    Observer::progress(
                        observer,
                        EvaluateProgress {
                            images_done,
                            images: left.len(),
                            clean_correct: right,
                            position: i,
                            attack: Some((attack.name(), place.standing)),
                            attempt: (attempt, attempts),
                            fraction: work.attack(place),
                        },
                    );
                };
                let mut spent = Passes::default();
                let (mut at, mut from) = (part.to_vec(), Vec::new());
                for piece in 0..attack.pieces() {
                    let last = piece + 1 == attack.pieces();
                    let mut listener = |passes: Passes| {
                        let all = spent + passes;
                        tell(Place { part: work.part(i, all), ..place }, observer);
                    };
                    let met = meet(
                        session,
                        data,
                        options,
                        &**attack,
                        (attempt, piece),
                        (&at, &from),
                        &mut listener,
                    )?;
                    spent = spent + met.passes;
                    let outcome = &mut state.outcome;
                    if let Some(total) = outcome.passes.get_mut(i) {
                        // One more forward pass than the attack's: the result is classified again.
                        total.forwards += (met.passes.forwards + 1) * at.len() as u64;
                        total.gradients += met.passes.gradients * at.len() as u64;
                    }
                    let (mut goes_on, mut images) = (Vec::new(), Vec::new());
                    for (k, &position) in at.iter().enumerate() {
                        let found = &met.images[k * met.len..][..met.len];
                        if met.withstood[k] && !last {
                            goes_on.push(position);
                            images.extend_from_slice(found);
                            continue;
                        }
                        let position = position as usize;
                        outcome.robust[i][position] = met.withstood[k];
                        if !met.withstood[k] && spec.minimises() && i < outcome.distances.len() {
                            let away = distance(&met.clean[k * met.len..][..met.len], found, spec.ball.norm);
                            insert(&mut outcome.distances[i], away as f32);
                        }
                        if attempt == 0 {
                            outcome.signs.loss_rise[i].add(clean_losses[position], met.loss[k]);
                        }
                        if attempt == 0 || !met.withstood[k] {
                            observer.keep(i, position, found)?;
                        }
                    }
                    (at, from) = (goes_on, images);
                    if at.is_empty() {
                        break;
                    }
                }
                state.outcome.seconds[i] += start.elapsed().as_secs_f64();
                (place.met, place.batch) = (place.met + part.len(), 0);
                place.standing = state.outcome.robust_correct(i);
                tell(place, observer);
                state.next = part[part.len() - 1] as usize + 1;
                observer.state(&state)?;
            }
            work.done(i, 1, left.len());
            (state.attempt, state.next) = (attempt + 1, 0);
        }
    }
    Ok(state.outcome)
}

/// What a piece of an attempt made of a batch.
struct Met {
    withstood: Vec<bool>,
    loss: Vec<f32>,
    /// Values of an image.
    len: usize,
    clean: Vec<f32>,
    images: Vec<f32>,
    passes: Passes,
}

/// Attacks the images at positions `at`, from the adversarial images `from` where there are some; what is
/// found is classified again, and audited.
fn meet(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    attack: &dyn Attack,
    (attempt, piece): (u32, u32),
    (at, from): (&[u32], &[f32]),
    listener: &mut dyn FnMut(Passes),
) -> Result<Met> {
    // Equal sizes share compiled programs; the images that fill up are not looked at.
    let batch = options.batch.min(session.capacity());
    let mut positions = at.to_vec();
    positions.resize(filled(at.len(), batch), at[0]);
    let filled = Batch::gather(data, &positions);
    let count = filled.len();
    let len = filled.images.len() / count;
    session.load(&filled.images, &filled.labels, &filled.indices)?;
    if piece > 0 {
        let mut images = from.to_vec();
        (at.len()..count).for_each(|_| images.extend_from_slice(&from[..len]));
        let adversarial = session.buffers().adversarial;
        session.device().write(adversarial, &images);
    }
    let mut objective = Objective::new(session, count, options.seed, Purpose::AttackStart, 0)
        .with_stop(options.stop)
        .with_listener(listener);
    attack.piece(&mut objective, attempt, piece)?;
    let passes = objective.passes();
    session.score(count, Loss::CrossEntropy)?;
    let withstood = session.read_correct(count)?;
    let loss = session.read_per_image(session.buffers().loss, count)?;
    let images = session.read_adversarial(count)?;
    audit(attack.name(), &attack.ball(), &filled.images, &images, count)?;
    Ok(Met { withstood, loss, len, clean: filled.images, images, passes })
}

/// The clean images: what the model makes of them, and the loss of each.
fn measure_clean(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    work: &mut Work,
    observer: &mut impl Observer,
) -> Result<(Outcome, Vec<f32>)> {
    let absent_classes = data.absent_classes(session.classes());
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
            position: 0,
            attack: None,
            attempt: (0, 1),
            fraction: work.clean(outcome.clean.len(), data.len(), outcome.clean_correct()),
        });
    }
    Ok((outcome, losses))
}

impl EvaluationState {
    /// The next attack begins.
    fn begin(&mut self) {
        let outcome = &mut self.outcome;
        let before = outcome.before(outcome.robust.len()).clone();
        outcome.robust.push(before);
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
            "the model classifies the clean images otherwise than when the state was saved: another device, \
             or a model that answers at random; start again without it"
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
