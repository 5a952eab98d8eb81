//! From a package to its bytes.

#[cfg(not(feature = "sign"))]
use super::NoKey as SigningKey;
#[cfg(feature = "sign")]
use super::SigningKey;
use super::header::{self, Header};
use super::metadata::{BLOB_ALIGNMENT, Blob, DataType, Metadata, MetadataV1, TensorEntry, TrainingEntry};
use super::{Package, Precision, TrainingState};
use crate::network::Role;
use crate::shape::Shape;

/// The file in parts: header, metadata and padding; the blobs; and the signature, if there is to be one. A
/// function of package and key alone.
pub(super) fn encode(package: &Package, key: Option<&SigningKey>) -> Result<[Vec<u8>; 3], String> {
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
        onnx_skeleton: blobs.push(&model.onnx_skeleton),
        preprocessing: model.preprocessing.clone(),
        labels: model.labels.clone(),
        provenance: package.provenance.clone(),
        report: package.report.clone(),
    });
    let metadata =
        postcard::to_stdvec(&metadata).map_err(|e| format!("the metadata cannot be stored: {e}"))?;
    // A file that an older reader understands says so.
    let minor = if package.precision == Precision::F32 && key.is_none() { 0 } else { 1 };
    let front = front(minor, key.is_some(), &metadata, blobs.bytes.len());
    let signature = key.map_or_else(Vec::new, |key| signature(key, &front[..header::LEN + metadata.len()]));
    Ok([front, blobs.bytes, signature])
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

fn training(state: &TrainingState, blobs: &mut Blobs) -> Result<TrainingEntry, String> {
    let tensor = |(name, data): &(String, Vec<f32>)| {
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
struct Blobs {
    bytes: Vec<u8>,
}

impl Blobs {
    fn push(&mut self, blob: &[u8]) -> Blob {
        let offset = self.bytes.len().next_multiple_of(BLOB_ALIGNMENT as usize);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(blob);
        Blob { offset: offset as u64, length: blob.len() as u64, blake3: blake3::hash(blob).into() }
    }

    fn tensor(
        &mut self,
        name: &str,
        dtype: DataType,
        shape: Shape,
        data: &[f32],
    ) -> Result<TensorEntry, String> {
        let bytes = dtype.encode(shape, data).map_err(|message| format!("tensor '{name}' {message}"))?;
        Ok(TensorEntry { name: name.to_owned(), dtype, shape, blob: self.push(&bytes) })
    }
}
