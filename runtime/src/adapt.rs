//! Adapting a package to an application's own images, on the user's device, in steps that the application
//! drives.
//!
//! An [`Adaptation`] trains one batch at each [`Adaptation::step`]. Between steps it can be saved as bytes and
//! gone on with later, to the bit, or dropped: the package it began with is never changed. What it makes is a
//! package of its own, with a claim measured on images that no step saw, and the hash of the package before it.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::attacks::AttackSpec;
use crate::classifier::Picture;
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate::{EvaluateOptions, ReportContext, evaluate};
use crate::finetune::{Recipe, Trainer, TrainerOptions, room};
use crate::package::{Package, Precision, Provenance};
use crate::report::EvaluationReport;
use crate::session::Session;

/// Steps never stop of themselves: whoever drives them just asks for no more.
static NEVER: AtomicBool = AtomicBool::new(false);

/// For messages about packages in memory.
const IN_MEMORY: &str = "package";

/// A picture with its class.
#[derive(Clone, PartialEq, Debug)]
pub struct Example {
    pub picture: Picture,
    /// Below the number of the model's classes.
    pub class: usize,
}

/// What to adapt to. Pixels are rounded to bytes, as those of every data set.
#[derive(Clone, PartialEq, Debug)]
pub struct Examples {
    /// What the images are called in the claim, such as `my-photos`.
    pub name: String,
    pub train: Vec<Example>,
    /// What the claim is measured on: images that are not among those of `train`.
    pub held_out: Vec<Example>,
}

/// How to adapt.
#[derive(Clone, PartialEq, Debug)]
pub struct AdaptOptions {
    /// What the file of the package is called: for the provenance of the one that comes of it.
    pub source_name: String,
    /// The method; its key `layers` says what trains, and `data.batch` how many images a step has.
    pub recipe: Recipe,
    pub seed: u64,
    /// What the claim is about; without any, PGD-20 in the ball of the recipe's attack, and clean images alone
    /// for a recipe without one.
    pub attacks: Vec<AttackSpec>,
    pub limits: AdaptLimits,
}

/// What adapting may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AdaptLimits {
    /// Bytes of device memory; activations are computed again where keeping them would take more, and batches
    /// trained on in parts where that is not enough.
    pub memory: Option<u64>,
    /// Time spent in steps, those before a [`Adaptation::resume`] included. The last step may exceed it.
    pub time: Option<Duration>,
}

/// How far an adaptation is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdaptProgress {
    /// The epoch under way, counted from 1.
    pub epoch: u32,
    pub epochs: u32,
    /// Batches of the epoch that are done.
    pub batch: usize,
    pub batches: usize,
    /// Mean training loss of the epoch so far.
    pub loss: f64,
    /// Accuracy on the images trained on, in the epoch so far, before each update: 0 to 1.
    pub accuracy: f64,
    /// Part of the whole that is done, 0 to 1: of the work or of the time, whichever ends sooner.
    pub part: f64,
    /// Time spent in steps.
    pub time: Duration,
    /// Part of a step's arithmetic that is done twice to stay within the memory limit, 0 to 1.
    pub recomputed: f64,
    /// Parts that a batch is trained on in, one after the other, to stay within the memory limit; 1 where it is
    /// not needed.
    pub parts: usize,
    /// Nothing is left to do but [`Adaptation::finish`].
    pub done: bool,
}

/// What a saved adaptation knows besides weights and optimiser.
#[derive(Serialize, Deserialize)]
struct Saved {
    precision: Precision,
    /// Hashes of the images.
    train: String,
    held_out: String,
    seconds: f64,
    attacks: Vec<AttackSpec>,
}

/// A package that is being adapted.
///
/// ```no_run
/// use adamant::finetune::Recipe;
/// use adamant::{AdaptOptions, Adaptation, Device, Examples};
///
/// # fn adapt(examples: &Examples) -> adamant::Result<()> {
/// let before = std::fs::read("model.adamant").expect("the file is there");
/// let recipe = Recipe::load("aft", &["layers=last:1".into(), "epochs=2".into()])?;
/// let source_name = "model.adamant".to_owned();
/// let options = AdaptOptions { source_name, recipe, seed: 0, attacks: vec![], limits: Default::default() };
/// let mut adaptation = Adaptation::start(&before, Device::open(&Default::default())?, examples, options)?;
/// while !adaptation.is_done() {
///     println!("{:.0}%", 100.0 * adaptation.step()?.part);
/// }
/// adaptation.finish()?.write("adapted.adamant")?;
/// # Ok(())
/// # }
/// ```
pub struct Adaptation {
    trainer: Trainer<'static>,
    /// The package as it was, but for its weights.
    package: Package,
    train: Dataset,
    held_out: Dataset,
    attacks: Vec<AttackSpec>,
    limits: AdaptLimits,
    seed: u64,
    time: Duration,
}

