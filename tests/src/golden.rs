//! Reference values, as PyTorch computed them.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// A file of `tests/golden`.
pub struct Golden {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// The folder of the reference values.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

impl Golden {
    /// # Panics
    /// When the file is missing: a comparison that did not happen must not count as passed.
    pub fn open(name: &str) -> Self {
        let path = folder().join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| {
            panic!("{}: {e}; regenerate it with `python tests/golden/generate.py`", path.display())
        });
        let golden = Self { path, bytes };
        golden.tensors();
        golden
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|e| {
            panic!("{}: {e}; regenerate it with `python tests/golden/generate.py`", self.path.display())
        })
    }

    fn bytes(&self, name: &str, dtype: Dtype) -> (Vec<usize>, Vec<u8>) {
        let tensors = self.tensors();
        let tensor =
            tensors.tensor(name).unwrap_or_else(|e| panic!("{}: '{name}': {e}", self.path.display()));
        assert_eq!(tensor.dtype(), dtype, "{}: type of '{name}'", self.path.display());
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tensors().names().iter().map(|&n| n.to_owned()).collect();
        names.sort();
        names
    }

    /// Whether a tensor is in the file.
    pub fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// Dimensions and values of a tensor of f32.
    pub fn real(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (dims, bytes) = self.bytes(name, Dtype::F32);
        (dims, bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    }

    /// Dimensions and values of a tensor of i64.
    pub fn integers(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
        let (dims, bytes) = self.bytes(name, Dtype::I64);
        (dims, bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect())
    }
}
