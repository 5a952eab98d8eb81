//! From bytes to a package. The bytes may come from anywhere: no length, offset or count is used
//! before it was checked against the true size of the file.

use super::header::{Header, MAJOR, MINOR};
use super::metadata::{BLOB_ALIGNMENT, Blob, DataType, Metadata, MetadataV1, TensorEntry};
use super::signature::{self, SignatureBlock};
use super::{Package, Precision, Signature, TensorCheck, TrainingState, Verification};
use crate::model::Model;
use crate::network::Role;
use crate::shape::Tensor;

/// A package whose structure is sound. Its blobs may still be corrupt.
pub(super) struct Contents<'a> {
    header: Header,
    metadata: MetadataV1,
    blobs: &'a [u8],
    signature: Signature,
}

impl<'a> Contents<'a> {
    pub fn parse(file: &'a [u8]) -> Result<Self, String> {
        let header = Header::parse(file)?;
        let bytes = header.metadata.of(file);
        let (metadata, rest) = postcard::take_from_bytes(bytes).map_err(|e| {
            // A newer writer may store variants that are unknown here.
            let remedy = if header.is_newer() {
                format!(
                    " (format {MAJOR}.{}; this Adamant knows {MAJOR}.{MINOR}: update Adamant)",
                    header.minor
                )
            } else {
                String::new()
            };
            format!("metadata corrupt: {e}{remedy}")
        })?;
        if !rest.is_empty() {
            return Err(format!("metadata corrupt: {} bytes follow its end", rest.len()));
        }
        let Metadata::V1(metadata) = metadata;
        let padding = header.metadata.offset as usize + bytes.len()..header.blobs.offset as usize;
        check_padding(&file[padding])?;
        let end = (header.blobs.offset + header.blobs.length) as usize;
        let block = header.is_signed().then(|| SignatureBlock::parse(&file[end..][..signature::LEN]));
        let sealed = &file[..header.metadata.offset as usize + bytes.len()];
        let signature = Signature::of(block.transpose()?.as_ref(), sealed);
        if let Signature::Invalid(key) = &signature {
            return Err(format!("signature invalid: the package is not what the owner of {key} signed"));
        }
        let contents = Self { header, metadata, blobs: header.blobs.of(file), signature };
        contents.check_layout()?;
        contents.check_table()?;
        Ok(contents)
    }

    /// Blobs lie within their section, aligned, in order, and with nothing but zeros between them.
    fn check_layout(&self) -> Result<(), String> {
        let mut end = 0;
        for (name, blob) in self.metadata.blobs() {
            let fault = |what: &str| Err(format!("metadata corrupt: '{}' {what}", name.escape_debug()));
            if !blob.offset.is_multiple_of(BLOB_ALIGNMENT) {
                return fault("is not aligned");
            }
            if blob.offset < end {
                return fault("overlaps the blob before it");
            }
            let next = match blob.offset.checked_add(blob.length) {
                Some(next) if next <= self.blobs.len() as u64 => next,
                _ => return fault("reaches beyond the end of the file"),
            };
            check_padding(&self.blobs[end as usize..blob.offset as usize])?;
            end = next;
        }
        check_padding(&self.blobs[end as usize..])
    }

    /// Tensors are as long as their shapes say, and those of the network are its parameters.
    fn check_table(&self) -> Result<(), String> {
        let MetadataV1 { network, tensors, training, .. } = &self.metadata;
        for entry in tensors.iter().chain(training.iter().flat_map(|t| &t.tensors)) {
            if entry.dtype.bytes(entry.shape) != Some(entry.blob.length) {
                return Err(format!(
                    "metadata corrupt: '{}' has the shape {:?} but {} bytes",
                    entry.name.escape_debug(),
                    entry.shape,
                    entry.blob.length
                ));
            }
        }
        let weights = self.precision().data_type();
        let others = training.iter().flat_map(|t| &t.tensors).map(|t| (t, DataType::F32));
        let stored = tensors.iter().zip(&network.parameters);
        let stored = stored.map(|(t, p)| (t, if p.role == Role::Weight { weights } else { DataType::F32 }));
        if let Some((entry, _)) = stored.chain(others).find(|(entry, expected)| entry.dtype != *expected) {
            let name = entry.name.escape_debug();
            return Err(format!("metadata corrupt: '{name}' is stored as {:?}", entry.dtype));
        }
        let parameters = network.parameters.iter().map(|p| (&p.name, p.shape));
        if !parameters.eq(tensors.iter().map(|t| (&t.name, t.shape))) {
            return Err("metadata corrupt: the tensors are not the network's parameters".into());
        }
        Ok(())
    }

