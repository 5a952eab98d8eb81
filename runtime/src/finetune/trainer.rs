//! The training loop. One batch's way: data, augmentation, attack, loss, update. The attack and the
//! update stay on the device; what comes back is the sum of the losses and the number correct.

mod batch;
mod checkpoint;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::adversary::Adversary;
use super::attack::AttackKind;
use super::branch::Branch;
use super::free::Free;
use super::guard::Guard;
use super::guide::Teacher;
use super::layers::Selection;
use super::likeness::{Cosines, Likeness};
use super::mixup::Mixup;
use super::parts::{self, Sums};
use super::radii::{Moment, Radii, scheduled};
use super::recalibrate::Recalibration;
use super::recipe::Recipe;
use super::run::EpochMetrics;
use super::totals::Totals;
use super::weights::{AveragedWeights, WeightPerturbation};
use super::yopo::Yopo;
use crate::attacks::AttackSpec;
use crate::data::{Augment, Batch, Dataset, Extra, Loader, LoaderOptions};
use crate::error::{Error, Result};
use crate::evaluate::{EvaluateOptions, evaluate};
use crate::optim::Optimizer;
use crate::session::{Images, Session};
use crate::shape::Tensor;

/// What a trainer needs besides the recipe.
pub struct TrainerOptions<'a> {
    pub seed: u64,
    pub train: Dataset,
    /// Which of them are extra ones; all belong to an epoch where there are none.
    pub extra: Option<Extra>,
    /// Images that no update sees; measured after every epoch.
    pub validation: Option<Dataset>,
    /// Set by another thread to stop between batches.
    pub stop: &'a AtomicBool,
}

/// What a trainer tells while it works.
#[derive(Clone, Debug)]
pub enum Event {
    /// A batch is done. Loss and accuracy are those of the epoch so far, on the images trained on.
    Batch { epoch: u32, batch: usize, batches: usize, images: usize, loss: f64, accuracy: f64, seconds: f64 },
    /// This part of a step's arithmetic, 0 to 1, is done a second time to stay within the memory limit.
    Recomputes { part: f64 },
    /// Batches are trained on in `parts` of at most `images` each, whose gradients are summed, to stay within the
    /// memory limit.
    Accumulates { parts: usize, images: usize },
    /// Part of the validation is done, 0 to 1.
    Validation { epoch: u32, fraction: f64 },
}

/// A batch is done. Loss and accuracy are those of the epoch so far, on the images trained on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TrainingStep {
    /// Counted from 0.
    pub epoch: u32,
    /// Batches of the epoch that are done.
    pub batch: usize,
    pub batches: usize,
    /// Images trained on.
    pub images: usize,
    pub loss: f64,
    /// 0 to 1.
    pub accuracy: f64,
    /// Time spent in the epoch.
    pub seconds: f64,
}

/// An epoch under way: its batches to come, and what it has summed up.
struct EpochUnderWay {
    loader: Loader,
    batches: usize,
    /// Batches that are done.
    done: usize,
    images: usize,
    loss: f64,
    accuracy: f64,
    rate: f64,
    radii: f64,
    seconds: f64,
    /// Images of it that the session still holds: of the last batch, or of the last part of that.
    loaded: usize,
    /// What the guard judges by.
    first: Option<Batch>,
}

type Validated = (Option<f64>, Option<f64>, Option<Cosines>);

/// The name in a checkpoint of how far an epoch is.
const UNDER_WAY: &str = "epoch.under_way";

/// How many times of a run are rehearsed, besides its start.
const REHEARSED: u32 = 16;

