//! Files that are either the old one or the new one, whatever happens in between.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};

/// Replaces the file at `path` by what `fill` writes.
///
/// The new file is written beside the old one, flushed to the disk, and renamed over it. When
/// anything fails, or the power does, the old file stays as it was.
pub(crate) fn write(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    replace(path, folder, fill).map_err(Error::io(path))
}

fn replace(path: &Path, folder: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".adamant-");
    // Temporary files are private by default; this one becomes an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // On every early return the temporary file removes itself.
    let mut file = builder.tempfile_in(folder)?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The name is safe only when the folder is on the disk, too. Some file systems cannot sync a
    // folder and say so with an error; the file is whole all the same.
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|f| f.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The names in `folder`, sorted.
    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failure_half_way_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        write(&path, |f| f.write_all(b"old")).unwrap();
        let fault = write(&path, |f| {
            f.write_all(b"ne")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        let message = fault.unwrap_err().to_string();
        assert!(message.contains(&*path.to_string_lossy()), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[test]
    fn a_failed_rename_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), b"").unwrap();
        assert!(write(&path, |f| f.write_all(b"new")).is_err());
        assert_eq!(names(folder.path()), ["model"]);
        assert_eq!(names(&path), ["inside"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("model");
        let message = write(&path, |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("absent"), "{message}");
    }
}
