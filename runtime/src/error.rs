//! The one error type of the library.

use std::path::{Path, PathBuf};

/// What went wrong, in words that name the file, node or setting and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A model file is damaged or contradicts itself.
    #[error("{path}: {message}", path = .path.display())]
    Import { path: PathBuf, message: String },
    /// A model file is sound but uses what Adamant does not have. Every such node is named.
    #[error("{path}: {count} unsupported node(s):\n{list}", path = .path.display(), count = .nodes.len(), list = .nodes.iter().map(|n| format!("  {n}")).collect::<Vec<_>>().join("\n"))]
    Unsupported { path: PathBuf, nodes: Vec<String> },
    /// Shapes of a node's inputs do not fit together.
    #[error("node '{node}': {message}")]
    Shape { node: String, message: String },
    /// A tensor or a dispatch is beyond what the device allows.
    #[error("{0}")]
    Limit(String),
    /// A gradient was asked through an operation that has none.
    #[error("no gradient is defined for {op} (node '{node}')")]
    NotDifferentiable { op: &'static str, node: String },
    /// The GPU, or its driver, failed.
    #[error("device: {0}")]
    Device(String),
    /// A data file is damaged, or does not match the model.
    #[error("{path}: {message}", path = .path.display())]
    Data { path: PathBuf, message: String },
    /// A package is damaged, or of another version.
    #[error("{path}: {message}", path = .path.display())]
    Package { path: PathBuf, message: String },
    /// A setting is unknown or out of its range.
    #[error("{0}")]
    Config(String),
    /// Numbers left the range of f32 during training or an attack.
    #[error("{0}")]
    NonFinite(String),
    /// The caller asked to stop; what was saved last is intact.
    #[error("interrupted")]
    Interrupted,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    #[cfg(feature = "onnx")]
    pub(crate) fn import(path: &Path, message: impl Into<String>) -> Self {
        Self::Import { path: path.to_owned(), message: message.into() }
    }

    #[cfg(feature = "train")]
    pub(crate) fn data(path: &Path, message: impl Into<String>) -> Self {
        Self::Data { path: path.to_owned(), message: message.into() }
    }

    pub(crate) fn package(path: &Path, message: impl Into<String>) -> Self {
        Self::Package { path: path.to_owned(), message: message.into() }
    }
}