/// A model in training.
pub struct Trainer<'a> {
    session: Session,
    recipe: Recipe,
    options: TrainerOptions<'a>,
    /// Whether nothing changes it, for each parameter.
    kept: Vec<bool>,
    optimizer: Optimizer,
    adversary: Adversary,
    radii: Radii,
    free: Option<Free>,
    yopo: Option<Yopo>,
    mixup: Option<Arc<Mixup>>,
    /// What trains beside the network, where the recipe has that.
    branch: Option<Branch>,
    teacher: Option<Arc<Teacher>>,
    /// Where the session has no room for a whole batch.
    sums: Option<Sums>,
    /// What the run stands for, where the recipe averages.
    average: Option<AveragedWeights>,
    recalibration: Option<Recalibration>,
    /// What the run has stood for since the end of the last epoch, where its statistics were estimated anew.
    recalibrated: Option<Vec<Tensor>>,
    perturbation: Option<WeightPerturbation>,
    /// What epochs are measured by, at its full radius.
    validation_attack: Option<AttackSpec>,
    likeness: Option<Likeness>,
    guard: Option<Guard>,
    augment: Option<Augment>,
    /// Sums over the epoch so far.
    totals: Totals,
    under_way: Option<EpochUnderWay>,
    epochs_done: u32,
    step: u64,
}

