//! The folder of a training run: settings, metrics of every epoch, checkpoints, log.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::likeness::Cosines;
use crate::error::{Error, Result};
use crate::package::{Package, atomic};

/// A line of `metrics.jsonl`. Accuracies are parts, 0 to 1; robust is under the training attack.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Counted from 1.
    pub epoch: u32,
    /// Learning rate of the last batch.
    pub lr: f64,
    /// Mean training loss of the epoch.
    pub loss: f64,
    /// What that loss is made of, by name.
    #[serde(default)]
    pub terms: BTreeMap<String, f64>,
    /// Accuracy on the images trained on, as the loss saw them, before each update.
    pub train_accuracy: f64,
    pub clean_accuracy: Option<f64>,
    pub robust_accuracy: Option<f64>,
    /// How like the features are to those of the start; absent where no images are attacked after each epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<Cosines>,
    /// Where each training image has a radius of its own: the least, the quartiles and the largest after the
    /// epoch, in pixels of [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps_quartiles: Option<[f32; 5]>,
    /// Mean radius of the training attack, in pixels of [0, 1].
    pub mean_eps: f64,
    /// Robustness fell so far in this epoch that it was undone, and the run ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolled_back: bool,
    /// Training time, validation not counted.
    pub seconds: f64,
    pub images_per_second: f64,
}

/// A run's folder.
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// The folder of a new run, which nothing is written to yet. One that already holds a run is refused.
    pub fn free(path: &Path) -> Result<Self> {
        if path.join("checkpoint.adamant").exists() {
            return Err(Error::Config(format!(
                "{} already holds a run; continue it with --resume, or choose another --out",
                path.display()
            )));
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Makes the folder.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(Error::io(&self.path))
    }

    /// Makes the folder, with no metrics and no log: an interrupted run may have left some before its first
    /// checkpoint.
    pub fn start(&self) -> Result<()> {
        self.create()?;
        for name in ["metrics.jsonl", "log.txt"] {
            let file = self.file(name);
            File::create(&file).map_err(Error::io(&file))?;
        }
        Ok(())
    }

    /// Opens the folder of an earlier run.
    pub fn open(path: &Path) -> Result<Self> {
        let run = Self { path: path.to_owned() };
        let checkpoint = run.checkpoint();
        if !checkpoint.exists() {
            return Err(Error::Config(format!(
                "{} holds no checkpoint.adamant: nothing to resume",
                path.display()
            )));
        }
        Ok(run)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Weights, optimiser and counters after the last whole epoch.
    pub fn checkpoint(&self) -> PathBuf {
        self.file("checkpoint.adamant")
    }

    /// The best epoch by robust accuracy on the validation images, clean accuracy where there is
    /// no attack.
    pub fn best(&self) -> PathBuf {
        self.file("best.adamant")
    }

    /// The package that stands for the run: the best one when there is one, else the last.
    pub fn selected(path: &Path) -> PathBuf {
        let best = path.join("best.adamant");
        if best.exists() { best } else { path.join("checkpoint.adamant") }
    }

    /// Writes `config.toml`: everything resolved, enough to repeat the run.
    pub fn write_config(&self, text: &str) -> Result<()> {
        let path = self.file("config.toml");
        atomic::write(&path, |file| file.write_all(text.as_bytes()))
    }

    pub fn write_checkpoint(&self, package: &Package) -> Result<()> {
        package.write(self.checkpoint())
    }

    pub fn write_best(&self, package: &Package) -> Result<()> {
        package.write(self.best())
    }

    /// Adds an epoch to `metrics.jsonl`; `line` is one JSON object.
    pub fn append_metrics(&self, line: &str) -> Result<()> {
        self.append("metrics.jsonl", line)
    }

    /// The text of `metrics.jsonl`: a JSON object a line.
    pub fn read_metrics(&self) -> Result<String> {
        let path = self.file("metrics.jsonl");
        fs::read_to_string(&path).map_err(Error::io(&path))
    }

    /// Cuts `metrics.jsonl` back to its first `epochs` lines: an epoch that was measured but whose
    /// checkpoint was not yet written runs again.
    pub fn rewind_metrics(&self, epochs: u32) -> Result<()> {
        let path = self.file("metrics.jsonl");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let kept: String = text.lines().take(epochs as usize).map(|l| format!("{l}\n")).collect();
        atomic::write(&path, |file| file.write_all(kept.as_bytes()))
    }

    pub fn log(&self, line: &str) -> Result<()> {
        self.append("log.txt", line)
    }

    fn append(&self, name: &str, line: &str) -> Result<()> {
        let path = self.file(name);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        writeln!(file, "{line}").map_err(Error::io(&path))
    }
}
