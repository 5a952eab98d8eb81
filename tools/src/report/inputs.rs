//! What a report is made of: results of `evaluate` and `compare`, runs, packages, and folders of images.

use std::path::Path;

use adamant::EvaluationReport;
use adamant::finetune::{EpochMetrics, RunDirectory};
use adamant::package::Package;
use anyhow::{Context, Result, bail};

use crate::analyse::Analysis;
use crate::compare::Comparison;
use crate::corruptions::Published;
use crate::evaluation::Evaluation;
use crate::saved::Saved;
use crate::settings::Settings;

#[derive(Default)]
pub struct Inputs {
    pub measured: Vec<Measured>,
    /// Results on published corrupted images, which have no clean ones beside them.
    pub published: Vec<Published>,
    /// Tables of `compare`.
    pub compared: Vec<Comparison>,
    pub runs: Vec<Run>,
    pub pictures: Vec<Saved>,
}

/// An evaluation, with all that its file says about it where that is more than the report.
pub struct Measured {
    pub report: EvaluationReport,
    pub full: Option<Evaluation>,
    /// What the page cannot show because the file does not have it.
    pub missing: Option<String>,
}

/// Parts of a result, and what the page makes of them.
const PARTS: [(&str, &str); 6] = [
    ("order", "whether the attacks ran in turn"),
    ("metrics", "sum, ARDist and curves"),
    ("command", "the command"),
    ("settings", "the settings and hashes"),
    ("outcome", "the result of each image"),
    ("first_image", "which images they were"),
];

/// What a result lacks that is of an earlier version, or damaged.
fn lacks(text: &str, full: &Result<Evaluation>) -> Option<String> {
    let full = match full {
        Ok(full) => full,
        Err(error) => {
            let whole: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            let absent: Vec<&str> =
                PARTS.iter().filter(|(key, _)| whole.get(key).is_none()).map(|(_, what)| *what).collect();
            return Some(match absent.is_empty() {
                true => format!("only its accuracies can be read ({})", error.root_cause()),
                false => format!("it is of an earlier version, without {}", absent.join(", ")),
            });
        }
    };
    let attacks = full.report.attacks.len();
    (full.metrics.cost.len() != attacks)
        .then(|| "it is of an earlier version, without what each attack cost".to_owned())
}

/// A folder of `train` or `finetune`.
pub struct Run {
    pub path: String,
    pub settings: Settings,
    pub epochs: Vec<EpochMetrics>,
    /// The radius of each training image, where it has its own.
    pub radii: Vec<f32>,
    pub analysis: Option<Analysis>,
}

impl Inputs {
    pub fn read(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let mut inputs = Self::default();
        for path in paths {
            inputs.add(path.as_ref())?;
        }
        let results = inputs.measured.len() + inputs.published.len() + inputs.compared.len();
        if results + inputs.runs.len() + inputs.pictures.len() == 0 {
            bail!("there is nothing to report");
        }
        Ok(inputs)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let name = path.display();
        if !path.exists() {
            bail!("{name}: there is no such file or folder");
        }
        if path.is_dir() {
            return match () {
                () if Saved::is_one(path) => {
                    self.pictures.push(Saved::open(path)?);
                    Ok(())
                }
                () if path.join("metrics.jsonl").is_file() => {
                    self.runs.push(Run::read(path)?);
                    Ok(())
                }
                () => bail!(
                    "{name}: neither a run (metrics.jsonl) nor images of `adamant attack --save` (manifest.json)"
                ),
            };
        }
        if path.extension().is_some_and(|e| e == "adamant") {
            let claim = Package::read(path)?.report;
            let report = claim.with_context(|| {
                format!("{name}: the package makes no claim; package it with --data, or evaluate it")
            })?;
            let missing = Some("a package has its claim alone: no settings, curves or command".to_owned());
            self.measured.push(Measured { report, full: None, missing });
            return Ok(());
        }
        let text = std::fs::read_to_string(path).with_context(|| name.to_string())?;
        if let Ok(compared) = serde_json::from_str::<Comparison>(&text) {
            self.compared.push(compared);
            return Ok(());
        }
        if let Ok(published) = serde_json::from_str::<Published>(&text)
            && serde_json::from_str::<EvaluationReport>(&text).is_err()
        {
            self.published.push(published);
            return Ok(());
        }
        // A file of an earlier version has the report alone.
        let full = Evaluation::read(path);
        let report = match &full {
            Ok(full) => full.report.clone(),
            Err(_) => serde_json::from_str::<EvaluationReport>(&text).map_err(|_| {
                anyhow::anyhow!(
                    "{name}: not the result of `adamant evaluate --json` or `adamant compare --json`, a package, a \
                     run, or a folder of `adamant attack --save`"
                )
            })?,
        };
        let missing = lacks(&text, &full).map(|what| format!("{what}; evaluate again to have all of it"));
        self.measured.push(Measured { report, full: full.ok(), missing });
        Ok(())
    }
}

impl Run {
    pub fn read(path: &Path) -> Result<Self> {
        if !path.join("metrics.jsonl").is_file() {
            bail!(
                "{}: not a folder that `finetune` or `train` filled: it has no metrics.jsonl",
                path.display()
            );
        }
        let file = |name: &str| path.join(name);
        let read = |name: &str| {
            std::fs::read_to_string(file(name)).with_context(|| file(name).display().to_string())
        };
        let metrics = read("metrics.jsonl")?;
        let epochs = metrics
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .with_context(|| file("metrics.jsonl").display().to_string())?;
        let settings = Settings::parse(&read("config.toml")?)
            .with_context(|| file("config.toml").display().to_string())?;
        let checkpoint = RunDirectory::selected(path).with_file_name("checkpoint.adamant");
        let radii = match checkpoint.is_file() {
            true => radii(&Package::read(&checkpoint)?),
            false => Vec::new(),
        };
        let analysis = Analysis::read(path)?;
        Ok(Self { path: path.display().to_string(), settings, epochs, radii, analysis })
    }
}

/// The radii that a checkpoint keeps of its training images.
fn radii(package: &Package) -> Vec<f32> {
    let tensors = package.training.iter().flat_map(|t| &t.tensors);
    tensors.filter(|(name, _)| name == "epsilon").map(|(_, values)| values.clone()).next().unwrap_or_default()
}
