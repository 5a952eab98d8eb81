//! The package: one file with everything that an application needs to use a model, and everything
//! that its user should know about it.
//!
//! | part | content |
//! |---|---|
//! | header | 64 bytes: format version, where the other parts lie, a hash of header and metadata |
//! | metadata | postcard: network, table of tensors, preprocessing, labels, provenance, claims |
//! | zeros | up to a multiple of 4096 |
//! | blobs | each tensor and the ONNX skeleton, each at a multiple of 256, zeros between |
//! | signature | where the maker signed: public key and signature (ed25519) |
//!
//! Every byte is covered: by the hash in the header, by the hash of a blob, or by being zero. A
//! changed byte is therefore an error, and the error says which part is corrupt. Hashes guard
//! against accidents; a signature tells who made the file.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::report::EvaluationReport;
use crate::shape::Shape;
use reader::Contents;

pub use precision::Precision;
#[cfg(feature = "onnx")]
pub(crate) use precision::{Quantized, encode_f16};
pub use signature::Signature;
#[cfg(feature = "sign")]
pub use signature::SigningKey;

/// The key of a build that cannot sign: there is none.
#[cfg(not(feature = "sign"))]
enum NoKey {}

pub(crate) mod atomic;
mod header;
mod metadata;
mod precision;
mod reader;
mod signature;
#[cfg(test)]
mod tests;
mod writer;

/// Writes a file so that it is the old one or the new one, whatever happens in between.
///
/// # Errors
/// [`Error::Io`] naming the file, which is then as it was.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    atomic::write(path.as_ref(), |file| file.write_all(bytes))
}

/// A model with its history and its claims; with a training state it is a checkpoint.
#[derive(Clone, PartialEq, Debug)]
pub struct Package {
    pub model: Model,
    pub provenance: Provenance,
    /// What the last evaluation measured.
    pub report: Option<EvaluationReport>,
    pub training: Option<TrainingState>,
    /// How the file stores the weights. Reading gives their values as f32.
    pub precision: Precision,
}

/// Where a model comes from.
///
/// By default the model was made from nothing, by this version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of Adamant that wrote the package.
    pub adamant_version: String,
    /// Name, without folders, of the file that the model was read from; empty when it was trained
    /// from scratch.
    pub source_name: String,
    /// BLAKE3 hash of that file, 64 hexadecimal digits; empty when there was none.
    pub source_blake3: String,
    /// The resolved recipe of training or fine-tuning as TOML; empty when there was none.
    pub recipe: String,
    /// The data of training or fine-tuning, such as `cifar10 train`; empty when there was none.
    pub data: String,
}

/// What a training run needs, besides the weights, to go on as if it had not stopped.
#[derive(Clone, PartialEq, Debug)]
pub struct TrainingState {
    pub epochs_done: u32,
    pub total_epochs: u32,
    /// Optimiser steps done: the counter of the random numbers.
    pub step: u64,
    pub seed: u64,
    /// The best value so far of what selects the best epoch, from 0 to 1.
    pub best: Option<f64>,
    /// Optimiser moments and per-image memory, by name.
    pub tensors: Vec<(String, Vec<f32>)>,
    /// The resolved settings of the run as TOML.
    pub settings: String,
}

/// What [`verify`] found in a package whose header and metadata are sound.
#[derive(Clone, PartialEq, Debug)]
pub struct Verification {
    /// Major and minor version of the file's format.
    pub format: (u16, u16),
    pub precision: Precision,
    pub signature: Signature,
    /// The network's parameters, then those of the training state.
    pub tensors: Vec<TensorCheck>,
    /// Whether the ONNX file without its weights, which an export needs, is as it was written.
    pub skeleton_sound: bool,
    pub is_checkpoint: bool,
    pub provenance: Provenance,
    /// What the package says about itself. Hashes and signature show that it was not changed, not that
    /// it is true.
    pub report: Option<EvaluationReport>,
}

/// One tensor of a package.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorCheck {
    pub name: String,
    pub shape: Shape,
    /// Size in the file.
    pub bytes: u64,
    /// Whether it matches its hash.
    pub sound: bool,
}

