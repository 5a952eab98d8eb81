//! What is measured of a model, and kept in `--out`: a model may take an hour under AutoAttack.

use std::collections::BTreeMap;
use std::path::PathBuf;

use adamant::finetune::{features, mean_cosine};
use adamant::package::write_atomically;
use adamant::{Dataset, Order, Session, Tradeoff};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::args::{BallArgs, BatchSize, CompareArgs, ImagesArgs, SplitName, Suite};
use crate::measure::{Measurement, open_device, open_silently, parse_attacks};
use crate::model::Loaded;
use crate::output::percent;
use crate::progress::Console;

const FILE: &str = "measured.json";

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Accuracies, 0 to 1.
    pub clean: f64,
    pub pgd20: f64,
    /// With --autoattack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoattack: Option<f64>,
    /// Clean and robust accuracy, of the strongest attack measured.
    pub sum: f64,
    /// Distance from the published trade-off, in points; it is defined for AutoAttack, on CIFAR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ardist: Option<f64>,
    /// Mean cosine between what the last, linear layer sees of a clean image and what it saw before, -1 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
}

impl Measured {
    /// Accuracy under the strongest attack measured, 0 to 1.
    pub fn robust(&self) -> f64 {
        self.autoattack.unwrap_or(self.pgd20)
    }
}

/// What all models of a table are measured with.
#[derive(PartialEq, Serialize, Deserialize)]
struct Settings {
    adamant_version: String,
    /// Hash of the model that all start from: the cosine is to its features.
    start_blake3: String,
    mean: Vec<f32>,
    std: Vec<f32>,
    data_blake3: String,
    eps: f32,
    autoattack: bool,
    seed: u64,
    device: String,
}

/// The file: numbers of models by their hash, on disk as soon as they are known.
#[derive(Serialize, Deserialize)]
struct Known {
    settings: Settings,
    models: BTreeMap<String, Measured>,
}

/// Measures models alike, and each once.
pub struct Measurer<'a> {
    args: &'a CompareArgs,
    images: &'a Dataset,
    console: &'a Console,
    /// What the last layer of the start sees of the images.
    before: Option<Vec<f32>>,
    known: Known,
}

impl<'a> Measurer<'a> {
    /// What measures at the radius `eps`, with what it says of the start.
    pub fn new(
        args: &'a CompareArgs,
        eps: f32,
        start: &Loaded,
        images: &'a Dataset,
        console: &'a Console,
    ) -> Result<(Self, Measured)> {
        let settings = Settings {
            adamant_version: env!("CARGO_PKG_VERSION").to_owned(),
            start_blake3: start.blake3.clone(),
            mean: start.model.preprocessing.mean.clone(),
            std: start.model.preprocessing.std.clone(),
            data_blake3: images.blake3(),
            eps,
            autoattack: args.autoattack,
            seed: args.run.seed.unwrap_or(0),
            device: open_device(&args.run.device, console)?.name(),
        };
        let mut measurer =
            Self { args, images, console, before: None, known: Known { settings, models: BTreeMap::new() } };
        if let Some(earlier) = measurer.read()?.filter(|known| known.settings == measurer.known.settings) {
            measurer.known = earlier;
        }
        let measured = measurer.measure("before", start)?;
        measurer.before = measurer.features(start)?;
        Ok((measurer, measured))
    }

    /// The numbers of a model: those that are known, or else what is found now.
    pub fn measure(&mut self, title: &str, loaded: &Loaded) -> Result<Measured> {
        let measured = match self.known.models.get(&loaded.blake3) {
            Some(known) => known.clone(),
            None => {
                let measured = self.find(loaded)?;
                self.known.models.insert(loaded.blake3.clone(), measured.clone());
                self.write()?;
                measured
            }
        };
        let autoattack = measured.autoattack.map(|a| format!(", {} under AutoAttack", percent(a)));
        self.console.line(&format!(
            "{title}: {} clean, {} under PGD-20{}",
            percent(measured.clean),
            percent(measured.pgd20),
            autoattack.unwrap_or_default()
        ));
        Ok(measured)
    }

    fn find(&self, loaded: &Loaded) -> Result<Measured> {
        let [clean, pgd20] = self.attack(loaded, &["pgd:steps=20"], Order::Independent)?;
        let autoattack = match self.args.autoattack {
            true => Some(self.attack(loaded, Suite::Autoattack.attacks(), Order::InTurn)?[1]),
            false => None,
        };
        let tradeoff = Tradeoff::of(&self.images.name);
        let distance = |robust: f64| tradeoff.map(|t| t.distance(100.0 * clean, 100.0 * robust).distance);
        let cosine = match &self.before {
            Some(before) => self.features(loaded)?.map(|now| mean_cosine(&now, before, self.images.len())),
            None => None,
        };
        Ok(Measured {
            clean,
            pgd20,
            autoattack,
            sum: clean + autoattack.unwrap_or(pgd20),
            ardist: autoattack.and_then(distance),
            cosine,
        })
    }

    /// Clean accuracy, and what withstands all of these attacks.
    fn attack(&self, loaded: &Loaded, attacks: &[&str], order: Order) -> Result<[f64; 2]> {
        let settings = &self.known.settings;
        let images = ImagesArgs {
            split: SplitName::Test,
            limit: Some(self.args.images),
            batch: self.args.run.batch.unwrap_or(BatchSize::Auto),
            seed: settings.seed,
        };
        let attacks = parse_attacks(attacks, &BallArgs { norm: None, eps: Some(settings.eps) })?;
        let device = open_silently(&self.args.run.device)?;
        let batch = images.batch.within(self.args.run.device.memory_limit, &loaded.model, &device)?;
        let measurement = Measurement::of(self.images, &attacks, &images, order, batch);
        let report = measurement.run(loaded, device, self.console, |_, _, _| Ok(()))?.report;
        Ok([report.clean.accuracy, report.worst_case.robust_accuracy])
    }

    /// What the last layer sees of the images, row by row; nothing where it is not linear.
    fn features(&self, loaded: &Loaded) -> Result<Option<Vec<f32>>> {
        let (run, model) = (&self.args.run, &loaded.model);
        if model.network.head().is_none() {
            return Ok(None);
        }
        let device = open_silently(&run.device)?;
        let batch = run.batch.unwrap_or(BatchSize::Auto);
        let batch = batch.within(run.device.memory_limit, model, &device)?;
        let mut session = Session::new(device, model, batch.min(self.images.len()).max(1))?;
        Ok(Some(features(&mut session, self.images, None)?))
    }

    fn path(&self) -> PathBuf {
        self.args.run.out.join(FILE)
    }

    fn read(&self) -> Result<Option<Known>> {
        let path = self.path();
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let damaged = || format!("{}: not what was measured, or damaged; delete it", path.display());
        Ok(Some(serde_json::from_slice(&text).with_context(damaged)?))
    }

    fn write(&self) -> Result<()> {
        let folder = &self.args.run.out;
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(write_atomically(self.path(), &serde_json::to_vec_pretty(&self.known)?)?)
    }
}
