//! From a package to its bytes.

use std::borrow::Cow;

#[cfg(not(feature = "sign"))]
use super::NoKey as SigningKey;
#[cfg(feature = "sign")]
use super::SigningKey;
use super::header::{self, Header};
use super::metadata::{BLOB_ALIGNMENT, Blob, DataType, Metadata, MetadataV1, TensorEntry, TrainingEntry};
use super::{Package, Precision, TrainingState};
use crate::network::Role;
use crate::shape::Shape;

/// The file in parts, one after the other: header, metadata and padding; the blobs with theirs; and the
/// signature, empty if there is to be none. A function of package and key alone. What is stored as it is in memory
/// is not copied: a checkpoint is written while the buffers of training are there.
pub(super) fn encode<'a>(
    package: &'a Package,
    key: Option<&SigningKey>,
) -> Result<Vec<Cow<'a, [u8]>>, String> {
    let model = &package.model;
    super::check(model)?;
    let mut blobs = Blobs::default();
    let tensors = model.network.parameters.iter().zip(&model.values);
    let tensors = tensors.map(|(p, v)| {
        let data_type = if p.role == Role::Weight { package.precision.data_type() } else { DataType::F32 };
        blobs.tensor(&p.name, data_type, v.shape, &v.data)
    });
    // In the order of `MetadataV1::blobs`: that is the file's.
    let tensors = tensors.collect::<Result<Vec<_>, String>>()?;
    let state = package.training.as_ref().map(|state| training(state, &mut blobs)).transpose()?;
    let metadata = Metadata::V1(MetadataV1 {
        network: model.network.clone(),
        tensors,
        training: state,
        onnx_skeleton: blobs.push(Cow::Borrowed(&model.onnx_skeleton)),
        preprocessing: model.preprocessing.clone(),
        labels: model.labels.clone(),
        provenance: package.provenance.clone(),
        report: package.report.clone(),
    });
    let metadata =
        postcard::to_stdvec(&metadata).map_err(|e| format!("the metadata cannot be stored: {e}"))?;
    // A file that an older reader understands says so.
    let minor = if package.precision == Precision::F32 && key.is_none() { 0 } else { 1 };
    let front = front(minor, key.is_some(), &metadata, blobs.len);
    let signature = key.map_or_else(Vec::new, |key| signature(key, &front[..header::LEN + metadata.len()]));
    let mut parts = vec![Cow::Owned(front)];
    parts.append(&mut blobs.parts);
    parts.push(Cow::Owned(signature));
    Ok(parts)
}

#[cfg(feature = "sign")]
fn signature(key: &SigningKey, message: &[u8]) -> Vec<u8> {
    key.sign(message).encode()
}

#[cfg(not(feature = "sign"))]
fn signature(key: &SigningKey, _message: &[u8]) -> Vec<u8> {
    match *key {}
}

/// Header, metadata and padding of a file of this minor version with `blobs` bytes of blobs.
pub(super) fn front(minor: u16, signed: bool, metadata: &[u8], blobs: usize) -> Vec<u8> {
    let header = Header::new(minor, signed, metadata.len() as u64, blobs as u64);
    let mut front = header.encode(metadata).to_vec();
    front.extend(metadata);
    front.resize(header.blobs.offset as usize, 0);
    front
}

fn training<'a>(state: &'a TrainingState, blobs: &mut Blobs<'a>) -> Result<TrainingEntry, String> {
    let tensor = |(name, data): &'a (String, Vec<f32>)| {
        blobs.tensor(name, DataType::F32, Shape::vector(data.len()), data)
    };
    Ok(TrainingEntry {
        epochs_done: state.epochs_done,
        total_epochs: state.total_epochs,
        step: state.step,
        seed: state.seed,
        best: state.best,
        tensors: state.tensors.iter().map(tensor).collect::<Result<_, String>>()?,
        settings: state.settings.clone(),
    })
}

/// The blob section as it grows.
#[derive(Default)]
struct Blobs<'a> {
    parts: Vec<Cow<'a, [u8]>>,
    /// Bytes of all parts.
    len: usize,
}

impl<'a> Blobs<'a> {
    fn push(&mut self, blob: Cow<'a, [u8]>) -> Blob {
        const ZEROS: [u8; BLOB_ALIGNMENT as usize] = [0; BLOB_ALIGNMENT as usize];
        let offset = self.len.next_multiple_of(ZEROS.len());
        let (length, blake3) = (blob.len(), blake3::hash(&blob).into());
        self.parts.extend([Cow::Borrowed(&ZEROS[..offset - self.len]), blob]);
        self.len = offset + length;
        Blob { offset: offset as u64, length: length as u64, blake3 }
    }

    fn tensor(
        &mut self,
        name: &str,
        dtype: DataType,
        shape: Shape,
        data: &'a [f32],
    ) -> Result<TensorEntry, String> {
        let bytes = dtype.encode(shape, data).map_err(|message| format!("tensor '{name}' {message}"))?;
        Ok(TensorEntry { name: name.to_owned(), dtype, shape, blob: self.push(bytes) })
    }
}
