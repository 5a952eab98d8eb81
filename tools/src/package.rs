//! `adamant package`: one file for an application, without what only training needs.

use std::fs;
use std::path::Path;

use adamant::package::Package;
use adamant::{EvaluationReport, Order};
use anyhow::{Context, Result, bail};

use crate::args::{PackageArgs, Precision};
use crate::measure::{Measurement, open_device, parse_attacks, table};
use crate::model::Loaded;
use crate::progress::Console;
use crate::{Outcome, data, output};

/// The attack behind a package's claim.
const ATTACK: &str = "pgd:steps=20";

pub fn run(args: &PackageArgs, console: &Console) -> Result<Outcome> {
    if args.precision != Precision::F32 {
        bail!("--precision f16 and int8 are not available yet; f32 is");
    }
    let mut loaded = Loaded::open(&args.model, &args.preprocessing, console)?;
    if let Some(path) = &args.labels {
        loaded.model.labels = read_labels(path, loaded.model.network.classes()?)?;
    }
    if let Some(spec) = &args.data {
        loaded.report = Some(measure(args, spec, &mut loaded, console)?);
    }
    let Loaded { model, provenance, report, .. } = loaded;
    if model.labels.is_empty() {
        console.note("the classes have no names; --labels FILE gives them some");
    }
    let package = Package { model, provenance, report, training: None };
    package.write(&args.out)?;
    let claims = match &package.report {
        Some(report) if args.data.is_some() => table(report) + "\n",
        _ => String::new(),
    };
    let size = fs::metadata(&args.out).map_or(0, |m| m.len());
    output::print(&format!("{claims}{}: {}\n", args.out.display(), output::bytes(size)))?;
    Ok(Outcome::Done)
}

/// Measures what the package will claim. Names of classes that the model lacks come from the data.
fn measure(
    args: &PackageArgs,
    spec: &str,
    loaded: &mut Loaded,
    console: &Console,
) -> Result<EvaluationReport> {
    let attacks = parse_attacks(&[ATTACK], &args.ball)?;
    let images = &args.images;
    let data = data::open(spec, images.split.split(), images.limit, &loaded.model, console)?;
    if loaded.model.labels.is_empty() {
        loaded.model.labels.clone_from(&data.class_names);
    }
    let device = open_device(&args.device.device, console)?;
    let measurement = Measurement::of(&data, &attacks, &args.images, Order::Independent);
    Ok(measurement.run(loaded, device, console, |_, _, _| Ok(()))?.report)
}

fn read_labels(path: &Path, classes: usize) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let labels: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if labels.len() != classes {
        bail!(
            "{}: {} for a model with {classes} classes; write one name a line",
            path.display(),
            output::count(labels.len(), "line")
        );
    }
    if let Some(line) = labels.iter().position(String::is_empty) {
        bail!("{}: line {} is empty; write one name a line", path.display(), line + 1);
    }
    Ok(labels)
}
