//! MODEL: an ONNX file, a package or a run directory.

use std::path::Path;
use std::str::FromStr;

use adamant::finetune::RunDirectory;
use adamant::package::{Package, Precision, Provenance};
use adamant::{EvaluationReport, ImportNotes, Model, Preprocessing, import_with_notes};
use anyhow::{Context, Result, bail};
use clap::Args;

use crate::progress::Console;

/// Preprocessing, needed for a bare ONNX file only.
#[derive(Args, Clone)]
pub struct PreprocessingArgs {
    /// What the model's input was normalised by: R,G,B, or the name cifar10, imagenet or none
    #[arg(long, value_name = "R,G,B", allow_hyphen_values = true)]
    pub mean: Option<PerChannel>,
    /// As --mean; a name for one of them stands for both
    #[arg(long, value_name = "R,G,B")]
    pub std: Option<PerChannel>,
}

/// A number for each channel, or the name of a data set's.
#[derive(Clone, PartialEq, Debug)]
pub enum PerChannel {
    Named(&'static Statistics),
    Numbers(Vec<f32>),
}

#[derive(PartialEq, Debug)]
pub struct Statistics {
    name: &'static str,
    mean: &'static [f32],
    std: &'static [f32],
}

static STATISTICS: [Statistics; 3] = [
    Statistics { name: "cifar10", mean: &[0.4914, 0.4822, 0.4465], std: &[0.2471, 0.2435, 0.2616] },
    Statistics { name: "imagenet", mean: &[0.485, 0.456, 0.406], std: &[0.229, 0.224, 0.225] },
    Statistics { name: "none", mean: &[0.0], std: &[1.0] },
];

/// The normalisation with this name.
///
/// # Panics
/// When there is none.
pub fn statistics(name: &str, channels: usize) -> adamant::Result<Preprocessing> {
    let found = STATISTICS.iter().find(|s| s.name == name).expect("the names are those above");
    Preprocessing::new(found.mean, found.std, channels)
}

impl FromStr for PerChannel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(found) = STATISTICS.iter().find(|s| s.name == text) {
            return Ok(Self::Named(found));
        }
        let numbers: Option<Vec<f32>> =
            text.split(',').map(|part| part.trim().parse().ok().filter(|x: &f32| x.is_finite())).collect();
        numbers.map(Self::Numbers).ok_or_else(|| {
            "write one number a channel, as in 0.485,0.456,0.406, or cifar10, imagenet or none".to_owned()
        })
    }
}

impl PerChannel {
    fn mean(&self) -> &[f32] {
        match self {
            Self::Named(statistics) => statistics.mean,
            Self::Numbers(numbers) => numbers,
        }
    }

    fn std(&self) -> &[f32] {
        match self {
            Self::Named(statistics) => statistics.std,
            Self::Numbers(numbers) => numbers,
        }
    }
}

impl PreprocessingArgs {
    /// What the user asked for; `None` when that is nothing.
    pub fn resolve(&self, channels: usize) -> Result<Option<Preprocessing>> {
        use PerChannel::{Named, Numbers};
        let (mean, std) = match (&self.mean, &self.std) {
            (None, None) => return Ok(None),
            (Some(Numbers(_)), None) => bail!("--mean without --std: give both"),
            (None, Some(Numbers(_))) => bail!("--std without --mean: give both"),
            (Some(Named(s)), None) | (None, Some(Named(s))) => (s.mean, s.std),
            (Some(mean), Some(std)) => (mean.mean(), std.std()),
        };
        Ok(Some(Preprocessing::new(mean, std, channels)?))
    }
}

/// A model and where it comes from.
pub struct Loaded {
    pub model: Model,
    /// As the user named it.
    pub name: String,
    /// BLAKE3 hash of the file it was read from: of a run directory, the selected package.
    pub blake3: String,
    pub provenance: Provenance,
    /// How the package stores the weights; f32 for what is none.
    pub precision: Precision,
    /// What a package claims.
    pub report: Option<EvaluationReport>,
    /// What the importer noticed about an ONNX file.
    pub notes: Option<ImportNotes>,
}

