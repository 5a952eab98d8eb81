//! `adamant attack`: robust accuracy under one attack, and the images that it found.

use adamant::{Dataset, Device, Order, Session, probabilities};
use anyhow::Result;

use crate::args::AttackArgs;
use crate::measure::{Measurement, open_device, open_silently, parse_attacks};
use crate::model::Loaded;
use crate::progress::Console;
use crate::saved::{Manifest, Saving};
use crate::{Outcome, data, output};

pub fn run(args: &AttackArgs, console: &Console) -> Result<Outcome> {
    let attacks = parse_attacks(&[&args.attack], &args.ball)?;
    let loaded = Loaded::open(&args.model, &args.preprocessing, console)?;
    let images = &args.images;
    let data = data::open(&args.data, images.split.split(), images.limit, &loaded.model, console)?;
    let mut saved = args.save.as_deref().map(Saving::create).transpose()?;
    let device = open_device(&args.device, console)?;
    let batch = images.batch.within(args.device.memory_limit, &loaded.model, &device)?;
    let measurement = Measurement::of(&data, &attacks, images, Order::Independent, batch);
    let found = measurement.run(&loaded, device, console, |_, at, image| match &mut saved {
        Some(saved) => saved.put(at, image),
        None => Ok(()),
    })?;
    if let Some(mut saved) = saved {
        let [channels, height, width] = data.shape;
        let device = open_silently(&args.device)?;
        let manifest = Manifest {
            schema: 1,
            model: loaded.name.clone(),
            data: data.name.clone(),
            split: images.split.name().into(),
            attack: attacks[0].kind.clone(),
            norm: attacks[0].ball.norm,
            eps: attacks[0].ball.eps,
            dtype: "f32, little-endian, in [0, 1]".into(),
            shape: [data.len(), channels, height, width],
            class_names: data.class_names.clone(),
            labels: data.labels().to_vec(),
            indices: (data.offset()..data.offset() + data.len()).collect(),
            clean_correct: found.outcome.clean.clone(),
            robust: found.outcome.robust[0].clone(),
            predicted: predict(&mut saved, &loaded, device, measurement.batch, &data)?,
        };
        let mut clean = Vec::with_capacity(data.len() * channels * height * width);
        let mut image = vec![0.0; channels * height * width];
        for at in 0..data.len() {
            data.image(at, &mut image);
            clean.extend(image.iter().map(|x| (x * 255.0).round() as u8));
        }
        saved.finish(&manifest, &clean)?;
    }
    output::result(&args.json, &found, &found.text())?;
    Ok(Outcome::Done)
}

/// The class that the model takes each saved image for.
fn predict(
    saved: &mut Saving,
    loaded: &Loaded,
    device: Device,
    batch: usize,
    data: &Dataset,
) -> Result<Vec<u32>> {
    let len = data.shape.iter().product();
    let mut session = Session::new(device, &loaded.model, batch.min(data.len()).max(1))?;
    let classes = session.classes();
    let mut predicted = Vec::with_capacity(data.len());
    for first in (0..data.len()).step_by(session.capacity()) {
        let count = session.capacity().min(data.len() - first);
        let mut images = Vec::with_capacity(count * len);
        for at in first..first + count {
            images.extend(saved.get(at, len)?);
        }
        let found = probabilities(&mut session, &images, count)?;
        let best = |row: &[f32]| (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
        predicted.extend(found.chunks_exact(classes).map(|row| best(row).unwrap_or(0) as u32));
    }
    Ok(predicted)
}
