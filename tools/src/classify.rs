//! `adamant classify`: what an application does with a package.

use adamant::{Classifier, Picture};
use anyhow::Result;
use serde::Serialize;

use crate::Outcome;
use crate::args::{BatchSize, ClassifyArgs};
use crate::measure::open_device;
use crate::model::Loaded;
use crate::output::{self, percent};
use crate::progress::Console;

#[derive(Serialize)]
struct Classified {
    schema: u32,
    model: String,
    device: String,
    images: Vec<Image>,
}

#[derive(Serialize)]
struct Image {
    file: String,
    /// The most probable classes, best first.
    top: Vec<Guess>,
}

#[derive(Serialize)]
struct Guess {
    index: usize,
    label: String,
    probability: f32,
}

pub fn run(args: &ClassifyArgs, console: &Console) -> Result<Outcome> {
    let loaded = Loaded::open(&args.model, &args.preprocessing, console)?;
    let shape = loaded.model.network.input;
    let device = open_device(&args.device, console)?;
    let device_name = device.name();
    let batch = BatchSize::Auto.resolve(shape).min(args.files.len());
    let classifier = Classifier::of_model(loaded.model.clone(), device, batch)?;
    let mut images = Vec::with_capacity(args.files.len());
    for files in args.files.chunks(batch) {
        let pictures = files.iter().map(|f| Picture::open(f, shape)).collect::<adamant::Result<Vec<_>>>()?;
        let found = classifier.classify_all(&pictures.iter().collect::<Vec<_>>(), args.top)?;
        for (file, guesses) in files.iter().zip(found) {
            let named = |g: adamant::Guess| Guess {
                index: g.class,
                label: loaded.label(g.class),
                probability: g.probability,
            };
            let top = guesses.into_iter().map(named).collect();
            images.push(Image { file: file.display().to_string(), top });
        }
    }
    let width = images.iter().map(|i| i.file.chars().count()).max().unwrap_or(0).min(44);
    let text = images.iter().map(|image| line(image, width)).collect::<String>();
    let value = Classified { schema: 1, model: loaded.name, device: device_name, images };
    output::result(&args.json, &value, &text)?;
    Ok(Outcome::Done)
}

fn line(image: &Image, width: usize) -> String {
    let guesses: Vec<String> = image
        .top
        .iter()
        .map(|guess| format!("{} {}", guess.label, percent(f64::from(guess.probability))))
        .collect();
    let line = format!("{:<width$}  {}", image.file, guesses.join("  "));
    output::wrap(&line, width + 2) + "\n"
}
