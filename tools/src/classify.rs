//! `adamant classify`: what an application does with a package.

use adamant::{Session, load_image, probabilities};
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
    let device = open_device(&args.device.device, console)?;
    let batch = BatchSize::Auto.resolve(shape).min(args.files.len());
    let mut session = Session::new(device, &loaded.model, batch)?;
    let mut images = Vec::with_capacity(args.files.len());
    for files in args.files.chunks(batch) {
        let mut pixels = Vec::new();
        for file in files {
            pixels.extend(load_image(file, shape)?);
        }
        let found = probabilities(&mut session, &pixels, files.len())?;
        for (file, row) in files.iter().zip(found.chunks_exact(session.classes())) {
            images.push(Image { file: file.display().to_string(), top: top(row, args.top, &loaded) });
        }
    }
    let width = images.iter().map(|i| i.file.chars().count()).max().unwrap_or(0).min(44);
    let text = images.iter().map(|image| line(image, width)).collect::<String>();
    let value = Classified { schema: 1, model: loaded.name, device: session.device_name(), images };
    output::result(&args.json, &value, &text)?;
    Ok(Outcome::Done)
}

/// The `count` most probable classes; of equals, the one with the lower index.
fn top(probabilities: &[f32], count: usize, loaded: &Loaded) -> Vec<Guess> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order.truncate(count);
    let guess = |index| Guess { index, label: loaded.label(index), probability: probabilities[index] };
    order.into_iter().map(guess).collect()
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
