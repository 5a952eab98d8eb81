//! `adamant attack`: robust accuracy under one attack, and the images that it found.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use adamant::Order;
use adamant::op::Norm;
use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::AttackArgs;
use crate::measure::{Measurement, Printed, open_device, parse_attacks, table};
use crate::model::Loaded;
use crate::progress::Console;
use crate::{Outcome, data, output};

pub fn run(args: &AttackArgs, console: &Console) -> Result<Outcome> {
    let attacks = parse_attacks(&[&args.attack], &args.ball)?;
    let loaded = Loaded::open(&args.model, &args.preprocessing, console)?;
    let images = &args.images;
    let data = data::open(&args.data, images.split.split(), images.limit, &loaded.model, console)?;
    let mut saved = args.save.as_deref().map(Saved::create).transpose()?;
    let device = open_device(&args.device, console)?;
    let measurement = Measurement {
        data: &data,
        split: images.split.name(),
        attacks: &attacks,
        order: Order::Independent,
        batch: images.batch.within(args.device.memory_limit, &loaded.model, device.is_cpu())?,
        seed: images.seed,
    };
    let report = measurement.run(&loaded, device, console, |_, at, found| match &mut saved {
        Some(saved) => saved.put(at, found),
        None => Ok(()),
    })?;
    if let Some(saved) = saved {
        let [channels, height, width] = data.shape;
        saved.finish(&Manifest {
            schema: 1,
            model: &loaded.name,
            data: &data.name,
            split: images.split.name(),
            attack: &attacks[0].kind,
            norm: attacks[0].ball.norm,
            eps: attacks[0].ball.eps,
            dtype: "f32, little-endian, in [0, 1]",
            shape: [data.len(), channels, height, width],
            class_names: &data.class_names,
            labels: data.labels(),
            indices: (data.offset()..data.offset() + data.len()).collect(),
        })?;
    }
    output::result(&args.json, &Printed::new(&report, measurement.order, data.offset()), &table(&report))?;
    Ok(Outcome::Done)
}

/// What `manifest.json` says about `images.f32`.
#[derive(Serialize)]
struct Manifest<'a> {
    schema: u32,
    model: &'a str,
    data: &'a str,
    split: &'a str,
    attack: &'a str,
    norm: Norm,
    eps: f32,
    dtype: &'a str,
    /// Images, channels, height, width.
    shape: [usize; 4],
    class_names: &'a [String],
    /// The true label of each image.
    labels: &'a [u32],
    /// The position of each image in the data set.
    indices: Vec<usize>,
}

/// Adversarial images as raw numbers: an 8-bit image file would round them, some out of the ball.
struct Saved<'a> {
    folder: &'a Path,
    file: File,
}

impl<'a> Saved<'a> {
    fn create(folder: &'a Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join("images.f32");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        Ok(Self { folder, file })
    }

    /// Writes image number `at`, over what was there: a later attempt may find more.
    fn put(&mut self, at: usize, image: &[f32]) -> adamant::Result<()> {
        let bytes: Vec<u8> = image.iter().flat_map(|x| x.to_le_bytes()).collect();
        let start = at as u64 * bytes.len() as u64;
        let mut write = || {
            self.file.seek(SeekFrom::Start(start))?;
            self.file.write_all(&bytes)
        };
        write().map_err(|source| adamant::Error::Io { path: self.folder.join("images.f32"), source })
    }

    fn finish(self, manifest: &Manifest<'_>) -> Result<()> {
        self.file.sync_all().with_context(|| self.folder.join("images.f32").display().to_string())?;
        let path = self.folder.join("manifest.json");
        fs::write(&path, serde_json::to_string(manifest)? + "\n").with_context(|| path.display().to_string())
    }
}
