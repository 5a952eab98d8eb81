//! CIFAR-10 and CIFAR-100, the official "binary version": records of one or two label bytes and
//! the red, green and blue planes of a 32x32 image.

use std::path::{Path, PathBuf};

use super::open::{MAX_FILE_BYTES, Split, read_bounded};
use super::{Dataset, grouped};
use crate::error::{Error, Result};

const SHAPE: [usize; 3] = [3, 32, 32];
const IMAGE_BYTES: usize = 3 * 32 * 32;

/// What differs between the two.
pub(super) struct Layout {
    pub name: &'static str,
    /// The folder that the official archive unpacks to.
    folder: &'static str,
    archive: &'static str,
    train_files: &'static [&'static str],
    test_file: &'static str,
    names_file: &'static str,
    classes: usize,
    /// The last of them is the label; CIFAR-100 has the coarse label (superclass) before it.
    label_bytes: usize,
}

pub(super) const CIFAR10: Layout = Layout {
    name: "cifar10",
    folder: "cifar-10-batches-bin",
    archive: "cifar-10-binary.tar.gz",
    train_files: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test_file: "test_batch.bin",
    names_file: "batches.meta.txt",
    classes: 10,
    label_bytes: 1,
};

pub(super) const CIFAR100: Layout = Layout {
    name: "cifar100",
    folder: "cifar-100-binary",
    archive: "cifar-100-binary.tar.gz",
    train_files: &["train.bin"],
    test_file: "test.bin",
    names_file: "fine_label_names.txt",
    classes: 100,
    label_bytes: 2,
};

impl Layout {
    pub fn find(&self, dir: &Path) -> Option<PathBuf> {
        [dir.to_owned(), dir.join(self.folder)].into_iter().find(|root| {
            let mut files = self.train_files.iter().chain([&self.test_file]);
            files.any(|file| root.join(file).is_file())
        })
    }

    pub fn looked_for(&self) -> String {
        let (train, test) = (self.train_files.join(", "), self.test_file);
        let (folder, archive) = (self.folder, self.archive);
        format!("{train}, {test}, here and in {folder}/ (the binary version: {archive})")
    }

    /// Reads the files of `split` that are in `root`.
    pub fn open(&self, root: &Path, split: Split) -> Result<Dataset> {
        let wanted = match split {
            Split::Train => self.train_files,
            Split::Test => std::slice::from_ref(&self.test_file),
        };
        let (present, missing): (Vec<_>, Vec<_>) =
            wanted.iter().copied().partition(|file| root.join(file).is_file());
        if present.is_empty() {
            let (files, archive) = (wanted.join(", "), self.archive);
            return Err(Error::data(root, format!("{files} not found; unpack {archive} here")));
        }

        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for file in &present {
            self.read(&root.join(file), &mut pixels, &mut labels)?;
        }

        let (class_names, mut notes) = self.class_names(&root.join(self.names_file))?;
        if !missing.is_empty() {
            notes.push(format!(
                "{} of {} files found, {} images ({} not there)",
                present.len(),
                wanted.len(),
                grouped(labels.len() as u64),
                missing.join(", "),
            ));
        }
        let dataset = Dataset::from_pixels(self.name, SHAPE, class_names, pixels, labels)?;
        Ok(Dataset { path: root.to_owned(), notes, ..dataset })
    }

    /// Appends the records of one file.
    fn read(&self, path: &Path, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
        let bytes = read_bounded(path, MAX_FILE_BYTES)?;
        let record_bytes = self.label_bytes + IMAGE_BYTES;
        if bytes.is_empty() || bytes.len() % record_bytes != 0 {
            let (record, found) = (grouped(record_bytes as u64), grouped(bytes.len() as u64));
            return Err(Error::data(
                path,
                format!("expected a multiple of {record} bytes, found {found}; download it again"),
            ));
        }
        let records = bytes.len() / record_bytes;
        pixels.reserve_exact(records * IMAGE_BYTES);
        labels.reserve_exact(records);
        for (index, record) in bytes.chunks_exact(record_bytes).enumerate() {
            let (label, image) = (record[self.label_bytes - 1], &record[self.label_bytes..]);
            if usize::from(label) >= self.classes {
                let (name, last) = (self.name, self.classes - 1);
                return Err(Error::data(
                    path,
                    format!(
                        "record {index} has label {label}, the labels of {name} are 0 to {last}; \
                         download it again"
                    ),
                ));
            }
            pixels.extend_from_slice(image);
            labels.push(label.into());
        }
        Ok(())
    }

