//! Values that a model keeps in files beside it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use tract_onnx::pb::{GraphProto, TensorProto};

use super::proto;
use crate::error::{Error, Result};

/// What all external tensors together may hold: the most that one protobuf file can.
const MAX_TOTAL: u64 = 1 << 31;

/// Copies external values into the tensors of `graph`, so that the rest never has to ask.
///
/// `directory` is the model's folder; `None` when the model came from memory.
pub(super) fn inline(graph: &mut GraphProto, directory: Option<&Path>, path: &Path) -> Result<()> {
    let attributes = graph.node.iter_mut().flat_map(|n| &mut n.attribute);
    let tensors = graph.initializer.iter_mut().chain(attributes.filter_map(|a| a.t.as_mut()));
    let mut total = 0;
    for tensor in tensors.filter(|t| proto::is_external(t)) {
        let fault = |message: String| {
            Error::import(path, format!("external data of tensor '{}': {message}", tensor.name))
        };
        let Some(directory) = directory else {
            return Err(fault("the model was given without its folder".into()));
        };
        let data = read(tensor, directory, &mut total).map_err(fault)?;
        tensor.raw_data = data;
        tensor.external_data.clear();
        tensor.data_location = None;
    }
    Ok(())
}

fn read(tensor: &TensorProto, directory: &Path, total: &mut u64) -> Result<Vec<u8>, String> {
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{key} is '{text}'")),
    };
    let location = entry("location").ok_or("it has no location")?;
    let file = resolve(directory, location)?;
    let fault = |e: std::io::Error| format!("{}: {e}", file.display());
    let mut handle = File::open(&file).map_err(fault)?;
    let size = handle.metadata().map_err(fault)?.len();
    let offset = number("offset")?.unwrap_or(0);
    let available = size.checked_sub(offset).ok_or("its offset is past the end of the file")?;
    let length = number("length")?.unwrap_or(available);
    if length > available {
        return Err(format!("{length} bytes from {offset} are past the end of {}", file.display()));
    }
    *total = total.saturating_add(length);
    if *total > MAX_TOTAL {
        return Err("more than 2 GiB of values".into());
    }
    handle.seek(SeekFrom::Start(offset)).map_err(fault)?;
    let mut data = Vec::new();
    handle.take(length).read_to_end(&mut data).map_err(fault)?;
    // A file that shrank meanwhile is caught by the check against the dimensions.
    Ok(data)
}

/// The file that `location` names, which must lie inside `directory` even after links.
fn resolve(directory: &Path, location: &str) -> Result<PathBuf, String> {
    let outside = || format!("'{location}' is not a path inside the model's folder");
    let relative = Path::new(location);
    if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let base = directory.canonicalize().map_err(|e| format!("{}: {e}", directory.display()))?;
    let file = base.join(relative);
    let file = file.canonicalize().map_err(|e| format!("{}: {e}", file.display()))?;
    if file.starts_with(&base) { Ok(file) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_inside_the_folder_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("weights"), b"12345678").unwrap();
        std::fs::write(folder.path().join("outside"), b"secret").unwrap();
        assert!(resolve(&model, "weights").is_ok());
        assert!(resolve(&model, "./weights").is_ok());
        let absolute = model.join("weights");
        for location in ["../outside", "missing", absolute.to_str().unwrap()] {
            assert!(resolve(&model, location).is_err(), "{location}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../outside", model.join("link")).unwrap();
            assert!(resolve(&model, "link").is_err());
        }
    }

    #[test]
    fn ranges_are_checked_against_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("weights"), b"12345678").unwrap();
        let tensor = |entries: &[(&str, &str)]| TensorProto {
            external_data: entries
                .iter()
                .map(|(k, v)| tract_onnx::pb::StringStringEntryProto { key: (*k).into(), value: (*v).into() })
                .collect(),
            ..TensorProto::default()
        };
        let read = |entries: &[(&str, &str)]| read(&tensor(entries), folder.path(), &mut 0);
        assert_eq!(read(&[("location", "weights"), ("offset", "2"), ("length", "3")]).unwrap(), b"345");
        assert_eq!(read(&[("location", "weights")]).unwrap(), b"12345678");
        assert!(read(&[("location", "weights"), ("offset", "9")]).is_err());
        assert!(read(&[("location", "weights"), ("length", "18446744073709551615")]).is_err());
        assert!(read(&[("location", "weights"), ("offset", "-1")]).is_err());
        assert!(read(&[]).is_err());
    }
}
