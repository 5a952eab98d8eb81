//! `--extra`: more images to train on, with labels of their own or with those that the model gives them.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::str::FromStr;

use adamant::finetune::{RunDirectory, pseudo_labels};
use adamant::package::write_atomically;
use adamant::{Dataset, Extra, Model, OpenOptions, Session, Split, check_fit};
use anyhow::{Context, Result, bail};

use crate::args::DeviceArgs;
use crate::data::{self, Images};
use crate::measure::open_silently;
use crate::output::count;
use crate::progress::Console;

/// Less sure guesses of the model are no labels.
const CONFIDENCE: f32 = 0.7;

/// Images that the model looks at together.
const BATCH: usize = 128;

/// The labels of the run's extra images, in its folder.
const FILE: &str = "extra_labels.json";

/// `DATA`, or `DATA:FRACTION`.
#[derive(Clone, PartialEq, Debug)]
pub struct ExtraSpec {
    pub data: String,
    /// The part of every batch, between 0 and 1.
    pub fraction: f64,
}

impl FromStr for ExtraSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fraction = text.rsplit_once(':').and_then(|(data, f)| Some((data, f.parse::<f64>().ok()?)));
        match fraction {
            Some((_, f)) if !(f > 0.0 && f < 1.0) => Err(format!(
                "{f} is no part of a batch; write a number between 0 and 1, as in folder:DIR:0.5"
            )),
            Some((data, fraction)) => Ok(Self { data: data.to_owned(), fraction }),
            None => Ok(Self { data: text.to_owned(), fraction: 0.5 }),
        }
    }
}

impl fmt::Display for ExtraSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.data, self.fraction)
    }
}

/// Where extra images begin, and which part of every batch they are.
#[derive(Clone, Copy)]
pub struct Share {
    pub first: usize,
    fraction: f64,
}

impl Share {
    pub fn of_batch(self, batch: usize) -> adamant::Result<Extra> {
        Extra::new(self.first, self.fraction, batch)
    }
}

/// Where the labels come from.
pub enum Labels<'a> {
    Own,
    /// The model that training starts from.
    Model {
        model: &'a Model,
        device: &'a DeviceArgs,
    },
    /// The run's folder, in a file with this hash.
    Kept(&'a str),
}

impl<'a> Labels<'a> {
    pub const fn of_model(model: &'a Model, device: &'a DeviceArgs) -> Self {
        Self::Model { model, device }
    }
}

/// Adds the extra images to those to train on, but none that validates. Returns the hash of the labels that
/// the model gave.
pub fn add(
    images: &mut Images,
    spec: &ExtraSpec,
    source: Labels<'_>,
    directory: &RunDirectory,
    model: &Model,
    console: &Console,
) -> Result<Option<String>> {
    let own = matches!(source, Labels::Own);
    let found = open(spec, !own, model, console)?;
    let classes = &images.train.class_names;
    let (mut labels, hash) = match source {
        // A folder sorts its classes by name.
        Labels::Own if classes.iter().all(|name| found.class_names.contains(name)) => {
            let place = |name: &String| classes.iter().position(|known| known == name).map(|at| at as u32);
            let places: Vec<Option<u32>> = found.class_names.iter().map(place).collect();
            (found.labels().iter().map(|&label| places[label as usize]).collect(), None)
        }
        Labels::Own if *classes != found.class_names => {
            console.warn(&format!(
                "{spec}: its classes are called {}, those of --data {}; they are taken for the same in that order",
                some(&found.class_names),
                some(classes)
            ));
            (found.labels().iter().copied().map(Some).collect(), None)
        }
        Labels::Own => (found.labels().iter().copied().map(Some).collect(), None),
        Labels::Model { model, device } => {
            let labels = guess(&found, model, device)?;
            let text = serde_json::to_string(&labels)?;
            directory.create()?;
            write_atomically(directory.path().join(FILE), text.as_bytes())?;
            let sure = labels.iter().flatten().count();
            console.line(&format!(
                "{spec}: the model is sure of {sure} of {} (a probability of {CONFIDENCE} or more)",
                count(found.len(), "image")
            ));
            (labels, Some(hash(&text)))
        }
        Labels::Kept(expected) => (kept(directory, expected, found.len())?, None),
    };
    let taken = leave_out(&mut labels, &found, images.validation.as_ref());
    if taken > 0 {
        console.note(&format!("{spec}: {} that validate are left out", count(taken, "image")));
    }
    let extra = found.relabelled(&labels, &images.train.class_names)?;
    if extra.is_empty() {
        bail!("--extra {spec}: no image is left to train on");
    }
    images.extra = Some(Share { first: images.train.len(), fraction: spec.fraction });
    images.train = images.train.join(&extra)?;
    Ok(hash)
}

/// The first of these names.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    shown + if names.len() > 3 { ", ..." } else { "" }
}

fn open(spec: &ExtraSpec, unlabelled: bool, model: &Model, console: &Console) -> Result<Dataset> {
    let [channels, height, width] = model.network.input;
    if !unlabelled {
        return data::open(&spec.data, Split::Train, None, model, console);
    }
    let options =
        OpenOptions { size: Some([height, width]), channels: Some(channels), limit: None, unlabelled };
    let found = Dataset::open(&spec.data, Split::Train, &options)?;
    // The classes of the data do not matter.
    check_fit(&found, model.network.input, found.class_names.len())?;
    Ok(found)
}

fn guess(data: &Dataset, model: &Model, device: &DeviceArgs) -> Result<Vec<Option<u32>>> {
    let mut session = Session::new(open_silently(device)?, model, BATCH)?;
    Ok(pseudo_labels(&mut session, data, BATCH, CONFIDENCE)?)
}

fn kept(directory: &RunDirectory, expected: &str, images: usize) -> Result<Vec<Option<u32>>> {
    let path = directory.path().join(FILE);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if hash(&text) != expected {
        bail!("{}: not the labels that the run was started with", path.display());
    }
    let labels: Vec<Option<u32>> = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    if labels.len() != images {
        bail!("{}: {} for {}", path.display(), count(labels.len(), "label"), count(images, "extra image"));
    }
    Ok(labels)
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Takes the label from images that are also among `validation`; returns how many had one.
fn leave_out(labels: &mut [Option<u32>], data: &Dataset, validation: Option<&Dataset>) -> usize {
    let len = data.shape.iter().product();
    let read = |data: &Dataset, index: usize| {
        let mut pixels = vec![0.0; len];
        data.image(index, &mut pixels);
        pixels.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    let held: HashSet<Vec<u32>> = validation.iter().flat_map(|v| (0..v.len()).map(|i| read(v, i))).collect();
    let mut taken = 0;
    for (i, label) in labels.iter_mut().enumerate().filter(|_| !held.is_empty()) {
        if label.is_some() && held.contains(&read(data, i)) {
            *label = None;
            taken += 1;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_may_follow_the_data() {
        let spec = |text: &str| text.parse::<ExtraSpec>();
        let of = |data: &str, fraction| Ok(ExtraSpec { data: data.to_owned(), fraction });
        assert_eq!(spec("folder:more:0.3"), of("folder:more", 0.3));
        assert_eq!(spec("folder:more"), of("folder:more", 0.5));
        assert_eq!(spec("more"), of("more", 0.5));
        assert_eq!(spec(&of("svhn:a b", 0.7).unwrap().to_string()), of("svhn:a b", 0.7));
        for wrong in ["more:0", "more:1", "more:1.5", "more:NaN"] {
            assert!(spec(wrong).is_err(), "{wrong}");
        }
    }
}