    /// The names in the file, one a line, or numbers and a note when there is no file.
    fn class_names(&self, path: &Path) -> Result<(Vec<String>, Vec<String>)> {
        if !path.is_file() {
            let note = format!("{} is not there: classes are numbers", self.names_file);
            return Ok(((0..self.classes).map(|i| i.to_string()).collect(), vec![note]));
        }
        let bytes = read_bounded(path, 1 << 16)?;
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<_> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
        if names.len() != self.classes {
            let (found, classes) = (names.len(), self.classes);
            let message = format!("has {found} class names instead of {classes}; replace the file");
            return Err(Error::data(path, message));
        }
        Ok((names, Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A record whose pixels are 0, 1, 2 ... modulo 256.
    fn record(labels: &[u8]) -> Vec<u8> {
        labels.iter().copied().chain((0..IMAGE_BYTES).map(|i| i as u8)).collect()
    }

    fn fault(layout: &Layout, root: &Path, split: Split) -> String {
        layout.open(root, split).unwrap_err().to_string()
    }

    #[test]
    fn the_batches_that_are_there_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cifar-10-batches-bin");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("data_batch_4.bin"), record(&[9])).unwrap();
        fs::write(root.join("data_batch_1.bin"), [record(&[3]), record(&[0])].concat()).unwrap();
        assert_eq!(CIFAR10.find(dir.path()), Some(root.clone()));

        let data = CIFAR10.open(&root, Split::Train).unwrap();
        assert_eq!(data.labels(), [3, 0, 9]);
        assert_eq!(data.class_names[9], "9");
        assert!(data.notes[1].starts_with("2 of 5 files found, 3 images"), "{:?}", data.notes);
        let mut image = vec![0.0; IMAGE_BYTES];
        data.image(2, &mut image);
        assert_eq!(image[..3], [0.0, 1.0 / 255.0, 2.0 / 255.0]);

        assert!(fault(&CIFAR10, &root, Split::Test).contains("test_batch.bin"));
    }

    #[test]
    fn cifar100_uses_the_fine_label() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("test.bin"), record(&[11, 99])).unwrap();
        let names: String = (0..100).map(|i| format!("class {i}\n")).collect();
        fs::write(dir.path().join("fine_label_names.txt"), names).unwrap();
        let data = CIFAR100.open(dir.path(), Split::Test).unwrap();
        assert_eq!(data.labels(), [99]);
        assert_eq!(data.class_names[99], "class 99");
        assert!(data.notes.is_empty());
    }

    #[test]
    fn damaged_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let file = root.join("test_batch.bin");
        for bytes in [vec![], vec![0; 100], record(&[1])[1..].to_vec()] {
            fs::write(&file, bytes).unwrap();
            let message = fault(&CIFAR10, root, Split::Test);
            assert!(message.contains("test_batch.bin: expected a multiple of 3,073"), "{message}");
        }

        fs::write(&file, [record(&[1]), record(&[10])].concat()).unwrap();
        let message = fault(&CIFAR10, root, Split::Test);
        assert!(message.contains("record 1 has label 10"), "{message}");

        fs::write(&file, record(&[1])).unwrap();
        fs::write(root.join("batches.meta.txt"), "cat\ndog\n").unwrap();
        let message = fault(&CIFAR10, root, Split::Test);
        assert!(message.contains("batches.meta.txt: has 2 class names"), "{message}");
    }

    #[test]
    fn an_oversized_file_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("train.bin")).unwrap();
        // Sparse: takes no room on disk.
        file.set_len(MAX_FILE_BYTES + 1).unwrap();
        let message = fault(&CIFAR100, dir.path(), Split::Train);
        assert!(message.contains("1,073,741,825 bytes"), "{message}");
    }
}