    fn bytes(&self, blob: &Blob) -> &'a [u8] {
        &self.blobs[blob.offset as usize..][..blob.length as usize]
    }

    fn is_sound(&self, blob: &Blob) -> bool {
        blake3::hash(self.bytes(blob)) == blob.blake3
    }

    fn values(&self, entry: &TensorEntry) -> Result<Vec<f32>, String> {
        let values = entry.dtype.decode(entry.shape, self.bytes(&entry.blob));
        values.map_err(|message| format!("tensor '{}' {message}", entry.name.escape_debug()))
    }

    /// The precision of the network's weights. Everything else is f32: [`Contents::check_table`] saw to it.
    fn precision(&self) -> Precision {
        let is = |data_type| self.metadata.tensors.iter().any(|t| t.dtype == data_type);
        let small = [Precision::Int8, Precision::F16].into_iter().find(|p| is(p.data_type()));
        small.unwrap_or_default()
    }

    /// The package, if none of its blobs is corrupt.
    pub fn decode(self) -> Result<Package, String> {
        let corrupt: Vec<String> = self
            .metadata
            .blobs()
            .filter(|(_, blob)| !self.is_sound(blob))
            .map(|(name, _)| format!("'{}'", name.escape_debug()))
            .collect();
        match corrupt.as_slice() {
            [] => self.assemble(),
            [name] => Err(format!("tensor {name} corrupt: its hash does not match")),
            names => Err(format!("tensors {} corrupt: their hashes do not match", names.join(", "))),
        }
    }

    /// The package, whose blobs were found sound.
    fn assemble(self) -> Result<Package, String> {
        let tensors = self.metadata.tensors.iter();
        let values =
            tensors.map(|t| Ok(Tensor::new(t.shape, self.values(t)?))).collect::<Result<_, String>>()?;
        let training = self.metadata.training.as_ref().map(|state| -> Result<_, String> {
            let tensors = state.tensors.iter().map(|t| Ok((t.name.clone(), self.values(t)?)));
            Ok(TrainingState {
                epochs_done: state.epochs_done,
                total_epochs: state.total_epochs,
                step: state.step,
                seed: state.seed,
                best: state.best,
                tensors: tensors.collect::<Result<_, String>>()?,
                settings: state.settings.clone(),
            })
        });
        let (training, precision) = (training.transpose()?, self.precision());
        let onnx_skeleton = self.bytes(&self.metadata.onnx_skeleton).to_vec();
        let MetadataV1 { network, preprocessing, labels, provenance, report, .. } = self.metadata;
        let model = Model { network, values, preprocessing, labels, onnx_skeleton };
        super::check(&model)?;
        Ok(Package { model, provenance, report, training, precision })
    }

    /// Checks each blob on its own and, when all are sound, that they make a package.
    pub fn verify(self) -> Result<Verification, String> {
        let training = self.metadata.training.as_ref();
        let entries = self.metadata.tensors.iter().chain(training.iter().flat_map(|t| &t.tensors));
        let verification = Verification {
            format: (MAJOR, self.header.minor),
            tensors: entries
                .map(|entry| TensorCheck {
                    name: entry.name.clone(),
                    shape: entry.shape,
                    bytes: entry.blob.length,
                    sound: self.is_sound(&entry.blob),
                })
                .collect(),
            precision: self.precision(),
            signature: self.signature.clone(),
            skeleton_sound: self.is_sound(&self.metadata.onnx_skeleton),
            is_checkpoint: training.is_some(),
            provenance: self.metadata.provenance.clone(),
            report: self.metadata.report.clone(),
        };
        if verification.is_sound() {
            self.assemble()?;
        }
        Ok(verification)
    }
}

/// Padding is zero, so that no bit of a package can change unnoticed.
fn check_padding(bytes: &[u8]) -> Result<(), String> {
    if bytes.iter().all(|&b| b == 0) { Ok(()) } else { Err("padding corrupt: it is not zero".into()) }
}
