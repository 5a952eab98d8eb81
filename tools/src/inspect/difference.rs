//! Our logits beside those of an independent runtime.

use adamant::{
    Images, Preprocessing, Purpose, Session, Stream, reference_logits, reference_logits_bytes, to_onnx,
};
use anyhow::Result;
use serde::Serialize;

use crate::args::InspectArgs;
use crate::measure::open_device;
use crate::model::Loaded;
use crate::progress::Console;

/// Random images that `--verify` compares.
const VERIFIED_IMAGES: usize = 8;

/// Largest difference that rounding explains, as a part of the largest logit.
const TOLERANCE: f32 = 1e-3;

#[derive(Serialize)]
pub struct Difference {
    pub device: String,
    pub images: usize,
    pub max_difference: f32,
    pub largest_logit: f32,
    pub ok: bool,
}

/// Compares logits on a device with those of tract, which shares no code with us.
pub fn measure(args: &InspectArgs, loaded: &Loaded, console: &Console) -> Result<Difference> {
    let model = &loaded.model;
    let device = open_device(&args.device, console)?;
    let mut session = Session::new(device, model, VERIFIED_IMAGES)?;
    let values = session.network().image_shape(VERIFIED_IMAGES).len();
    let stream = Stream::new(0, Purpose::Probe, 0, 0);
    let mut images: Vec<f32> = (0..values as u32).map(|i| stream.uniform(i, 0)).collect();
    session.load(&images, &[0; VERIFIED_IMAGES], &[0; VERIFIED_IMAGES])?;
    let found = session.logits(VERIFIED_IMAGES, Images::Clean)?;

    let Preprocessing { mean, std } = &model.preprocessing;
    let plane = model.network.input[1] * model.network.input[2];
    for (i, plane) in images.chunks_exact_mut(plane).enumerate() {
        let channel = i % mean.len();
        plane.iter_mut().for_each(|x| *x = (*x - mean[channel]) / std[channel]);
    }
    let expected = match loaded.notes {
        Some(_) => reference_logits(&args.model, &images, VERIFIED_IMAGES)?,
        // A package's weights are compared by way of its ONNX export.
        None => reference_logits_bytes(&to_onnx(model)?, &args.model, &images, VERIFIED_IMAGES)?,
    };
    let max_difference = found.iter().zip(&expected).fold(0.0f32, |a, (f, e)| a.max((f - e).abs()));
    let largest_logit = expected.iter().fold(0.0f32, |a, e| a.max(e.abs()));
    let finite = found.iter().chain(&expected).all(|v| v.is_finite());
    let ok = finite && found.len() == expected.len() && max_difference <= TOLERANCE * largest_logit;
    let device = session.device_name();
    Ok(Difference { device, images: VERIFIED_IMAGES, max_difference, largest_logit, ok })
}
