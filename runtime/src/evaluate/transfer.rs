//! Transfer: images that were made against another model, shown to this one. An attacker without the
//! model's weights has no other gradient.

use std::time::Instant;

use super::{EvaluateOptions, LossRise, Outcome, audit, check_stop, count_of, filled};
use crate::attacks::{AttackSpec, Objective, Passes};
use crate::data::{Batch, Dataset};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::random::Purpose;
use crate::session::Session;

/// Attacks `surrogate` with every attack of `options`, on the images that `session`'s model classifies
/// correctly, and adds to `outcome` which of the results that model still gets right.
/// They go to positions `first` and after; those that are there already stay as they are. `progress`
/// gets the part that is done, 0 to 1.
///
/// The attack's own success against the surrogate does not matter: its worst image for the
/// surrogate, over all attempts, is the one that is shown.
///
/// # Errors
/// [`Error::Config`] when the two models take different images or tell different numbers of classes
/// apart.
pub fn evaluate_transfer(
    surrogate: &mut Session,
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    outcome: &mut Outcome,
    first: usize,
    mut progress: impl FnMut(f64),
) -> Result<()> {
    let fit = |s: &Session| (s.network().input, s.classes());
    if fit(surrogate) != fit(session) {
        return Err(Error::Config(format!(
            "the surrogate takes {:?} and tells {} classes apart, the model {:?} and {}; a surrogate is made for \
             the same images and classes",
            fit(surrogate).0,
            fit(surrogate).1,
            fit(session).0,
            fit(session).1
        )));
    }
    let batch = options.batch.min(session.capacity()).min(surrogate.capacity());
    let left: Vec<u32> = (0..data.len() as u32).filter(|&at| outcome.clean[at as usize]).collect();
    // After the attacks of the model itself come those of one surrogate after the other.
    let number = (first / options.attacks.len().max(1)).saturating_sub(1);
    if outcome.surrogate_correct.len() == number {
        outcome.surrogate_correct.push(right_of(surrogate, data, options, &left, batch)?);
    }
    let mut done = 0;
    for (i, attack) in options.attacks.iter().map(AttackSpec::build).enumerate() {
        // An evaluation that goes on has some of them already.
        if first + i < outcome.robust.len() {
            done += left.len();
            continue;
        }
        let start = Instant::now();
        let mut robust = outcome.clean.clone();
        let mut passes = Passes::default();
        for part in left.chunks(batch) {
            check_stop(options)?;
            let mut positions = part.to_vec();
            positions.resize(filled(part.len(), batch), part[0]);
            let images = Batch::gather(data, &positions);
            let count = images.len();
            surrogate.load(&images.images, &images.labels, &images.indices)?;
            let mut objective = Objective::new(surrogate, count, options.seed, Purpose::AttackStart, 0)
                .with_stop(options.stop);
            attack.perturb(&mut objective)?;
            // Through the surrogate; then one through the model.
            passes.forwards += (objective.passes().forwards + 1) * part.len() as u64;
            passes.gradients += objective.passes().gradients * part.len() as u64;
            let found = surrogate.read_adversarial(count)?;
            audit(attack.name(), &attack.ball(), &images.images, &found, count)?;
            session.load(&found, &images.labels, &images.indices)?;
            session.start_clean(count)?;
            session.score(count, Loss::CrossEntropy)?;
            let withstood = session.read_correct(count)?;
            for (&at, withstood) in part.iter().zip(withstood) {
                robust[at as usize] = withstood;
            }
            done += part.len();
            progress(done as f64 / (left.len() * options.attacks.len()) as f64);
        }
        outcome.robust.push(robust);
        if outcome.passes.len() == outcome.seconds.len() {
            outcome.passes.push(passes);
        }
        if outcome.distances.len() == outcome.seconds.len() {
            outcome.distances.push(Vec::new());
        }
        outcome.seconds.push(start.elapsed().as_secs_f64());
        // How the loss of another model rises is no sign of this one.
        outcome.signs.loss_rise.push(LossRise::default());
    }
    Ok(())
}

/// How many of the images at these positions a model gets right.
fn right_of(
    session: &mut Session,
    data: &Dataset,
    options: &EvaluateOptions<'_>,
    positions: &[u32],
    batch: usize,
) -> Result<u64> {
    let mut right = 0;
    for part in positions.chunks(batch) {
        check_stop(options)?;
        let mut filling = part.to_vec();
        filling.resize(filled(part.len(), batch), part[0]);
        let images = Batch::gather(data, &filling);
        session.load(&images.images, &images.labels, &images.indices)?;
        session.start_clean(images.len())?;
        session.score(images.len(), Loss::CrossEntropy)?;
        right += count_of(&session.read_correct(images.len())?[..part.len()]);
    }
    Ok(right)
}
