//! ONNX files out.
//!
//! A model that came from ONNX goes back into the very file: names, structure and metadata stay,
//! only values change. A network that was made here is written as a new file by `generate`.

mod generate;
mod weights;

use std::path::Path;

use crate::error::Result;
use crate::import::fill_skeleton;
use crate::model::Model;
use crate::package::{Precision, write_atomically};

pub use weights::to_safetensors;

/// Writes `model` as an ONNX file, all at once: a reader never sees half of it.
///
/// The file takes normalised images, as the one that was imported did.
pub fn export(model: &Model, path: &Path) -> Result<()> {
    write_atomically(path, &to_onnx(model)?)
}

/// `model` as the bytes of an ONNX file.
pub fn to_onnx(model: &Model) -> Result<Vec<u8>> {
    model.network.verify(&model.values)?;
    if model.onnx_skeleton.is_empty() {
        generate::generate(&model.network, &model.values, Precision::F32)
    } else {
        fill_skeleton(&model.onnx_skeleton, &model.network, &model.values)
    }
}

/// As [`to_onnx`], with the weights of convolutions and linear layers stored as packages of `precision` store them:
/// halves behind a `Cast`, or eight bits behind a `DequantizeLinear` with a scale for each output channel. Both
/// give the very numbers that such a package gives, and everything else is f32: what is quantised are weights, not
/// activations. Such a file is written anew; only an f32 one keeps the structure of the file that was imported.
///
/// # Errors
/// [`crate::Error::Config`] naming the first weight that the precision cannot hold, [`crate::Error::Shape`] when a
/// layer has no ONNX form.
pub fn to_onnx_as(model: &Model, precision: Precision) -> Result<Vec<u8>> {
    match precision {
        Precision::F32 => to_onnx(model),
        Precision::F16 | Precision::Int8 => {
            model.network.verify(&model.values)?;
            generate::generate(&model.network, &model.values, precision)
        }
    }
}
