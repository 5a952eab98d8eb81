//! Adapts a package to an application's own images, on the user's device: steps that the application drives,
//! stops and goes on with, and a new package with a claim of its own.
//!
//! The model has learned white ink on black. This user writes black on white.

use std::time::Duration;

use adamant::finetune::Recipe;
use adamant::package::{Package, Precision, Provenance};
use adamant::{
    AdaptLimits, AdaptOptions, Adaptation, Classifier, Dataset, Device, DeviceChoice, EvaluationReport,
    Example, Examples, OpenOptions, Picture, Split, import,
};

fn main() -> anyhow::Result<()> {
    // What an application has: a compact package, and pictures with classes.
    let model = import("examples/data/digits_resnet8.onnx".as_ref())?;
    let package = Package { precision: Precision::F16, ..Package::new(model, Provenance::default()) };
    let package = package.to_bytes("digits.adamant")?;
    let digits = Dataset::open("mnist:examples/data/digits", Split::Train, &OpenOptions::default())?;
    let examples = Examples {
        name: "black ink on white".into(),
        train: inverted(&digits.subset(0..320))?,
        held_out: inverted(&digits.subset(320..520))?,
    };

    // Only the last block and the head, two of its three blocks frozen, for at most a minute and 64 MiB.
    let settings = ["layers=last:2", "epochs=6", "data.batch=32", "attack.eps=0.05", "attack.steps=5"];
    let limits = AdaptLimits { memory: Some(64 << 20), time: Some(Duration::from_secs(60)) };
    let options = AdaptOptions {
        source_name: "digits.adamant".into(),
        recipe: Recipe::load("aft", &settings.map(String::from))?,
        seed: 0,
        attacks: Vec::new(),
        limits,
    };
    let device = || Device::open(&DeviceChoice::Auto);
    let mut adaptation = Adaptation::start(&package, device()?, &examples, options)?;
    println!("before: {}", words(&adaptation.measure()?));

    // The user locks the phone half-way: what was saved goes on later as if nothing had happened.
    while !adaptation.is_done() && adaptation.step()?.part < 0.5 {}
    let saved = adaptation.save()?;
    drop(adaptation);
    let mut adaptation = Adaptation::resume(&saved, device()?, &examples, limits)?;
    while !adaptation.is_done() {
        let progress = adaptation.step()?;
        eprint!("\r{:.0}%, loss {:.3} ", 100.0 * progress.part, progress.loss);
    }
    eprintln!();

    let adapted = adaptation.finish()?;
    if let Some(report) = &adapted.report {
        println!("after:  {}", words(report));
    }
    println!("it came from {}", adapted.provenance.source_blake3);
    let path = std::env::temp_dir().join("adapted.adamant");
    adapted.write(&path)?;
    let best = &Classifier::open(&path)?.classify(&examples.held_out[0].picture, 1)?[0];
    println!("a {}, read as {}", examples.held_out[0].class, best.class);
    Ok(())
}

/// Digits in black on white.
fn inverted(digits: &Dataset) -> adamant::Result<Vec<Example>> {
    let mut pixels = vec![0.0; digits.shape.iter().product()];
    let example = |at: usize| {
        digits.image(at, &mut pixels);
        let picture = Picture::new(digits.shape, pixels.iter().map(|p| 1.0 - p).collect())?;
        Ok(Example { picture, class: digits.labels()[at] as usize })
    };
    (0..digits.len()).map(example).collect()
}

fn words(report: &EvaluationReport) -> String {
    format!(
        "{} of {} right, {} under {}-{} at {}",
        report.clean.correct,
        report.images,
        report.attacks[0].robust_correct,
        report.attacks[0].name,
        report.attacks[0].steps,
        report.attacks[0].eps as f32
    )
}
