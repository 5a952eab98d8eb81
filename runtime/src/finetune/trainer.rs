//! The training loop. One batch's way: data, augmentation, attack, loss, update. The attack and the
//! update stay on the device; what comes back is the sum of the losses and the number correct.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::adversary::Adversary;
use super::loss::BatchLoss;
use super::recipe::{Augmentation, BatchNormTraining, Recipe};
use super::run::EpochMetrics;
use crate::attacks::AttackSpec;
use crate::autodiff::differentiate;
use crate::data::{Augment, Batch, Dataset, Loader, LoaderOptions};
use crate::error::{Error, Result};
use crate::evaluate::{EvaluateOptions, evaluate};
use crate::graph::Variable;
use crate::network::BatchNormMode;
use crate::ops::{Accumulate, Correct, Op, Sum};
use crate::optim::Optimizer;
use crate::package::TrainingState;
use crate::session::Session;
use crate::shape::{Shape, Tensor};

/// What a trainer needs besides the recipe.
pub struct TrainerOptions<'a> {
    pub seed: u64,
    pub train: Dataset,
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
    /// Part of the validation is done, 0 to 1.
    Validation { epoch: u32, fraction: f64 },
}

/// A model in training.
pub struct Trainer<'a> {
    session: Session,
    recipe: Recipe,
    options: TrainerOptions<'a>,
    optimizer: Optimizer,
    adversary: Adversary,
    /// Selection measures with the attack that training meets, at its full radius.
    validation_attack: Option<AttackSpec>,
    augment: Option<Augment>,
    /// Sums over the epoch so far.
    loss_sum: Variable,
    correct_sum: Variable,
    epochs_done: u32,
    step: u64,
}

impl<'a> Trainer<'a> {
    /// `session` needs room for `recipe.data.batch` images.
    pub fn new(mut session: Session, recipe: Recipe, options: TrainerOptions<'a>) -> Result<Self> {
        if options.train.is_empty() {
            return Err(Error::Config("there are no training images".into()));
        }
        let optimizer = Optimizer::new(&recipe.optimizer, &mut session)?;
        let adversary = Adversary::new(&recipe.attack, &mut session)?;
        let spec = recipe.attack.spec();
        let small = options.train.shape[0] == 1;
        let augment = match recipe.data.augment {
            Augmentation::Auto if small => None,
            Augmentation::None => None,
            Augmentation::Auto | Augmentation::CropFlip => Some(true),
            Augmentation::Crop => Some(false),
        };
        // Four pixels of 32, as everywhere in the literature on CIFAR; in proportion elsewhere.
        let side = options.train.shape[1].min(options.train.shape[2]);
        let augment = augment.map(|flip| Augment { crop_padding: side.div_ceil(8), flip });
        let loss_sum = session.device().variable(1)?;
        let correct_sum = session.device().variable(1)?;
        Ok(Self {
            validation_attack: spec,
            session,
            recipe,
            options,
            optimizer,
            adversary,
            augment,
            loss_sum,
            correct_sum,
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

    pub fn epochs_done(&self) -> u32 {
        self.epochs_done
    }

    pub fn is_done(&self) -> bool {
        self.epochs_done >= self.recipe.epochs
    }

    /// Trains for one epoch and measures the validation images.
    pub fn epoch(&mut self, mut tell: impl FnMut(Event)) -> Result<EpochMetrics> {
        let epoch = self.epochs_done;
        let start = Instant::now();
        self.session.device().write(self.loss_sum, &[0.0]);
        self.session.device().write(self.correct_sum, &[0.0]);
        let loader = Loader::new(
            &self.options.train,
            LoaderOptions {
                batch: self.recipe.data.batch,
                shuffle: Some(self.options.seed),
                epoch,
                augment: self.augment,
                seed: self.options.seed,
                drop_last: false,
            },
        )?;
        let batches = loader.len();
        let (mut images, mut loss, mut accuracy, mut rate, mut radii) = (0, 0.0, 0.0, 0.0, 0.0);
        let epochs = f64::from(self.recipe.epochs);
        let eps = self.recipe.attack.spec().map_or(0.0, |attack| attack.ball.eps);
        for (index, batch) in loader.enumerate() {
            if self.options.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let time = f64::from(epoch) + index as f64 / batches as f64;
            rate = self.recipe.schedule.rate(time, epochs);
            let radius = self.recipe.epsilon.radius(eps, time, epochs);
            self.train_on(&batch, rate, radius)?;
            images += batch.labels.len();
            radii += f64::from(radius) * batch.labels.len() as f64;
            let sum = self.session.device().read(self.loss_sum)?[0];
            let correct = self.session.device().read(self.correct_sum)?[0];
            if !sum.is_finite() {
                return Err(Error::NonFinite(format!(
                    "the loss is no longer finite in epoch {} after batch {}, at a learning rate of {rate:.3e}; \
                     lower schedule.peak. The last checkpoint is from the epoch before",
                    epoch + 1,
                    index + 1
                )));
            }
            loss = f64::from(sum) / images as f64;
            accuracy = f64::from(correct) / images as f64;
            let seconds = start.elapsed().as_secs_f64();
            tell(Event::Batch { epoch, batch: index + 1, batches, images, loss, accuracy, seconds });
        }
        let seconds = start.elapsed().as_secs_f64();
        let (clean, robust) = self.validate(|fraction| tell(Event::Validation { epoch, fraction }))?;
        self.epochs_done += 1;
        Ok(EpochMetrics {
            epoch: self.epochs_done,
            lr: rate,
            loss,
            train_accuracy: accuracy,
            clean_accuracy: clean,
            robust_accuracy: robust,
            mean_eps: radii / images as f64,
            seconds,
            images_per_second: images as f64 / seconds,
        })
    }

    fn train_on(&mut self, batch: &Batch, rate: f64, radius: f32) -> Result<()> {
        let count = batch.labels.len();
        self.session.load(&batch.images, &batch.labels, &batch.indices)?;
        self.adversary.perturb(&mut self.session, count, self.options.seed, self.epochs_done, radius)?;
        self.step += 1;
        self.optimizer.set_rate(&mut self.session, rate, self.step);
        let mode = match self.recipe.batchnorm.mode {
            BatchNormTraining::Train => BatchNormMode::BatchUpdate,
            BatchNormTraining::Frozen => BatchNormMode::Running,
        };
        let (optimizer, loss_sum, correct_sum) = (&self.optimizer, self.loss_sum, self.correct_sum);
        let loss = &self.recipe.loss;
        self.session.run("train", count, |m| {
            let BatchLoss { losses, logits } = loss.add(m, mode)?;
            let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / count as f32 }), &[losses])?;
            let trainable = optimizer.trainable(m);
            let gradients = differentiate(&mut m.graph, mean, &trainable)?;
            optimizer.update(m, &gradients)?;
            m.graph.set_label("metrics");
            let correct = m.graph.add(Op::Correct(Correct), &[logits, m.labels])?;
            for (values, total) in [(losses, loss_sum), (correct, correct_sum)] {
                let sum = m.graph.add(Op::Sum(Sum { factor: 1.0 }), &[values])?;
                let total = m.graph.variable(total, Shape::SCALAR);
                m.graph.update(Op::Accumulate(Accumulate), &[sum], &[total])?;
            }
            Ok(())
        })
    }