impl Provenance {
    /// The provenance of a model read from the file `source`, whose content is `bytes`.
    pub fn imported(source: &Path, bytes: &[u8]) -> Self {
        let name = source.file_name().unwrap_or_default();
        Self {
            source_name: name.to_string_lossy().into_owned(),
            source_blake3: blake3::hash(bytes).to_hex().to_string(),
            ..Self::default()
        }
    }
}

impl Default for Provenance {
    fn default() -> Self {
        Self {
            adamant_version: env!("CARGO_PKG_VERSION").into(),
            source_name: String::new(),
            source_blake3: String::new(),
            recipe: String::new(),
            data: String::new(),
        }
    }
}

impl Verification {
    /// Whether everything in the package is as it was written.
    pub fn is_sound(&self) -> bool {
        self.skeleton_sound && self.tensors.iter().all(|t| t.sound)
    }
}

impl Package {
    /// A package without claims, in full precision.
    pub const fn new(model: Model, provenance: Provenance) -> Self {
        Self { model, provenance, report: None, training: None, precision: Precision::F32 }
    }

    /// Writes the package, replacing what was at `path` only when all went well.
    ///
    /// # Errors
    /// [`Error::Package`] when the model contradicts itself, [`Error::Io`] when the file cannot be
    /// written: the disk is full, say. Then an older file at `path` is as it was.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let parts = writer::encode(self, None).map_err(|message| Error::package(path, message))?;
        atomic::write(path, |file| parts.iter().try_for_each(|part| file.write_all(part)))
    }

    /// As [`Package::write`], with a signature that tells who made the package.
    ///
    /// # Errors
    /// As [`Package::write`].
    #[cfg(feature = "sign")]
    pub fn write_signed(&self, path: impl AsRef<Path>, key: &SigningKey) -> Result<()> {
        let path = path.as_ref();
        let parts = writer::encode(self, Some(key)).map_err(|message| Error::package(path, message))?;
        atomic::write(path, |file| parts.iter().try_for_each(|part| file.write_all(part)))
    }

    /// The bytes of the package's file: equal for equal packages. `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Package`] when the model contradicts itself.
    pub fn to_bytes(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        writer::encode(self, None)
            .map(|parts| parts.concat())
            .map_err(|message| Error::package(path.as_ref(), message))
    }

    /// Whether `bytes` begin like a package.
    pub fn recognizes(bytes: &[u8]) -> bool {
        bytes.starts_with(&header::MAGIC)
    }

    /// Reads a package and checks all of it.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; otherwise as [`Package::from_bytes`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::from_bytes(&bytes, path)
    }

    /// Reads a package from memory and checks all of it. `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Package`], which tells apart: not a package, a newer format, truncated, metadata
    /// corrupt, and each corrupt tensor by name.
    pub fn from_bytes(bytes: &[u8], path: impl AsRef<Path>) -> Result<Self> {
        Contents::parse(bytes)
            .and_then(Contents::decode)
            .map_err(|message| Error::package(path.as_ref(), message))
    }
}

/// Checks a package and lists its tensors, corrupt ones included.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Package`] when its header or metadata is
/// corrupt, so that there is nothing to list.
pub fn verify(path: impl AsRef<Path>) -> Result<Verification> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    Contents::parse(&bytes).and_then(Contents::verify).map_err(|message| Error::package(path, message))
}

/// Checks that the parts of a model fit together. What is not sound is neither written nor read.
fn check(model: &Model) -> Result<(), String> {
    let network = &model.network;
    network.verify(&model.values).map_err(|e| format!("the network does not fit together: {e}"))?;
    let classes = network.classes().map_err(|e| e.to_string())?;
    if !model.labels.is_empty() && model.labels.len() != classes {
        return Err(format!("{} labels for {classes} classes", model.labels.len()));
    }
    let (mean, std) = (&model.preprocessing.mean, &model.preprocessing.std);
    let channels = network.input[0];
    if mean.len() != channels || std.len() != channels {
        return Err(format!(
            "{} means and {} standard deviations for {channels} channels",
            mean.len(),
            std.len()
        ));
    }
    if !mean.iter().all(|m| m.is_finite()) || !std.iter().all(|s| s.is_finite() && *s > 0.0) {
        return Err("mean must be finite and std positive".into());
    }
    Ok(())
}
