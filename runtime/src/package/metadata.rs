//! What the metadata of a package holds. The large numbers are not in it but in blobs, which it
//! lists with their hashes.
//!
//! Postcard writes fields by position, without names. So no struct that appears here, in
//! [`crate::network`] or in [`crate::ops`] may change once released: what must change gets a new
//! variant of [`Metadata`], and enums grow at their end.

use serde::{Deserialize, Serialize};

use super::Provenance;
use crate::model::Preprocessing;
use crate::network::Network;
use crate::report::EvaluationReport;
use crate::shape::Shape;

/// Each blob starts at a multiple of this, counted from the first: what every GPU accepts as the
/// offset of a binding.
pub(super) const BLOB_ALIGNMENT: u64 = 256;

#[derive(Serialize, Deserialize)]
pub(super) enum Metadata {
    V1(MetadataV1),
}

#[derive(Serialize, Deserialize)]
pub(super) struct MetadataV1 {
    pub network: Network,
    /// One for each parameter of the network, in order.
    pub tensors: Vec<TensorEntry>,
    pub preprocessing: Preprocessing,
    pub labels: Vec<String>,
    pub onnx_skeleton: Blob,
    pub provenance: Provenance,
    pub report: Option<EvaluationReport>,
    pub training: Option<TrainingEntry>,
}

/// A [`super::TrainingState`] whose numbers are in blobs.
#[derive(Serialize, Deserialize)]
pub(super) struct TrainingEntry {
    pub epochs_done: u32,
    pub total_epochs: u32,
    pub step: u64,
    pub seed: u64,
    pub best: Option<f64>,
    pub tensors: Vec<TensorEntry>,
    pub settings: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TensorEntry {
    pub name: String,
    pub dtype: DataType,
    pub shape: Shape,
    pub blob: Blob,
}

/// How the numbers of a tensor are stored. Append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum DataType {
    /// Little-endian IEEE 754 single precision.
    F32,
    /// Little-endian IEEE 754 half precision. Since format 1.1.
    F16,
    /// A scale (f32) for each channel, the last dimension; then a signed byte for each number. Since
    /// format 1.1.
    Int8,
}

/// A run of bytes in the blob section.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    /// From the start of the blob section.
    pub offset: u64,
    pub length: u64,
    pub blake3: [u8; 32],
}

impl MetadataV1 {
    /// Every blob with its name in messages, in the order in which they lie in the file.
    pub fn blobs(&self) -> impl Iterator<Item = (&str, &Blob)> {
        let training = self.training.iter().flat_map(|t| &t.tensors);
        self.tensors
            .iter()
            .chain(training)
            .map(|t| (t.name.as_str(), &t.blob))
            .chain([("ONNX skeleton", &self.onnx_skeleton)])
    }
}