    /// Clean accuracy, and robust accuracy under the training attack, on the validation images.
    fn validate(&mut self, mut tell: impl FnMut(f64)) -> Result<(Option<f64>, Option<f64>)> {
        let Some(data) = &self.options.validation else { return Ok((None, None)) };
        let attacks: &[AttackSpec] = self.validation_attack.as_slice();
        let options = EvaluateOptions {
            attacks,
            batch: self.recipe.data.batch,
            seed: self.options.seed,
            stop: self.options.stop,
        };
        let outcome = evaluate(&mut self.session, data, &options, |p| tell(p.fraction))?;
        let part = |correct: u64| correct as f64 / data.len() as f64;
        let robust = (!attacks.is_empty()).then(|| part(outcome.robust_correct(0)));
        Ok((Some(part(outcome.clean_correct())), robust))
    }

    /// The weights as they are now.
    pub fn weights(&mut self) -> Result<Vec<Tensor>> {
        self.session.read_parameters()
    }

    /// Everything besides the weights that continuing needs.
    pub fn state(&mut self, best: Option<f64>) -> Result<TrainingState> {
        Ok(TrainingState {
            epochs_done: self.epochs_done,
            total_epochs: self.recipe.epochs,
            step: self.step,
            seed: self.options.seed,
            best,
            tensors: self.optimizer.read(&mut self.session)?,
            settings: self.recipe.to_toml(),
        })
    }

    /// Continues from a checkpoint, bit for bit.
    pub fn restore(&mut self, weights: &[Tensor], state: &TrainingState) -> Result<()> {
        self.session.write_parameters(weights)?;
        self.optimizer.write(&mut self.session, &state.tensors)?;
        self.epochs_done = state.epochs_done;
        self.step = state.step;
        Ok(())
    }
}