impl Adaptation {
    /// Begins to adapt `package`, the bytes of a package's file.
    ///
    /// # Errors
    /// What [`Package::from_bytes`] says; [`Error::Config`] when examples do not fit the model, are held out and
    /// trained on at once, or the recipe undoes whole epochs; [`Error::Limit`] when the memory is too little: it
    /// says what would be enough.
    pub fn start(package: &[u8], device: Device, examples: &Examples, options: AdaptOptions) -> Result<Self> {
        let hash = blake3::hash(package).to_hex().to_string();
        let mut package = Package::from_bytes(package, IN_MEMORY)?;
        package.training = None;
        package.provenance = Provenance {
            source_name: options.source_name,
            source_blake3: hash,
            recipe: options.recipe.to_toml(),
            data: format!("{}, {} images", examples.name, examples.train.len()),
            ..Provenance::default()
        };
        let AdaptOptions { recipe, seed, attacks, limits, .. } = options;
        let attacks = match (attacks.is_empty(), recipe.attack.measure()) {
            (true, Some(own)) => {
                vec![AttackSpec::parse("pgd:steps=20", Some(own.ball.norm), Some(own.ball.eps))?]
            }
            _ => attacks,
        };
        Self::new(package, device, examples, recipe, attacks, seed, limits)
    }

    /// Goes on with what [`Adaptation::save`] gave: with the same examples, but limits as they are now.
    ///
    /// # Errors
    /// As [`Adaptation::start`], and [`Error::Config`] when the examples or what was saved are others.
    pub fn resume(saved: &[u8], device: Device, examples: &Examples, limits: AdaptLimits) -> Result<Self> {
        let fault = |message: &str| Error::Config(format!("the saved adaptation {message}"));
        let mut package = Package::from_bytes(saved, "saved adaptation")?;
        let state = package.training.take().ok_or_else(|| fault("is a package: start with it"))?;
        let mut table: toml::Table = state.settings.parse().map_err(|_| fault("has no settings"))?;
        let of_run =
            table.remove("run").ok_or_else(|| fault("is a checkpoint of another kind of training"))?;
        let Saved { precision, train, held_out, seconds, attacks } =
            of_run.try_into().map_err(|_| fault("is a checkpoint of another kind of training"))?;
        let recipe = Recipe::parse(&state.settings, "of the saved adaptation", &[])?;
        package.precision = precision;
        let mut found = Self::new(package, device, examples, recipe, attacks, state.seed, limits)?;
        if [train, held_out] != [found.train.blake3(), found.held_out.blake3()] {
            return Err(fault("saw other examples; give the same ones in the same order"));
        }
        let weights = found.package.model.values.clone();
        found.trainer.restore(&weights, &state)?;
        found.time = Duration::try_from_secs_f64(seconds).map_err(|_| fault("was changed"))?;
        Ok(found)
    }

    fn new(
        package: Package,
        mut device: Device,
        examples: &Examples,
        recipe: Recipe,
        attacks: Vec<AttackSpec>,
        seed: u64,
        limits: AdaptLimits,
    ) -> Result<Self> {
        if recipe.selection.guard.is_some() {
            return Err(Error::Config("selection.guard undoes whole epochs; leave it out to adapt".into()));
        }
        if examples.held_out.is_empty() {
            return Err(Error::Config(
                "no examples are held out; the claim is measured on some that training does not see".into(),
            ));
        }
        let classes = package.model.network.classes()?;
        let train = dataset(examples, &examples.train, &package, classes)?;
        let held_out = dataset(examples, &examples.held_out, &package, classes)?;
        check_apart(&train, &held_out)?;
        if let Some(bytes) = limits.memory {
            device.limit_memory(bytes);
        }
        let at_once = room(&device, &package.model, &recipe, &train)?.images;
        let session = Session::new(device, &package.model, at_once)?;
        let options =
            TrainerOptions { seed, train: train.clone(), extra: None, validation: None, stop: &NEVER };
        let trainer = Trainer::new(session, recipe, options)?;
        Ok(Self { trainer, package, train, held_out, attacks, limits, seed, time: Duration::ZERO })
    }

    /// Whether the last epoch is over, or the time spent.
    pub fn is_done(&self) -> bool {
        self.trainer.is_done() || self.limits.time.is_some_and(|budget| self.time >= budget)
    }

    /// Trains on one batch.
    ///
    /// # Errors
    /// [`Error::Config`] when nothing is left to do, [`Error::NonFinite`] when the loss is no number any more,
    /// [`Error::Device`] when the device fails, [`Error::Limit`] when the memory is too little.
    pub fn step(&mut self) -> Result<AdaptProgress> {
        if self.is_done() {
            return Err(Error::Config("the adaptation is done: finish it".into()));
        }
        let start = Instant::now();
        let at = self.trainer.step()?;
        if at.batch == at.batches {
            self.trainer.end_epoch(|_| {})?;
        }
        self.time += start.elapsed();
        let epochs = self.trainer.recipe().epochs;
        let work = (f64::from(at.epoch) + at.batch as f64 / at.batches as f64) / f64::from(epochs);
        let spent = |budget: Duration| self.time.as_secs_f64() / budget.as_secs_f64().max(f64::MIN_POSITIVE);
        Ok(AdaptProgress {
            epoch: at.epoch + 1,
            epochs,
            batch: at.batch,
            batches: at.batches,
            loss: at.loss,
            accuracy: at.accuracy,
            part: self.limits.time.map_or(0.0, spent).max(work).min(1.0),
            time: self.time,
            recomputed: self.trainer.session().device().recomputed(),
            parts: self.trainer.parts(),
            done: self.is_done(),
        })
    }