impl<'a> Trainer<'a> {
    /// Where `session` has room for fewer images than `recipe.data.batch`, batches are trained on in parts: the
    /// update is that of the whole batch, but for BatchNorm in training mode, which sees the parts. [`room`] says how
    /// many images a memory limit leaves room for.
    ///
    /// [`room`]: super::room()
    ///
    /// # Errors
    /// [`Error::Config`] when there are no images, or the model lacks what the recipe needs; [`Error::Limit`] when
    /// the memory is too little, or the method needs whole batches.
    pub fn new(mut session: Session, recipe: Recipe, options: TrainerOptions<'a>) -> Result<Self> {
        if options.train.is_empty() {
            return Err(Error::Config("there are no training images".into()));
        }
        let Selection { trained, kept, frozen_layers } = recipe.layers.of(session.network())?;
        session.freeze_layers(frozen_layers);
        recipe.head.apply(&trained, &mut session)?;
        let optimizer = Optimizer::of(&recipe.optimizer, &trained, &mut session)?;
        let mixup = Mixup::new(recipe.loss.kind, &mut session)?.map(Arc::new);
        let teacher = Teacher::new(&recipe.guide, &recipe.replay, &mut session)?.map(Arc::new);
        let adversary =
            Adversary::new(&recipe.attack, teacher.as_ref(), &mut session)?.on_mixtures(mixup.as_ref());
        let augment = recipe.data.augment.of(&options.train);
        let radii = Radii::new(&recipe, &options.train, augment, &mut session)?;
        let free = match recipe.attack.kind {
            AttackKind::Free => Some(Free::new(&mut session)?),
            _ => None,
        };
        let yopo = match recipe.attack.kind {
            AttackKind::Yopo => Some(Yopo::new(recipe.attack.inner_steps.unwrap_or(3), &mut session)?),
            _ => None,
        };
        let branch = Branch::new(&recipe, &trained, &kept, &mut session)?;
        let sums = match session.capacity() < recipe.data.batch.min(options.train.len()) {
            true => {
                parts::check(&recipe)?;
                Some(Sums::new(&optimizer, branch.as_ref(), &mut session)?)
            }
            false => None,
        };
        let average = AveragedWeights::new(&recipe.weights, &mut session)?;
        let recalibration =
            recipe.recalibrated().and_then(|part| Recalibration::new(part, augment, &session, &kept));
        if recipe.batchnorm.recalibrate.is_some() && recalibration.is_none() {
            return Err(Error::Config(
                "batchnorm.recalibrate: no BatchNorm of this network has statistics that training changes; leave it out"
                    .into(),
            ));
        }
        let perturbation =
            recipe.weights.awp.map(|g| WeightPerturbation::new(g, &mut session)).transpose()?;
        let totals = Totals::new(&mut session)?;
        let validation_attack = recipe.attack.measure();
        Ok(Self {
            likeness: Likeness::new(options.validation.as_ref(), validation_attack.as_ref(), &session),
            validation_attack,
            guard: Guard::new(recipe.selection.guard, &recipe.attack),
            session,
            recipe,
            options,
            kept,
            optimizer,
            adversary,
            radii,
            free,
            yopo,
            mixup,
            branch,
            teacher,
            sums,
            average,
            recalibration,
            recalibrated: None,
            perturbation,
            augment,
            totals,
            under_way: None,
            epochs_done: 0,
            step: 0,
        })
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// How many parts a full batch is trained on in.
    pub fn parts(&self) -> usize {
        self.recipe.data.batch.min(self.options.train.len()).div_ceil(self.session.capacity())
    }

    pub fn epochs_done(&self) -> u32 {
        self.epochs_done
    }

    /// Whether the last epoch is over, or the guard has ended the run.
    pub fn is_done(&self) -> bool {
        self.epochs_done >= self.recipe.epochs || self.guard.as_ref().is_some_and(Guard::has_ended)
    }

    /// Trains to the end of the epoch, from where [`Trainer::step`] left it, and measures the validation images.
    pub fn epoch(&mut self, mut tell: impl FnMut(Event)) -> Result<EpochMetrics> {
        if self.under_way.as_ref().is_some_and(|at| at.done == at.batches) {
            return self.end_epoch(tell);
        }
        loop {
            let TrainingStep { epoch, batch, batches, images, loss, accuracy, seconds } = self.step()?;
            let part = self.session.device().recomputed();
            if batch == 1 && part > 0.0 {
                tell(Event::Recomputes { part });
            }
            if batch == 1 && self.parts() > 1 {
                tell(Event::Accumulates { parts: self.parts(), images: self.session.capacity() });
            }
            tell(Event::Batch { epoch, batch, batches, images, loss, accuracy, seconds });
            if batch == batches {
                return self.end_epoch(tell);
            }
        }
    }

    /// Trains on one batch. After the last of an epoch comes [`Trainer::end_epoch`].
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the caller wants to stop, [`Error::NonFinite`] when the loss is no number.
    pub fn step(&mut self) -> Result<TrainingStep> {
        if self.options.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let ended = || Error::Config("the epoch is over: end it first".into());
        if self.under_way.as_ref().is_some_and(|at| at.done == at.batches) {
            return Err(ended());
        }
        let mut at = match self.under_way.take() {
            Some(epoch) => epoch,
            None => self.begin_epoch()?,
        };
        let start = Instant::now();
        let batch = at.loader.next().ok_or_else(ended)?;
        let time = f64::from(self.epochs_done) + at.done as f64 / at.batches as f64;
        at.rate = self.recipe.schedule.rate(time, f64::from(self.recipe.epochs));
        let moment = Moment {
            seed: self.options.seed,
            epoch: self.epochs_done,
            epochs: self.recipe.epochs,
            batch: at.done as u32,
            time,
            span: 1.0 / at.batches as f64,
            rate: at.rate,
        };
        self.recalibrated = None;
        let (radii, times) = self.train_on(&batch, moment)?;
        at.done += 1;
        at.loaded = (batch.len() - 1) % self.session.capacity() + 1;
        at.radii += radii;
        at.images += batch.labels.len() * times;
        let (sum, correct) = self.totals.read(&mut self.session)?;
        if !sum.is_finite() {
            let intact = match self.epochs_done {
                0 => "",
                _ => ". The last checkpoint is from the epoch before",
            };
            return Err(Error::NonFinite(format!(
                "the loss is no longer finite in epoch {} after batch {}, at a learning rate of {:.3e}; lower \
                 schedule.peak{intact}",
                self.epochs_done + 1,
                at.done,
                at.rate
            )));
        }
        at.loss = f64::from(sum) / at.images as f64;
        at.accuracy = f64::from(correct) / at.images as f64;
        at.seconds += start.elapsed().as_secs_f64();
        let step = TrainingStep {
            epoch: self.epochs_done,
            batch: at.done,
            batches: at.batches,
            images: at.images,
            loss: at.loss,
            accuracy: at.accuracy,
            seconds: at.seconds,
        };
        if at.done == 1 && self.guard.is_some() {
            at.first = Some(batch);
        }
        self.under_way = Some(at);
        Ok(step)
    }

    fn begin_epoch(&mut self) -> Result<EpochUnderWay> {
        if let Some(likeness) = self.likeness.as_mut().filter(|_| self.step == 0) {
            likeness.begin(&mut self.session)?;
        }
        if self.guard.is_some() {
            let (weights, state) = (self.weights()?, self.state(None)?);
            if let Some(guard) = &mut self.guard {
                guard.remember(weights, state);
            }
        }
        self.totals.reset(&mut self.session);
        let loader = Loader::new(
            &self.options.train,
            LoaderOptions {
                batch: self.recipe.data.batch,
                shuffle: Some(self.options.seed),
                epoch: self.epochs_done,
                augment: self.augment,
                seed: self.options.seed,
                drop_last: false,
                extra: self.options.extra,
            },
        )?;
        Ok(EpochUnderWay {
            batches: loader.len(),
            loader,
            done: 0,
            images: 0,
            loss: 0.0,
            accuracy: 0.0,
            rate: 0.0,
            radii: 0.0,
            seconds: 0.0,
            loaded: 0,
            first: None,
        })
    }

    /// Ends an epoch all of whose batches are done, and measures the validation images.
    ///
    /// # Errors
    /// [`Error::Config`] when batches are left.
    pub fn end_epoch(&mut self, mut tell: impl FnMut(Event)) -> Result<EpochMetrics> {
        let Some(EpochUnderWay { images, loss, accuracy, rate, radii, seconds, loaded, first, .. }) =
            self.under_way.take_if(|at| at.done == at.batches)
        else {
            return Err(Error::Config("the epoch has batches left".into()));
        };
        let epoch = self.epochs_done;
        let answers = self.check_answers(loaded);
        self.recalibrated = None;
        if let Some(average) = &self.average {
            average.after_epoch(&mut self.session, epoch, self.recipe.epochs)?;
        }
        self.recalibrate(epoch)?;
        let terms = self.totals.read_terms(&mut self.session)?;
        let terms = terms.into_iter().map(|(name, sum)| (name.to_owned(), f64::from(sum) / images as f64));
        let (clean, robust, cosine) =
            self.validate(|fraction| tell(Event::Validation { epoch, fraction }))?;
        let mut back = None;
        if let (Some(guard), Some(batch)) = (&mut self.guard, first) {
            back = guard.judge(&mut self.session, &batch, self.options.seed, epoch)?;
        }
        self.epochs_done += 1;
        let rolled_back = back.is_some();
        match back {
            Some((weights, state)) => {
                let guard = self.guard.take();
                self.restore(&weights, &state)?;
                self.guard = guard;
            }
            None => answers?,
        }
        Ok(EpochMetrics {
            epoch: epoch + 1,
            lr: rate,
            loss,
            terms: terms.collect(),
            train_accuracy: accuracy,
            clean_accuracy: clean,
            robust_accuracy: robust,
            cosine,
            eps_quartiles: self.radii.quartiles(),
            mean_eps: radii / images as f64,
            rolled_back,
            seconds,
            images_per_second: images as f64 / seconds,
        })
    }

    /// Refuses weights that answer with no numbers, by the first `count` loaded images: after the last update of an
    /// epoch comes no loss that would tell.
    fn check_answers(&mut self, count: usize) -> Result<()> {
        if count > 0 && !self.session.logits(count, Images::Clean)?.iter().all(|z| z.is_finite()) {
            return Err(Error::NonFinite(format!(
                "the logits are no longer finite after epoch {}; lower schedule.peak",
                self.epochs_done + 1
            )));
        }
        Ok(())
    }

    /// Goes through the kinds of steps that the run will take, from its first epoch to its last, on a device that
    /// only counts what they need.
    pub(super) fn rehearse(&mut self) -> Result<()> {
        let len = self.options.train.len().min(self.recipe.data.batch) as u32;
        let batch = Batch::gather(&self.options.train, &(0..len).collect::<Vec<_>>());
        let epochs = self.recipe.epochs;
        for i in 0..=REHEARSED {
            let time = f64::from(epochs) * f64::from(i) / f64::from(REHEARSED);
            let epoch = (time as u32).min(epochs - 1);
            let (seed, rate) = (self.options.seed, 0.0);
            self.train_on(&batch, Moment { seed, epoch, epochs, batch: 0, time, span: 0.0, rate })?;
        }
        Ok(())
    }

    /// Clean accuracy, and robust accuracy under the training attack, on the validation images; and how like the
    /// features of some of them are to those of the start.
    fn validate(&mut self, mut tell: impl FnMut(f64)) -> Result<Validated> {
        let Some(data) = self.options.validation.clone() else { return Ok((None, None, None)) };
        let attack = self.validation_attack.clone();
        let attacks: &[AttackSpec] = attack.as_slice();
        let options = EvaluateOptions {
            attacks,
            batch: self.recipe.data.batch,
            seed: self.options.seed,
            stop: self.options.stop,
        };
        let live = match self.stands_for_others() {
            true => {
                let live = self.session.read_parameters()?;
                let weights = self.weights()?;
                self.session.write_parameters(&weights)?;
                Some(live)
            }
            false => None,
        };
        let found = match &self.likeness {
            Some(likeness) => likeness.evaluate(&mut self.session, &data, &options, tell),
            None => evaluate(&mut self.session, &data, &options, |p| tell(p.fraction)).map(|o| (o, None)),
        };
        if let Some(live) = live {
            self.session.write_parameters(&live)?;
        }
        let (outcome, cosine) = found?;
        let part = |correct: u64| correct as f64 / data.len() as f64;
        let robust = (!attacks.is_empty()).then(|| part(outcome.robust_correct(0)));
        Ok((Some(part(outcome.clean_correct())), robust, cosine))
    }

    /// Whether the run stands for other weights than those in training.
    const fn stands_for_others(&self) -> bool {
        self.average.is_some() || self.recalibration.is_some()
    }

    /// Estimates the statistics of the weights at the end of `epoch` anew, where the recipe says so.
    fn recalibrate(&mut self, epoch: u32) -> Result<()> {
        let Some(recalibration) = self.recalibration.take() else { return Ok(()) };
        let epochs = self.recipe.epochs;
        let (seed, time) = (self.options.seed, f64::from(epoch) + 1.0);
        let at = Moment { seed, epoch, epochs, batch: 0, time, span: 0.0, rate: 0.0 };
        let weights = self.weights()?;
        let radius = scheduled(&self.recipe, at);
        let found =
            recalibration.of(weights, &mut self.session, &self.adversary, &self.options.train, at, radius);
        self.recalibration = Some(recalibration);
        self.recalibrated = Some(found?);
        Ok(())
    }

    /// The weights that the run stands for now: their average, where the recipe averages, and at the end of an epoch
    /// with new statistics, where it recalibrates.
    pub fn weights(&mut self) -> Result<Vec<Tensor>> {
        if let Some(weights) = &self.recalibrated {
            return Ok(weights.clone());
        }
        let mut weights = self.session.read_parameters()?;
        if let Some(average) = &self.average {
            // An average of equal numbers may differ from them in its last bit.
            let averaged = average.read(&mut self.session)?.into_iter().zip(&self.kept);
            let changed = weights.iter_mut().zip(averaged).filter(|(_, (_, kept))| !**kept);
            changed.for_each(|(weights, (average, _))| *weights = average);
        }
        Ok(weights)
    }
}
