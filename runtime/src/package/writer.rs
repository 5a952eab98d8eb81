//! From a package to its bytes.

use super::header::Header;
use super::metadata::{BLOB_ALIGNMENT, Blob, DataType, Metadata, MetadataV1, TensorEntry, TrainingEntry};
use super::{Package, TrainingState};
use crate::shape::Shape;

/// The file in two halves: header, metadata and padding; and the blobs. A function of the
/// package alone.
pub(super) fn encode(package: &Package) -> Result<[Vec<u8>; 2], String> {
    let model = &package.model;
    super::check(model)?;
    let mut blobs = Blobs::default();
    let tensors = model.network.parameters.iter().zip(&model.values);
    let metadata = Metadata::V1(MetadataV1 {
        network: model.network.clone(),
        // In the order of `MetadataV1::blobs`, as far as blobs are pushed: that is the file's.
        tensors: tensors.map(|(p, v)| blobs.tensor(&p.name, v.shape, &v.data)).collect(),
        training: package.training.as_ref().map(|state| training(state, &mut blobs)),
        onnx_skeleton: blobs.push(&model.onnx_skeleton),
        preprocessing: model.preprocessing.clone(),
        labels: model.labels.clone(),
        provenance: package.provenance.clone(),
        report: package.report.clone(),
    });
    let metadata =
        postcard::to_stdvec(&metadata).map_err(|e| format!("the metadata cannot be stored: {e}"))?;
    Ok([front(&metadata, blobs.bytes.len()), blobs.bytes])
}

/// Header, metadata and padding of a file with `blobs` bytes of blobs.
pub(super) fn front(metadata: &[u8], blobs: usize) -> Vec<u8> {
    let header = Header::new(metadata.len() as u64, blobs as u64);
    let mut front = header.encode(metadata).to_vec();
    front.extend(metadata);
    front.resize(header.blobs.offset as usize, 0);
    front
}

fn training(state: &TrainingState, blobs: &mut Blobs) -> TrainingEntry {
    let tensors = state.tensors.iter();
    TrainingEntry {
        epochs_done: state.epochs_done,
        total_epochs: state.total_epochs,
        step: state.step,
        seed: state.seed,
        best: state.best,
        tensors: tensors.map(|(name, data)| blobs.tensor(name, Shape::vector(data.len()), data)).collect(),
        settings: state.settings.clone(),
    }
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

    fn tensor(&mut self, name: &str, shape: Shape, data: &[f32]) -> TensorEntry {
        let mut bytes = vec![0; data.len() * 4];
        for (b, value) in bytes.as_chunks_mut().0.iter_mut().zip(data) {
            *b = value.to_le_bytes();
        }
        TensorEntry { name: name.to_owned(), dtype: DataType::F32, shape, blob: self.push(&bytes) }
    }
}
