//! Fine-tunes a model on adversarial images and packs the result for an application.

use std::sync::atomic::AtomicBool;

use adamant::finetune::{Event, Recipe, Trainer, TrainerOptions};
use adamant::package::{Package, Provenance};
use adamant::{Dataset, Device, DeviceChoice, OpenOptions, Session, Split, import};

fn main() -> anyhow::Result<()> {
    let mut model = import("examples/data/digits_resnet8.onnx".as_ref())?;
    let digits = Dataset::open("mnist:examples/data/digits", Split::Train, &OpenOptions::default())?;

    // A recipe by name, with two of its choices changed.
    let settings = ["attack.eps=0.1", "epochs=2"].map(String::from);
    let recipe = Recipe::load("aft", &settings)?;

    let stop = AtomicBool::new(false);
    let session = Session::new(Device::open(&DeviceChoice::Auto)?, &model, recipe.data.batch)?;
    let options = TrainerOptions {
        seed: 0,
        train: digits.subset(0..1000),
        extra: None,
        validation: Some(digits.subset(1000..1200)),
        stop: &stop,
    };
    let mut trainer = Trainer::new(session, recipe, options)?;
    while !trainer.is_done() {
        let metrics = trainer.epoch(|event| {
            if let Event::Batch { batch, batches, loss, .. } = event {
                eprint!("\rbatch {batch} of {batches}, loss {loss:.3} ");
            }
        })?;
        println!(
            "\nepoch {}: clean {:.1}%, robust {:.1}%",
            metrics.epoch,
            100.0 * metrics.clean_accuracy.unwrap_or(f64::NAN),
            100.0 * metrics.robust_accuracy.unwrap_or(f64::NAN)
        );
    }

    model.values = trainer.weights()?;
    let package = Package::new(model, Provenance::default());
    let path = std::env::temp_dir().join("digits.adamant");
    package.write(&path)?;
    println!("wrote {}", path.display());
    Ok(())
}
