//! What a checkpoint holds of a run, and how a run goes on from it: bit for bit, at the end of an epoch or within one.

use super::{Trainer, UNDER_WAY};
use crate::error::{Error, Result};
use crate::finetune::guard::Guard;
use crate::finetune::likeness::Likeness;
use crate::finetune::weights::{live_tensors, restore_live};
use crate::package::TrainingState;
use crate::shape::Tensor;

impl Trainer<'_> {
    /// Everything besides the weights that continuing needs.
    pub fn state(&mut self, best: Option<f64>) -> Result<TrainingState> {
        let mut tensors = self.optimizer.read(&mut self.session)?;
        tensors.extend(self.radii.read(&mut self.session)?);
        if let Some(teacher) = &self.teacher {
            tensors.extend(teacher.read(&mut self.session)?);
        }
        if self.stands_for_others() {
            tensors.extend(live_tensors(&mut self.session)?);
        }
        if let Some(free) = &self.free {
            tensors.push(free.read(&mut self.session)?);
        }
        if let Some(branch) = &self.branch {
            tensors.extend(branch.read(&mut self.session)?);
        }
        tensors.extend(self.guard.iter().flat_map(Guard::read));
        tensors.extend(self.likeness.iter().map(Likeness::read));
        if let Some(at) = &self.under_way {
            let radii = at.radii as f32;
            // What f32 leaves of it.
            let rest = (at.radii - f64::from(radii)) as f32;
            let mut values = vec![at.done as f32, at.images as f32, radii, rest, at.seconds as f32];
            values.extend(self.totals.read_all(&mut self.session)?);
            tensors.push((UNDER_WAY.to_owned(), values));
        }
        Ok(TrainingState {
            epochs_done: self.epochs_done,
            total_epochs: self.recipe.epochs,
            step: self.step,
            seed: self.options.seed,
            best,
            tensors,
            settings: self.recipe.to_toml(),
        })
    }

    /// Continues from a checkpoint, bit for bit.
    pub fn restore(&mut self, weights: &[Tensor], state: &TrainingState) -> Result<()> {
        match self.stands_for_others() {
            true => restore_live(&mut self.session, &state.tensors)?,
            false => self.session.write_parameters(weights)?,
        }
        if let Some(average) = &self.average {
            average.write(&mut self.session, weights);
        }
        self.recalibrated = self.recalibration.is_some().then(|| weights.to_vec());
        self.optimizer.write(&mut self.session, &state.tensors)?;
        self.radii.restore(&mut self.session, &state.tensors)?;
        if let Some(teacher) = &self.teacher {
            teacher.restore(&mut self.session, &state.tensors)?;
        }
        if let Some(free) = &self.free {
            free.restore(&mut self.session, &state.tensors)?;
        }
        if let Some(branch) = &self.branch {
            branch.restore(&mut self.session, &state.tensors)?;
        }
        if let Some(guard) = &mut self.guard {
            guard.restore(&state.tensors)?;
        }
        if let Some(likeness) = &mut self.likeness {
            likeness.restore(&state.tensors)?;
        }
        self.epochs_done = state.epochs_done;
        self.step = state.step;
        self.under_way = None;
        match state.tensors.iter().find(|(name, _)| name == UNDER_WAY) {
            Some((_, values)) => self.resume_epoch(values),
            None => Ok(()),
        }
    }

    /// Goes on within an epoch.
    fn resume_epoch(&mut self, values: &[f32]) -> Result<()> {
        let not_whole = || Error::Config(format!("the checkpoint's '{UNDER_WAY}' is not whole"));
        let guard = self.guard.take();
        let begun = self.begin_epoch();
        self.guard = guard;
        let mut at = begun?;
        let (&[done, images, radii, rest, seconds, ..], sums) = (values, values.get(5..).unwrap_or_default())
        else {
            return Err(not_whole());
        };
        at.done = done as usize;
        if self.guard.is_some() || at.done > at.batches || at.done as f32 != done {
            return Err(Error::Config(format!(
                "the checkpoint is {done} batches into an epoch of {}, which cannot be gone on with",
                at.batches
            )));
        }
        (at.images, at.seconds) = (images as usize, seconds.into());
        at.radii = f64::from(radii) + f64::from(rest);
        at.loader.by_ref().take(at.done).for_each(drop);
        if !self.totals.write_all(&mut self.session, sums) {
            return Err(not_whole());
        }
        let last = f64::from(self.epochs_done) + at.done.saturating_sub(1) as f64 / at.batches as f64;
        at.rate = self.recipe.schedule.rate(last, f64::from(self.recipe.epochs));
        let (sum, correct) = self.totals.read(&mut self.session)?;
        at.loss = f64::from(sum) / at.images.max(1) as f64;
        at.accuracy = f64::from(correct) / at.images.max(1) as f64;
        self.under_way = Some(at);
        Ok(())
    }
}