    /// Everything that [`Adaptation::resume`] needs, besides the examples, as the bytes of a package.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails.
    pub fn save(&mut self) -> Result<Vec<u8>> {
        let saved = Saved {
            precision: self.package.precision,
            train: self.train.blake3(),
            held_out: self.held_out.blake3(),
            seconds: self.time.as_secs_f64(),
            attacks: self.attacks.clone(),
        };
        let saved = toml::Table::try_from(saved).expect("it is plain words and numbers");
        let run = toml::Table::from_iter([("run".to_owned(), toml::Value::Table(saved))]);
        let mut state = self.trainer.state(None)?;
        state.settings += &format!("\n{run}");
        let mut package =
            Package { precision: Precision::F32, training: Some(state), ..self.package.clone() };
        package.model.values = self.trainer.weights()?;
        package.to_bytes("saved adaptation")
    }

    /// The model as it is now, packed as the package before it was.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails, [`Error::Package`] when the weights cannot be stored.
    pub fn package(&mut self) -> Result<Package> {
        let mut package = Package { report: None, ..self.package.clone() };
        package.model.values = self.trainer.weights()?;
        // What is measured is what a reader of the file gets.
        Package::from_bytes(&package.to_bytes(IN_MEMORY)?, IN_MEMORY)
    }

    /// Clean and attacked accuracy of the model as it is now, and packed, on the examples held out.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails.
    pub fn measure(&mut self) -> Result<EvaluationReport> {
        let package = self.package()?;
        self.measured(&package)
    }

    fn measured(&mut self, package: &Package) -> Result<EvaluationReport> {
        let session = self.trainer.session();
        let live = session.read_parameters()?;
        session.write_parameters(&package.model.values)?;
        let options = EvaluateOptions {
            attacks: &self.attacks,
            batch: session.capacity(),
            seed: self.seed,
            stop: &NEVER,
        };
        let outcome = evaluate(session, &self.held_out, &options, |_| {});
        session.write_parameters(&live)?;
        let (device, classes) = (session.device_name(), session.classes());
        let context = ReportContext {
            model: &package.provenance.source_name,
            data: &self.held_out.name,
            split: "test",
            seed: self.seed,
            device: &device,
            classes,
        };
        Ok(outcome?.report(&self.attacks, &context))
    }

    /// The adapted model as a package with its own claim. Where measuring fails for want of memory, nothing is
    /// lost: save, and resume with a higher limit.
    ///
    /// # Errors
    /// [`Error::Limit`] when the memory is too little; otherwise as [`Adaptation::package`] and [`Adaptation::measure`].
    pub fn finish(&mut self) -> Result<Package> {
        let package = self.package()?;
        let report = self.measured(&package)?;
        Ok(Package { report: Some(report), ..package })
    }
}

fn dataset(examples: &Examples, part: &[Example], package: &Package, classes: usize) -> Result<Dataset> {
    let shape = package.model.network.input;
    if let Some(at) = part.iter().position(|e| e.picture.shape() != shape) {
        return Err(Error::Config(format!(
            "example {at} is {:?} (channels, height, width); the model takes {shape:?}: resize it first",
            part[at].picture.shape()
        )));
    }
    let names = match package.model.labels.is_empty() {
        true => (0..classes).map(|class| class.to_string()).collect(),
        false => package.model.labels.clone(),
    };
    let byte = |value: &f32| (value * 255.0).round() as u8;
    let pixels = part.iter().flat_map(|e| e.picture.pixels().iter().map(byte)).collect();
    let label = |e: &Example| u32::try_from(e.class).unwrap_or(u32::MAX);
    Dataset::from_pixels(&examples.name, shape, names, pixels, part.iter().map(label).collect())
}

/// An image that was trained on tells nothing about others.
fn check_apart(train: &Dataset, held_out: &Dataset) -> Result<()> {
    let seen: HashSet<&[u8]> = (0..train.len()).filter_map(|at| train.bytes(at)).collect();
    match (0..held_out.len()).find(|&at| held_out.bytes(at).is_some_and(|bytes| seen.contains(bytes))) {
        Some(at) => Err(Error::Config(format!(
            "example {at} of those held out is trained on, too; the claim would be about what the model has seen"
        ))),
        None => Ok(()),
    }
}
