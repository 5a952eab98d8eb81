//! What is done with one batch: from its images to the update of the weights.

use super::Trainer;
use crate::data::Batch;
use crate::error::Result;
use crate::finetune::free::Free;
use crate::finetune::guide::Teacher;
use crate::finetune::parts::{self, Sums};
use crate::finetune::radii::{Moment, scheduled};
use crate::finetune::recipe::BatchNormTraining;
use crate::finetune::totals::Totals;
use crate::finetune::update::{Found, Update};
use crate::network::BatchNormMode;
use crate::session::Session;

impl Trainer<'_> {
    /// Trains on one batch; returns the sum of the radii of its images' balls, and how often it was trained on.
    pub(super) fn train_on(&mut self, batch: &Batch, at: Moment) -> Result<(f64, usize)> {
        let count = batch.labels.len();
        if let Some(sums) = self.sums.take() {
            let trained = self.train_in_parts(&sums, batch, at);
            self.sums = Some(sums);
            return trained;
        }
        self.session.load(&batch.images, &batch.labels, &batch.indices)?;
        if let Some(free) = self.free.take() {
            let trained = self.replay(&free, count, at);
            self.free = Some(free);
            return trained;
        }
        if let (Some(yopo), Some(spec)) =
            (&self.yopo, self.recipe.attack.spec_at(scheduled(&self.recipe, at)))
        {
            self.step += 1;
            self.optimizer.set_rate(&mut self.session, at.rate, self.step);
            let (key, mode) = ((at.seed, at.epoch), self.mode());
            yopo.train(&mut self.session, count, &spec, key, mode, &self.optimizer, &mut self.totals)?;
            self.average()?;
            let times = spec.steps as usize;
            return Ok((f64::from(spec.ball.eps) * (count * times) as f64, times));
        }
        if let Some(mixup) = &self.mixup {
            mixup.before(&mut self.session, batch, at)?;
        }
        let teacher = self.teacher.as_deref();
        let looks = |teacher: &&Teacher| teacher.guides() || self.recipe.replay.is_on(at.epoch);
        if let Some(teacher) = teacher.filter(looks) {
            teacher.look(&mut self.session, count)?;
        }
        self.radii.learn(&mut self.session, batch, at)?;
        let radii =
            self.radii.perturb(&mut self.session, &self.recipe, &self.adversary, teacher, batch, at)?;
        if let Some(mixup) = &self.mixup {
            mixup.after(&mut self.session, batch, at)?;
        }
        self.update(radii, at, |update, session, totals| update.whole(session, count, totals, None))?;
        self.radii.adapt(&mut self.session, batch, at)?;
        Ok((radii, 1))
    }

    /// Trains on the loaded batch `attack.steps` times, each time on what the time before made of it.
    fn replay(&mut self, free: &Free, count: usize, at: Moment) -> Result<(f64, usize)> {
        let times = self.recipe.attack.steps;
        let mut radii = 0.0;
        for time in 0..times {
            let now = at.time + at.span * f64::from(time) / f64::from(times);
            let rate = self.recipe.schedule.rate(now, f64::from(at.epochs));
            let at = Moment { time: now, rate, ..at };
            let radius = scheduled(&self.recipe, at);
            free.start(&mut self.session, count, radius)?;
            self.update(f64::from(radius), at, |update, session, totals| {
                update.whole(session, count, totals, Some(free))
            })?;
            radii += f64::from(radius) * count as f64;
        }
        Ok((radii, times as usize))
    }

    /// As [`Trainer::train_on`], for a batch that is trained on in parts. The attack on each of them meets the
    /// weights that the batch began with.
    fn train_in_parts(&mut self, sums: &Sums, batch: &Batch, at: Moment) -> Result<(f64, usize)> {
        let parts = parts::parts(batch, self.session.capacity());
        let clean =
            |session: &mut Session, part: &Batch| session.load(&part.images, &part.labels, &part.indices);
        self.radii.learn_in_parts(&mut self.session, &parts, at, clean)?;
        let looks = |teacher: &&Teacher| teacher.guides() || self.recipe.replay.is_on(at.epoch);
        let teacher = self.teacher.as_deref().filter(looks);
        let (mut radii, mut found) = (0.0, Vec::with_capacity(parts.len()));
        for part in &parts {
            clean(&mut self.session, part)?;
            if let Some(teacher) = teacher {
                teacher.look(&mut self.session, part.len())?;
            }
            radii +=
                self.radii.perturb(&mut self.session, &self.recipe, &self.adversary, teacher, part, at)?;
            let guide = teacher.filter(|teacher| teacher.guides());
            let said = guide.map(|teacher| teacher.keep(&mut self.session, part.len())).transpose()?;
            let images = self.session.read_adversarial(part.len())?;
            found.push(Found { part, images, said: said.unwrap_or_default() });
        }
        self.update(radii, at, |update, session, totals| update.in_parts(session, sums, &found, totals))?;
        if self.radii.adapts() {
            for found in &found {
                found.load(&mut self.session)?;
                self.radii.adapt(&mut self.session, found.part, at)?;
            }
        }
        Ok((radii, 1))
    }

    /// One update of the weights, as `by` does it; `radii` is the sum of those of the images.
    fn update(
        &mut self,
        radii: f64,
        at: Moment,
        by: impl FnOnce(&Update<'_>, &mut Session, &mut Totals) -> Result<()>,
    ) -> Result<()> {
        self.step += 1;
        self.optimizer.set_rate(&mut self.session, at.rate, self.step);
        if let Some(branch) = &self.branch {
            branch.set_rate(&mut self.session, at.rate, self.step);
        }
        let warmup = self.recipe.weights.awp_warmup_epochs.unwrap_or(0.0);
        let update = Update {
            config: self.recipe.loss_at(radii),
            mixup: self.mixup.as_ref(),
            mma: self.radii.mma(),
            teacher: self.teacher.as_deref(),
            branch: self.branch.as_ref(),
            optimizer: &self.optimizer,
            perturbation: self.perturbation.as_ref().filter(|_| at.time >= warmup),
            mode: self.mode(),
        };
        by(&update, &mut self.session, &mut self.totals)?;
        self.average()
    }

    /// How BatchNorm behaves in the passes that train.
    fn mode(&self) -> BatchNormMode {
        match self.recipe.batchnorm.mode {
            BatchNormTraining::Train | BatchNormTraining::Split => BatchNormMode::BatchUpdate,
            BatchNormTraining::Frozen => BatchNormMode::Running,
        }
    }

    /// Takes the weights after an update into their average.
    fn average(&mut self) -> Result<()> {
        match &self.average {
            Some(average) => average.after_update(&mut self.session, self.step),
            None => Ok(()),
        }
    }
}
