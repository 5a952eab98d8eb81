//! How many images of a batch a memory limit leaves room for at once.

use std::sync::atomic::AtomicBool;

use super::parts;
use super::recipe::{BatchNormTraining, Recipe};
use super::trainer::{Trainer, TrainerOptions};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::recompute::binary_size;
use crate::session::Session;

/// The fewest images whose statistics BatchNorm in training mode is given, where memory decides: those of one image
/// make it nearly blind, for the last layers see few pixels of it.
const FEWEST_FOR_STATISTICS: usize = 4;

/// What a training run takes of a device.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Room {
    /// Images at once: as many as a batch has, or as each of the parts that it is trained on in.
    pub images: usize,
    /// Bytes of weights, buffers and working memory in a step of training, as [`Device::allocated_bytes`] counts
    /// them; `None` where there is no limit to plan for.
    pub bytes: Option<u64>,
    /// The part of a step's arithmetic, 0 to 1, that is done a second time.
    pub recomputed: f64,
}

/// Plans a run of `recipe` on `device`, within its memory limit. Nothing is made or run on it.
///
/// A batch is trained on as a whole where that can be, with activations computed again as far as necessary. Where
/// not, the parts are as large as can be, and of one size; BatchNorm in training mode sees four images at least.
///
/// # Errors
/// [`Error::Limit`] when the memory is too little for a single image or those four, or for a batch of a method that
/// needs a whole one: it says what would be enough. Otherwise what [`Trainer::new`] says.
pub fn room(device: &Device, model: &Model, recipe: &Recipe, train: &Dataset) -> Result<Room> {
    let batch = recipe.data.batch.min(train.len()).max(1);
    let Some(limit) = device.memory_limit() else {
        return Ok(Room { images: batch, bytes: None, recomputed: 0.0 });
    };
    // What does not depend on how many they are.
    let train = train.limit(batch);
    let rehearsed =
        |images: usize, limit: Option<u64>| rehearse(device, model, recipe, &train, images, limit);
    let within = |parts: usize| match rehearsed(batch.div_ceil(parts), Some(limit)) {
        Ok(room) => Ok(Some(room)),
        Err(Error::Limit(_)) => Ok(None),
        Err(e) => Err(e),
    };
    if let Some(room) = within(1)? {
        return Ok(room);
    }
    if let Err(why) = parts::check(recipe) {
        let least = least(|limit| rehearsed(batch, limit))?;
        return Err(Error::Limit(format!(
            "the memory limit is {}, and a batch of {batch} takes {}: {why}",
            binary_size(limit),
            binary_size(least)
        )));
    }
    let counts = model.network.has_batch_norm() && recipe.batchnorm.mode != BatchNormTraining::Frozen;
    let fewest = if counts { FEWEST_FOR_STATISTICS.min(batch) } else { 1 };
    let most_parts = batch / fewest;
    // Twice as many parts until they fit; then the fewest of those in between.
    let (mut too_few, mut fits) = (1, None);
    while fits.is_none() && too_few < most_parts {
        let parts = (too_few * 2).min(most_parts);
        match within(parts)? {
            Some(room) => fits = Some((parts, room)),
            None => too_few = parts,
        }
    }
    let Some((mut parts, mut found)) = fits else {
        let fewest = batch.div_ceil(most_parts);
        let mut images = fewest;
        let mut least_bytes = least(|limit| rehearsed(fewest, limit))?;
        if !batch.is_multiple_of(fewest) {
            // The last part is smaller, and has programs of its own: larger parts of one size may take less.
            let even = (fewest..=batch).find(|&images| batch.is_multiple_of(images)).unwrap_or(batch);
            if let Some(room) = within(batch / even)? {
                return Ok(room);
            }
            let bytes = least(|limit| rehearsed(even, limit))?;
            if bytes < least_bytes {
                (images, least_bytes) = (even, bytes);
            }
        }
        let at_once = match images {
            1 => "one image after the other".to_owned(),
            n if n == fewest => format!("{n} images at once, the fewest for the statistics of BatchNorm"),
            n => format!("{n} images at once"),
        };
        return Err(Error::Limit(format!(
            "the memory limit is {}; training on {at_once}, with every activation computed again, takes {}; raise \
             --memory-limit",
            binary_size(limit),
            binary_size(least_bytes)
        )));
    };
    while parts - too_few > 1 {
        let middle = too_few + (parts - too_few) / 2;
        match within(middle)? {
            Some(room) => (parts, found) = (middle, room),
            None => too_few = middle,
        }
    }
    Ok(found)
}

/// A limit that `rehearsed` succeeds with, near the least: what is computed again is chosen step by step, so that a
/// little less may do where a little more does not.
fn least(rehearsed: impl Fn(Option<u64>) -> Result<Room>) -> Result<u64> {
    let mut bytes = rehearsed(None)?.bytes.unwrap_or(0);
    // A program that finds room takes it, and may leave less to others than all of them at their smallest do.
    loop {
        match rehearsed(Some(bytes)) {
            Ok(_) => return Ok(bytes),
            Err(Error::Limit(_)) => bytes += bytes.div_ceil(100),
            Err(e) => return Err(e),
        }
    }
}

/// Trains `images` at once on a device that only counts; without a limit, in as little memory as can be.
fn rehearse(
    device: &Device,
    model: &Model,
    recipe: &Recipe,
    train: &Dataset,
    images: usize,
    limit: Option<u64>,
) -> Result<Room> {
    static NEVER: AtomicBool = AtomicBool::new(false);
    let session = Session::new(device.stand_in(limit), model, images)?;
    let options =
        TrainerOptions { seed: 0, train: train.clone(), extra: None, validation: None, stop: &NEVER };
    let mut trainer = Trainer::new(session, recipe.clone(), options)?;
    trainer.rehearse()?;
    let session = trainer.session();
    if limit.is_some() && session.gave_way() > 0 {
        // Programs that take turns would be built anew at each step.
        return Err(Error::Limit("the programs of a step do not fit together".into()));
    }
    let device = session.device();
    Ok(Room { images, bytes: Some(device.allocated_bytes()), recomputed: device.recomputed() })
}
