//! Files that are either the old one or the new one, whatever happens in between.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};

/// Replaces the file at `path` by what `fill` writes.
///
/// The new file is written beside the old one, flushed to the disk, and renamed over it. When
/// anything fails, or the power does, the old file stays as it was. A link to a file stays one, and what is
/// no file, such as `/dev/null` or a pipe, is written to.
pub(crate) fn write(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let found = std::fs::metadata(path);
    if found.as_ref().is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        return File::options()
            .write(true)
            .open(path)
            .and_then(|mut f| fill(&mut f))
            .map_err(Error::io(path));
    }
    let target = match found.is_ok_and(|m| m.is_file()) && path.is_symlink() {
        true => path.canonicalize().map_err(Error::io(path))?,
        false => path.to_owned(),
    };
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    replace(&target, folder, fill).map_err(Error::io(path))
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

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_replaced_by_one() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link, device) =
            (folder.path().join("f"), folder.path().join("l"), folder.path().join("d"));
        std::fs::write(&file, b"old").unwrap();
        symlink(&file, &link).unwrap();
        symlink("/dev/null", &device).unwrap();
        write(&link, |f| f.write_all(b"new")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        write(&device, |f| f.write_all(b"gone")).unwrap();
        assert!(device.is_symlink());
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert_eq!(names(folder.path()), ["d", "f", "l"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("model");
        let message = write(&path, |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("absent"), "{message}");
    }
}