impl Loaded {
    /// Another form of the same model.
    pub fn with_model(&self, model: Model) -> Self {
        Self {
            model,
            name: self.name.clone(),
            blake3: self.blake3.clone(),
            provenance: self.provenance.clone(),
            precision: self.precision,
            report: None,
            notes: None,
        }
    }

    /// Reads a model. `preprocessing` serves a bare ONNX file, and overrides what a package says.
    pub fn open(path: &Path, preprocessing: &PreprocessingArgs, console: &Console) -> Result<Self> {
        let mut loaded = Self::read(path)?;
        let asked = preprocessing.resolve(loaded.model.network.input[0])?;
        match asked {
            Some(asked) => {
                if loaded.notes.is_none() && asked != loaded.model.preprocessing {
                    console.warn("--mean and --std replace what the package says about its preprocessing");
                }
                loaded.model.preprocessing = asked;
            }
            None if loaded.notes.is_some() => console.warn(
                "no --mean and --std: assuming that the model takes pixels of [0, 1] as they are; \
                 if so, --mean none says it",
            ),
            None => {}
        }
        for note in loaded.notes.iter().flat_map(|n| &n.notes) {
            console.note(&format!("{}: {note}", path.display()));
        }
        Ok(loaded)
    }

    /// Reads a model that images are made against. What the user says about normalisation is about ONNX
    /// files alone: `own` of these, or else that of the model that is attacked.
    pub fn open_surrogate(
        path: &Path,
        own: &PreprocessingArgs,
        attacked: &PreprocessingArgs,
        console: &Console,
    ) -> Result<Self> {
        let mut loaded = Self::read(path)?;
        if loaded.notes.is_none() {
            return Ok(loaded);
        }
        let channels = loaded.model.network.input[0];
        match own.resolve(channels).with_context(|| "--surrogate-mean and --surrogate-std")? {
            Some(own) => loaded.model.preprocessing = own,
            None => loaded = Self::open(path, attacked, console)?,
        }
        Ok(loaded)
    }

    /// Reads a model as the file describes it.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = if path.is_dir() { RunDirectory::selected(path) } else { path.to_owned() };
        if path.is_dir() && !file.exists() {
            bail!("{name}: not a run, it holds no checkpoint.adamant");
        }
        let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let imported = Provenance::imported(&file, &bytes);
        let blake3 = imported.source_blake3.clone();
        // A damaged package should be told as one, not as a bad ONNX file.
        if Package::recognizes(&bytes) || file.extension().is_some_and(|e| e == "adamant") {
            let Package { model, provenance, report, precision, .. } = Package::from_bytes(&bytes, &file)?;
            return Ok(Self { model, name, blake3, provenance, precision, report, notes: None });
        }
        let (model, notes) = import_with_notes(&file)?;
        let precision = Precision::F32;
        Ok(Self { model, name, blake3, provenance: imported, precision, report: None, notes: Some(notes) })
    }

    /// Names for the classes: the model's own, else numbers.
    pub fn label(&self, class: usize) -> String {
        self.model.labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(mean: Option<&str>, std: Option<&str>) -> PreprocessingArgs {
        let parse = |text: &str| text.parse().unwrap();
        PreprocessingArgs { mean: mean.map(parse), std: std.map(parse) }
    }

    #[test]
    fn a_name_stands_for_both() {
        let named = args(Some("cifar10"), None).resolve(3).unwrap().unwrap();
        assert_eq!(named, args(None, Some("cifar10")).resolve(3).unwrap().unwrap());
        assert_eq!(named.std, [0.2471, 0.2435, 0.2616]);
        let none = args(Some("none"), None).resolve(1).unwrap();
        assert_eq!(none, Some(Preprocessing::none(1)));
        let numbers = args(Some("0.5"), Some("0.25,0.25,0.25")).resolve(3).unwrap().unwrap();
        assert_eq!((numbers.mean, numbers.std), (vec![0.5; 3], vec![0.25; 3]));
        assert_eq!(args(None, None).resolve(3).unwrap(), None);
    }

    #[test]
    fn half_of_it_is_an_error() {
        assert!(args(Some("0.5"), None).resolve(3).is_err());
        assert!(args(Some("cifar10"), None).resolve(1).is_err());
        assert!("0.5,x".parse::<PerChannel>().is_err());
    }
}
