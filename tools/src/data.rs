//! `--data` and `--validate`: which images.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use adamant::{Dataset, Model, OpenOptions, Split, check_fit};
use anyhow::{Result, bail};

use crate::extra::Share;
use crate::output::count;
use crate::progress::Console;
use crate::saved::{SAVED, Saved};

/// Opens a split of `spec` for a model, which must fit it.
pub fn open(
    spec: &str,
    split: Split,
    limit: Option<usize>,
    model: &Model,
    console: &Console,
) -> Result<Dataset> {
    let dataset = match saved(spec) {
        Some(folder) => Saved::open(folder)?.dataset(limit)?,
        None => {
            let [channels, height, width] = model.network.input;
            let options = OpenOptions {
                size: Some([height, width]),
                channels: Some(channels),
                limit,
                unlabelled: false,
            };
            Dataset::open(spec, split, &options)?
        }
    };
    for note in &dataset.notes {
        console.note(&format!("{spec}: {note}"));
    }
    check_fit(&dataset, model.network.input, model.network.classes()?)?;
    Ok(dataset)
}

/// The folder of `attack --save` that `saved:DIR` or `DIR` names.
fn saved(spec: &str) -> Option<&Path> {
    match spec.split_once(':') {
        Some((kind, folder)) if kind == SAVED => Some(Path::new(folder)),
        _ => Some(Path::new(spec)).filter(|folder| Saved::is_one(folder)),
    }
}

/// Which images select the best epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validation {
    /// Images of the training split that follow those trained on.
    Train(usize),
    /// The first images of the test split.
    Test(usize),
    None,
}

impl Default for Validation {
    fn default() -> Self {
        Self::Train(500)
    }
}

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Train(n) => write!(f, "train:{n}"),
            Self::Test(n) => write!(f, "test:{n}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl FromStr for Validation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |n: &str| n.parse().ok().filter(|&n| n > 0);
        let found = match text.split_once(':') {
            Some(("train", n)) => number(n).map(Self::Train),
            Some(("test", n)) => number(n).map(Self::Test),
            _ => (text == "none").then_some(Self::None),
        };
        found.ok_or_else(|| "write train:N, test:N or none, as in train:500".to_owned())
    }
}

/// The images to train on and those to validate on; they never overlap.
pub struct Images {
    pub train: Dataset,
    /// Which of them are extra ones.
    pub extra: Option<Share>,
    pub validation: Option<Dataset>,
}

/// Opens what a run trains on: the first `limit` images of `split`, and beside them what
/// `validation` asks for.
pub fn open_for_training(
    spec: &str,
    split: Split,
    limit: Option<usize>,
    validation: Validation,
    model: &Model,
    console: &Console,
) -> Result<Images> {
    let after = if let Validation::Train(n) = validation { n } else { 0 };
    let all = open(spec, split, limit.map(|n| n.saturating_add(after)), model, console)?;
    let train = all.limit(limit.unwrap_or(usize::MAX));
    if let Some(absent) = absent_classes(&train) {
        console.warn(&absent);
    }
    match validation {
        Validation::None => Ok(Images { train, extra: None, validation: None }),
        Validation::Test(n) => {
            console.note(
                "the best epoch is selected on test images: its accuracy on them is no longer a fair test",
            );
            let test = open(spec, Split::Test, Some(n), model, console)?;
            let both = test.len().min(train.len());
            if test.limit(both).blake3() == train.limit(both).blake3() {
                bail!(
                    "--validate test:{n}: {spec} has these images to train on, too; take --validate train:{n}, which \
                     keeps them apart, or none"
                );
            }
            Ok(Images { train, extra: None, validation: Some(test) })
        }
        // As many as asked for, or as many as would be held out.
        Validation::Train(n) if all.len() - train.len() >= n.min((train.len() / 10).max(1)) => {
            let validation = all.subset(train.len()..train.len().saturating_add(n));
            if validation.len() < n {
                console.note(&format!(
                    "{} that follow those to train on: each epoch is measured by these",
                    count(validation.len(), "image")
                ));
            }
            Ok(Images { train, extra: None, validation: Some(validation) })
        }
        Validation::Train(n) => Ok(hold_out(&train, n, console)),
    }
}

/// Which classes have no image; nothing where all have some.
fn absent_classes(images: &Dataset) -> Option<String> {
    let names = &images.class_names;
    let absent = images.absent_classes(names.len());
    let shown = absent.iter().take(3).map(|&class| names[class].as_str()).collect::<Vec<_>>().join(", ");
    (!absent.is_empty()).then(|| {
        format!(
            "of {} classes {} have no image to train on: {shown}{}. --limit takes images in file order, which \
             in a folder is that of classes",
            names.len(),
            absent.len(),
            if absent.len() > 3 { " and others" } else { "" }
        )
    })
}

/// Takes the validation images from those to train on: `most`, but no more than a tenth, spread evenly over them,
/// for in a folder they come class by class.
fn hold_out(images: &Dataset, most: usize, console: &Console) -> Images {
    let held = most.min(images.len() / 10);
    if held == 0 {
        console.note("too few images to hold some out: the epochs are not measured");
        return Images { train: images.clone(), extra: None, validation: None };
    }
    console.note(&format!(
        "too few images follow those to train on: {held} of those are held out to measure each epoch by"
    ));
    let held: Vec<u32> = (0..held).map(|i| ((2 * i + 1) * images.len() / (2 * held)) as u32).collect();
    let kept: Vec<u32> = (0..images.len() as u32).filter(|at| held.binary_search(at).is_err()).collect();
    Images { train: images.reordered(&kept), extra: None, validation: Some(images.reordered(&held)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_reads_back_as_it_is_written() {
        for validation in [Validation::Train(500), Validation::Test(7), Validation::None] {
            assert_eq!(validation.to_string().parse(), Ok(validation));
        }
        for wrong in ["train", "train:0", "train:x", "valid:3", ""] {
            assert!(wrong.parse::<Validation>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_tenth_is_held_out() {
        let names = ["a", "b", "c"].map(String::from).to_vec();
        // Class by class, as a folder's.
        let labels = (0..95).map(|i| i / 32).collect();
        let images = Dataset::from_pixels("x", [1, 1, 1], names, (0..95).collect(), labels).unwrap();
        let console = Console::new(true, false);
        let split = hold_out(&images, 500, &console);
        let validation = split.validation.unwrap();
        assert_eq!(validation.labels(), [0, 0, 0, 1, 1, 1, 2, 2, 2]);
        let of = |data: &Dataset| (0..data.len()).map(|at| data.position(at)).collect::<Vec<_>>();
        let mut all = [of(&split.train), of(&validation)].concat();
        assert_eq!(split.train.len(), 86);
        all.sort_unstable();
        assert_eq!(all, (0..95).collect::<Vec<_>>());
        assert!(hold_out(&images.limit(9), 500, &console).validation.is_none());
        assert!(absent_classes(&images).is_none());
        assert!(absent_classes(&images.limit(32)).unwrap().contains("of 3 classes 2 have no image"));
    }
}
