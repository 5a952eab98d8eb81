//! `adamant train`: a new model from random weights, for what has no pretrained one.

use adamant::finetune::RunDirectory;
use adamant::package::Provenance;
use adamant::{Architecture, Dataset, OpenOptions, Preprocessing, architectures};
use anyhow::Result;

use crate::Outcome;
use crate::args::{SplitName, TrainArgs};
use crate::finetune::{begin, finish, resume_from};
use crate::model::{Loaded, statistics};
use crate::output;
use crate::progress::Console;
use crate::settings;
use crate::training::Run;

pub fn run(args: &TrainArgs, console: &Console) -> Result<Outcome> {
    output::check(&args.run.json)?;
    let run = match args.run.resume {
        true => resume_from(args.recipe.as_deref(), &args.run, &args.arch, "", console)?,
        false => Some(start(args, console)?),
    };
    finish(run, &args.run, console)
}

fn start(args: &TrainArgs, console: &Console) -> Result<Run> {
    let recipe = args.recipe.as_deref().unwrap_or("standard");
    settings::check(recipe, &args.run)?;
    RunDirectory::free(&args.run.out)?;
    let sample = sample(args)?;
    let [channels, ..] = sample.shape;
    let seed = args.run.seed.unwrap_or(0);
    let mut model = Architecture::build(&args.arch, sample.shape, sample.class_names.len(), seed)?;
    model.preprocessing = match args.run.preprocessing.resolve(channels)? {
        Some(asked) => asked,
        None => usual(&sample.name, channels)?,
    };
    let loaded = Loaded {
        model,
        name: args.arch.clone(),
        blake3: String::new(),
        provenance: Provenance::default(),
        precision: adamant::package::Precision::F32,
        report: None,
        notes: None,
    };
    begin("train", loaded, recipe, &args.run, console)
}

/// One image of the data, which tells size and classes. Folders are resized to what the
/// architecture was made for.
fn sample(args: &TrainArgs) -> Result<Dataset> {
    let known = architectures().iter().find(|a| a.name == args.arch);
    let [_, height, width] = known.map_or([3, 32, 32], |a| a.input);
    let options =
        OpenOptions { size: Some([height, width]), channels: None, limit: Some(1), unlabelled: false };
    let split = args.run.split.unwrap_or(SplitName::Train);
    Ok(Dataset::open(&args.run.data, split.split(), &options)?)
}

/// The normalisation that is usual for a data set.
fn usual(data: &str, channels: usize) -> Result<Preprocessing> {
    let name = match data {
        "cifar10" | "cifar100" => "cifar10",
        "folder" => "imagenet",
        _ => "none",
    };
    Ok(statistics(name, channels)?)
}
