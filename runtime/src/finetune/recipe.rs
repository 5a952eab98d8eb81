//! Recipes: a training method as a TOML table of independent choices, and the presets.

use serde::{Deserialize, Serialize};

use super::attack::{AttackConfig, AttackKind, AttackObjective};
use super::epsilon::{EpsilonConfig, EpsilonPolicy};
use super::guide::{GuideConfig, GuideKind, ReplayConfig, ReplayKind};
use super::head::HeadConfig;
use super::layers::TrainedLayers;
use super::loss::{LossConfig, LossKind};
use super::on::{self, On};
use super::presets::PRESETS;
use super::schedule::Schedule;
use super::weights::WeightsConfig;
use crate::data::{Augment, Dataset};
use crate::error::{Error, Result};
use crate::optim::OptimizerConfig;
use crate::spelling::did_you_mean;

mod keys;
mod unread;

use keys::{explain, known_keys, set};
use unread::forget;

/// Everything that a training run is made of, besides model, data and seed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    pub name: String,
    pub epochs: u32,
    /// Which layers train: all, where nothing else is said.
    #[serde(default, skip_serializing_if = "TrainedLayers::is_all")]
    pub layers: TrainedLayers,
    pub attack: AttackConfig,
    #[serde(default)]
    pub epsilon: EpsilonConfig,
    pub loss: LossConfig,
    #[serde(default)]
    pub guide: GuideConfig,
    #[serde(default)]
    pub replay: ReplayConfig,
    #[serde(default, skip_serializing_if = "HeadConfig::is_default")]
    pub head: HeadConfig,
    #[serde(default)]
    pub weights: WeightsConfig,
    pub batchnorm: BatchNormConfig,
    pub optimizer: OptimizerConfig,
    pub schedule: Schedule,
    pub data: DataConfig,
    pub selection: SelectionConfig,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormTraining {
    /// Statistics of the batch, which update the running ones.
    Train,
    /// The running statistics stay, and normalise.
    Frozen,
    /// As `train`, with further statistics, scales and shifts for the clean images that are trained on beside the
    /// attacked ones, and left out at the end (AR-AT: Waseda et al., 2025; of Xie et al., 2020).
    Split,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNormConfig {
    pub mode: BatchNormTraining,
    /// After each epoch, running statistics of what is measured and kept are estimated anew on up to 1,024 training
    /// images, augmented as in training, this part of them attacked, 0 to 1. 1 for weights.swa when absent, else nothing happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recalibrate: Option<f64>,
}

impl BatchNormConfig {
    fn check(&self) -> Result<()> {
        let Some(part) = self.recalibrate else { return Ok(()) };
        if !(0.0..=1.0).contains(&part) {
            return Err(Error::Config(format!(
                "batchnorm.recalibrate = {part}: the part of the images that is attacked lies between 0 and 1"
            )));
        }
        if self.mode == BatchNormTraining::Frozen {
            return Err(Error::Config(
                "batchnorm.recalibrate estimates the statistics that batchnorm.mode = frozen keeps; leave one out"
                    .into(),
            ));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// Random crop and flip for photographs, crop for SVHN, whose digits have no mirror images, and nothing for
    /// images of one channel (MNIST).
    Auto,
    CropFlip,
    Crop,
    None,
}

impl Augmentation {
    /// How images of `data` are cropped and flipped, if they are.
    pub(super) fn of(self, data: &Dataset) -> Option<Augment> {
        let flip = match self {
            Self::Auto if data.shape[0] == 1 => return None,
            Self::None => return None,
            Self::Auto => data.name != "svhn",
            Self::CropFlip => true,
            Self::Crop => false,
        };
        // Four pixels of 32, as everywhere in the literature on CIFAR; in proportion elsewhere.
        let side = data.shape[1].min(data.shape[2]);
        Some(Augment { crop_padding: side.div_ceil(8), flip })
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    pub batch: usize,
    pub augment: Augmentation,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectionKind {
    Last,
    /// The epoch with the highest robust accuracy on the validation images.
    Best,
}

/// Which epoch's weights a package or an export of the run takes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionConfig {
    pub kind: SelectionKind,
    /// How far the accuracy under PGD-5 on the first batch may fall in one epoch, 0 to 1; where it falls
    /// further the epoch is undone and the run ends there (catastrophic overfitting, Wong et al., 2020).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<f64>,
}

impl SelectionConfig {
    fn check(&self) -> Result<()> {
        match self.guard.filter(|g| !(0.0..=1.0).contains(g)) {
            Some(guard) => Err(Error::Config(format!(
                "selection.guard = {guard}: a part of the accuracy lies between 0 and 1"
            ))),
            None => Ok(()),
        }
    }
}

impl Recipe {
    /// A preset's name, or the path of a TOML file; then `KEY=VALUE` settings in order. What the recipe sets
    /// otherwise on certain data or networks is left out: [`Recipe::load_on`] takes that, too.
    pub fn load(name: &str, settings: &[String]) -> Result<Self> {
        Self::load_on(name, &[], settings)
    }

    /// As [`Recipe::load`], with what the recipe has in its tables `[on.KEY]` for these.
    pub fn load_on(name: &str, on: &[On], settings: &[String]) -> Result<Self> {
        let text = match PRESETS.iter().find(|p| p.name == name) {
            Some(preset) => preset.toml.to_owned(),
            None if name.ends_with(".toml") => {
                let path = std::path::Path::new(name);
                std::fs::read_to_string(path).map_err(Error::io(path))?
            }
            None => {
                let names: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
                let near = did_you_mean(name, &names);
                return Err(Error::Config(format!(
                    "unknown recipe '{name}'; there are {}, or the path of a .toml file{near}",
                    names.join(", ")
                )));
            }
        };
        Self::read(&text, name, on, settings)
    }

    /// The same recipe in another number of epochs: what happens at a certain part of the run goes on to happen
    /// at that part, and a rate that falls with every epoch falls as far in all.
    pub fn stretched(mut self, epochs: u32) -> Self {
        let factor = f64::from(epochs) / f64::from(self.epochs);
        let whole = |n: u32| (f64::from(n) * factor).round() as u32;
        self.epochs = epochs;
        self.schedule.stretch(factor);
        let phases =
            [&mut self.epsilon.warmup_epochs, &mut self.replay.until_epoch, &mut self.attack.reset_epochs];
        for phase in phases.into_iter().flatten() {
            // One that there is stays at least an epoch.
            *phase = whole(*phase).max((*phase).min(1));
        }
        if let Some(warmup) = &mut self.weights.awp_warmup_epochs {
            *warmup *= factor;
        }
        self
    }

    /// The same recipe for robustness in another radius ([`AttackConfig::radius`]): every other amount of pixels
    /// keeps its ratio to it. One without an attack has none.
    pub fn at_radius(mut self, radius: f32) -> Self {
        if self.attack.eps.0 == 0.0 {
            return self;
        }
        let eps = radius / self.attack.radius_of_eps();
        let factor = eps / self.attack.eps.0;
        self.attack.eps.0 = eps;
        let amounts = [
            &mut self.attack.step,
            &mut self.epsilon.last,
            &mut self.epsilon.gamma,
            &mut self.epsilon.smallest,
            &mut self.epsilon.largest,
        ];
        for amount in amounts.into_iter().flatten() {
            amount.0 *= factor;
        }
        self
    }

    /// Parses TOML and applies `KEY=VALUE` settings such as `attack.steps=7`.
    pub fn parse(text: &str, source: &str, settings: &[String]) -> Result<Self> {
        Self::read(text, source, &[], settings)
    }

    fn read(text: &str, source: &str, on: &[On], settings: &[String]) -> Result<Self> {
        let fault = |message: String| Error::Config(format!("recipe {source}: {message}"));
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| fault(e.to_string()))?;
        // What a run's config.toml says about model and data; the rest of it is the recipe.
        table.remove("run");
        let special = on::take(&mut table).map_err(fault)?;
        if !special.is_empty() {
            // What is wrong everywhere is not wrong there.
            Self::of(table.clone()).map_err(fault)?;
        }
        for (on, changes) in &special {
            let mut table = table.clone();
            on::put_over(&mut table, changes);
            Self::of(table).map_err(|message| fault(format!("[on.{on}]: {message}")))?;
        }
        for (_, changes) in special.iter().filter(|(key, _)| on.contains(key)) {
            on::put_over(&mut table, changes);
        }
        let mut changes = Vec::with_capacity(settings.len());
        for setting in settings {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| fault(format!("'{setting}': write KEY=VALUE, as in attack.steps=7")))?;
            changes.push((key.trim(), value.trim()));
        }
        changes.iter().for_each(|(key, value)| forget(&mut table, key, value));
        for (key, value) in &changes {
            set(&mut table, key, value).map_err(fault)?;
        }
        Self::of(table).map_err(fault)
    }

    fn of(table: toml::Table) -> std::result::Result<Self, String> {
        known_keys(&table)?;
        let recipe: Self = table.try_into().map_err(|e| explain(&e))?;
        recipe.check().map_err(|e| e.to_string())?;
        Ok(recipe)
    }

    /// The recipe as TOML that runs as it is.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is plain tables of numbers and words")
    }

    /// What is minimised where the attack has this radius: with clean replay the mean of both kinds of images,
    /// and clean images alone where there is nothing to attack with, but for BatchNorms that each kind has its own of.
    pub(super) fn loss_at(&self, radius: f64) -> LossConfig {
        let both = radius > 0.0 || self.batchnorm.mode == BatchNormTraining::Split;
        match self.replay.kind {
            ReplayKind::Clean if both => LossConfig { kind: LossKind::Mixed, ..self.loss.clone() },
            ReplayKind::Clean => LossConfig { kind: LossKind::Clean, ..self.loss.clone() },
            ReplayKind::None | ReplayKind::Noisy => self.loss.clone(),
        }
    }

    /// The part of the images attacked for which statistics are estimated anew, if they are.
    pub(super) fn recalibrated(&self) -> Option<f64> {
        let averaged = self.weights.swa.is_some() && self.batchnorm.mode != BatchNormTraining::Frozen;
        self.batchnorm.recalibrate.or(averaged.then_some(1.0))
    }

    fn check(&self) -> Result<()> {
        self.batchnorm.check()?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.attack.check()?;
        self.epsilon.check(&self.attack)?;
        self.loss.check(&self.attack)?;
        self.guide.check()?;
        self.head.check()?;
        self.replay.check(&self.attack, &self.epsilon)?;
        if self.replay.kind == ReplayKind::Clean && self.loss.kind != LossKind::Adversarial {
            return Err(Error::Config(
                "replay.kind = clean adds the clean images to loss.kind = adversarial; other losses have them \
                 already, or no adversarial ones"
                    .into(),
            ));
        }
        self.weights.check()?;
        self.check_together()?;
        self.selection.check()?;
        if self.data.batch == 0 {
            return Err(Error::Config("data.batch is at least 1".into()));
        }
        if self.epochs == 0 {
            return Err(Error::Config("epochs is at least 1".into()));
        }
        Ok(())
    }
}

impl Recipe {
    /// Refuses axes that contradict each other, with the reason.
    fn check_together(&self) -> Result<()> {
        let fault = |message: &str| Err(Error::Config(message.into()));
        if (self.loss.kind == LossKind::Mma) != (self.epsilon.policy == EpsilonPolicy::Mma) {
            return fault(
                "loss.kind = mma is of the points that epsilon.policy = mma finds, and the other way round; set both",
            );
        }
        let mixes = matches!(self.loss.kind, LossKind::Mixup | LossKind::Interpolated);
        if mixes && self.epsilon.policy.is_per_image() {
            return fault(
                "a radius for each image and mixtures of two images contradict each other; set epsilon.policy = fixed, \
                 hinge or linear",
            );
        }
        if mixes && self.attack.objective != AttackObjective::Ce {
            return fault(
                "attack.objective = kl or margin and mixtures of images: the attack follows the loss of both labels",
            );
        }
        let alone = mixes || self.loss.kind == LossKind::Lbgat;
        if alone && self.weights.awp.is_some() {
            return fault(
                "weights.awp moves the weights of one network by the loss of whole images; leave it out, or take \
                 another loss.kind",
            );
        }
        let of_all = self.weights.awp.is_some()
            || self.loss.kind == LossKind::Lbgat
            || self.attack.kind == AttackKind::Yopo;
        if self.layers != TrainedLayers::All && of_all {
            return fault(
                "weights.awp, loss.kind = lbgat and attack.kind = yopo change every weight; set layers = all, or \
                 leave them out",
            );
        }
        if mixes && (self.guide.kind != GuideKind::None || self.replay.kind != ReplayKind::None) {
            return fault(
                "guide and replay compare whole images, which a loss of mixtures has not; leave them out",
            );
        }
        if self.attack.guide.is_some() && self.guide.kind == GuideKind::None {
            return fault("attack.guide is a part of a guide's term; set guide.kind, or leave it out");
        }
        if self.attack.guide.is_some() && self.epsilon.policy.is_per_image() {
            return fault(
                "attack.guide and a radius for each image, which is found by the cross-entropy, contradict each other; \
                 set epsilon.policy = fixed, hinge or linear",
            );
        }
        let beside =
            matches!(self.loss.kind, LossKind::Mixed | LossKind::Trades | LossKind::Mart | LossKind::Alp);
        let split = self.batchnorm.mode == BatchNormTraining::Split;
        if split && !beside && self.replay.kind != ReplayKind::Clean {
            return fault(
                "batchnorm.mode = split is for clean images that are trained on beside attacked ones; set replay.kind = \
                 clean, or loss.kind = mixed, trades, mart or alp",
            );
        }
        let plain = self.loss.kind == LossKind::Adversarial
            && self.guide.kind == GuideKind::None
            && self.replay.kind == ReplayKind::None
            && self.weights.awp.is_none();
        if matches!(self.attack.kind, AttackKind::Free | AttackKind::Yopo) && !plain {
            return fault(
                "attack.kind = free or yopo takes the gradient of the images from the update of the weights: it needs \
                 loss.kind = adversarial, and neither guide, replay nor weights.awp",
            );
        }
        if self.attack.kind == AttackKind::Atta && (mixes || self.replay.kind == ReplayKind::Noisy) {
            return fault(
                "attack.kind = atta goes on from each image's own last attack: neither mixtures nor noise",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
