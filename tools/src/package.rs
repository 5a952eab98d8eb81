//! `adamant package`: one file for an application, without what only training needs.

use std::fs;
use std::path::Path;

use adamant::package::{Package, Precision, SigningKey};
use adamant::{Dataset, EvaluationReport, Order};
use anyhow::{Context, Result, bail};

use crate::args::{Form, PackageArgs};
use crate::measure::{Measurement, open_device, parse_attacks, table};
use crate::model::Loaded;
use crate::output::percent;
use crate::progress::Console;
use crate::{Outcome, data, output};

/// The attack behind a package's claim.
const ATTACK: &str = "pgd:steps=20";

pub fn run(args: &PackageArgs, console: &Console) -> Result<Outcome> {
    // Measuring takes long: what is missing for the end is said before.
    let key = args.sign.as_deref().map(read_key).transpose()?;
    let mut loaded = Loaded::open(&args.model, &args.preprocessing, console)?;
    if let Some(path) = &args.labels {
        loaded.model.labels = read_labels(path, loaded.model.network.classes()?)?;
    }
    let images = match &args.data {
        Some(spec) => {
            let images = &args.images;
            let data = data::open(spec, images.split.split(), images.limit, &loaded.model, console)?;
            // Names of classes that the model lacks come from the data.
            if loaded.model.labels.is_empty() {
                loaded.model.labels.clone_from(&data.class_names);
            }
            Some(data)
        }
        None => None,
    };
    if loaded.model.labels.is_empty() {
        console.note("the classes have no names; --labels FILE gives them some");
    }

    // What is measured is what a reader of the file gets.
    let package = packed(args, &loaded)?;
    let mut package = Package::from_bytes(&package.to_bytes(&args.out)?, &args.out)?;
    let changed =
        package.model.network != loaded.model.network || package.model.values != loaded.model.values;
    let mut text = String::new();
    if let Some(data) = &images {
        let packed = loaded.with_model(package.model.clone());
        let after = measure(args, data, &packed, console)?;
        text += &(table(&after, &[]) + "\n");
        if changed {
            let before = measure(args, data, &loaded, console)?;
            let cost = Cost::new(&before, &after);
            text += &(cost.text() + "\n\n");
            if cost.worst() > args.max_drop {
                output::print(&text)?;
                console.warn(&format!(
                    "packing costs more than --max-drop {} points; nothing was written to {}",
                    args.max_drop,
                    args.out.display()
                ));
                return Ok(Outcome::TargetMissed);
            }
        }
        package.report = Some(after);
    } else if changed && package.report.take().is_some() {
        console.note("the claims were measured before packing and are left out; --data measures new ones");
    }
    if let Some(report) = &mut package.report {
        // The file goes to others, who need not know in which folder its maker keeps the model.
        let name = Path::new(&report.model).file_name();
        report.model = name.map_or_else(|| report.model.clone(), |n| n.to_string_lossy().into_owned());
    }
    match &key {
        Some(key) => package.write_signed(&args.out, key)?,
        None => package.write(&args.out)?,
    }
    let size = fs::metadata(&args.out).map_or(0, |m| m.len());
    output::print(&format!("{text}{}: {}\n", args.out.display(), output::bytes(size)))?;
    Ok(Outcome::Done)
}

/// The package that was asked for, with the claims that the model had.
fn packed(args: &PackageArgs, loaded: &Loaded) -> Result<Package> {
    let precision = args.precision.precision();
    let form = args.form.unwrap_or(match precision {
        Precision::F32 => Form::Trainable,
        Precision::F16 | Precision::Int8 => Form::Inference,
    });
    let mut package = Package::new(loaded.model.clone(), loaded.provenance.clone());
    if form == Form::Inference {
        package.model = package.model.folded();
    }
    package.precision = precision;
    package.report.clone_from(&loaded.report);
    Ok(package)
}

/// Measures what a package claims.
fn measure(
    args: &PackageArgs,
    data: &Dataset,
    loaded: &Loaded,
    console: &Console,
) -> Result<EvaluationReport> {
    let attacks = parse_attacks(&[ATTACK], &args.ball)?;
    let images = &args.images;
    let device = open_device(&args.device, console)?;
    let batch = images.batch.within(args.device.memory_limit, &loaded.model, &device)?;
    let measurement = Measurement::of(data, &attacks, images, Order::Independent, batch);
    Ok(measurement.run(loaded, device, console, |_, _, _| Ok(()))?.report)
}

/// Accuracies before and after packing, 0 to 1.
struct Cost {
    clean: [f64; 2],
    robust: [f64; 2],
}

impl Cost {
    fn new(before: &EvaluationReport, after: &EvaluationReport) -> Self {
        Self {
            clean: [before, after].map(|r| r.clean.accuracy),
            robust: [before, after].map(|r| r.worst_case.robust_accuracy),
        }
    }

    /// Points lost where more are.
    fn worst(&self) -> f64 {
        let lost = |[before, after]: [f64; 2]| 100.0 * (before - after);
        // A sum of a few counts: rounding must not turn half a point into more than half a point.
        let worst = lost(self.clean).max(lost(self.robust));
        (worst * 1e9).round() / 1e9
    }

    fn text(&self) -> String {
        let [[clean, packed_clean], [robust, packed_robust]] =
            [self.clean, self.robust].map(|p| p.map(percent));
        format!("packing: clean {clean} -> {packed_clean}, attacked {robust} -> {packed_robust}")
    }
}

fn read_key(path: &Path) -> Result<SigningKey> {
    let what = || format!("--sign {}: no key could be read; `adamant keygen` makes one", path.display());
    let text = fs::read_to_string(path).with_context(what)?;
    SigningKey::from_text(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
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
