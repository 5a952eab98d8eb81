//! Files too large for the repository.

use std::path::{Path, PathBuf};

/// The folder `shared` beside the project's root, where models and data sets may lie.
pub fn shared() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let shared = root.parent()?.join("shared");
    shared.is_dir().then_some(shared)
}

/// Says on stderr that a test did not run, and why.
pub fn skip(name: &str, reason: &str) {
    eprintln!("SKIPPED {name}: {reason}");
}
