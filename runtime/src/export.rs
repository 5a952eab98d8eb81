//! ONNX files out.
//!
//! A model that came from ONNX goes back into the very file: names, structure and metadata stay,
//! only values change. A network that was made here is written as a new file by `generate`.

mod generate;

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::import::fill_skeleton;
use crate::model::Model;

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
        generate::generate(&model.network, &model.values)
    } else {
        fill_skeleton(&model.onnx_skeleton, &model.network, &model.values)
    }
}

/// Writes a temporary file beside `path`, flushes it to the disk and renames it.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    // A temporary file is private by default; a model is an ordinary file, subject to the umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(Error::io(path))?;
    file.write_all(bytes).map_err(Error::io(path))?;
    file.as_file().sync_all().map_err(Error::io(path))?;
    file.persist(path).map_err(|e| Error::io(path)(e.error))?;
    Ok(())
}
