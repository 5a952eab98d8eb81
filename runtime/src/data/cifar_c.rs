//! CIFAR-10-C and CIFAR-100-C as published: for each corruption a NumPy file of bytes, images x 32 x 32 x
//! 3, first all images at severity 1, then at 2; and labels.npy.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::corruptions::{CORRUPTIONS, SEVERITIES};
use crate::error::{Error, Result};

/// Channels, height and width of every image.
const SHAPE: [usize; 3] = [3, 32, 32];

const IMAGE_BYTES: usize = 3 * 32 * 32;

/// More images than any such file has.
const MOST_IMAGES: usize = 10_000_000;

/// A folder with such files.
pub struct PublishedCorruptions {
    folder: PathBuf,
    classes: u32,
    /// Of each severity.
    labels: Vec<u32>,
    /// The corruptions that have a file, and where its images begin.
    files: Vec<(&'static str, u64)>,
}

impl PublishedCorruptions {
    /// Opens `cifar10c:DIR` or `cifar100c:DIR`, or `DIR` where it has a labels.npy; `None` when `spec` is of
    /// another kind.
    ///
    /// # Errors
    /// [`Error::Data`] and [`Error::Io`] naming the file that is missing or damaged.
    pub fn open(spec: &str) -> Option<Result<Self>> {
        match spec.split_once(':') {
            Some(("cifar10c", folder)) => Some(Self::read_folder(Path::new(folder), 10)),
            Some(("cifar100c", folder)) => Some(Self::read_folder(Path::new(folder), 100)),
            _ => {
                let folder = Path::new(spec);
                let labels = folder.join("labels.npy");
                if !labels.is_file() {
                    return None;
                }
                // The labels tell the two apart.
                let most = read_labels(&labels, 100).map(|all| all.into_iter().max().unwrap_or(0));
                Some(most.and_then(|most| Self::read_folder(folder, if most < 10 { 10 } else { 100 })))
            }
        }
    }

    fn read_folder(folder: &Path, classes: u32) -> Result<Self> {
        let path = folder.join("labels.npy");
        if !path.is_file() {
            return Err(Error::data(folder, "no labels.npy; unpack CIFAR-10-C.tar or CIFAR-100-C.tar here"));
        }
        let all = read_labels(&path, classes)?;
        if all.is_empty() || all.len() % SEVERITIES != 0 {
            return Err(Error::data(
                &path,
                format!("{} labels do not fill {SEVERITIES} severities", all.len()),
            ));
        }
        let mut files = Vec::new();
        for corruption in &CORRUPTIONS {
            let path = folder.join(format!("{}.npy", corruption.name));
            if path.is_file() {
                let mut file = File::open(&path).map_err(Error::io(&path))?;
                let header = Header::read(&mut file, &path)?;
                let [channels, height, width] = SHAPE;
                if header.kind != "|u1" || header.shape != [all.len(), height, width, channels] {
                    return Err(Error::data(
                        &path,
                        format!(
                            "{} of {:?}, not |u1 of {:?}; download it again",
                            header.kind,
                            header.shape,
                            [all.len(), height, width, channels]
                        ),
                    ));
                }
                let found = file.metadata().map_err(Error::io(&path))?.len();
                if found != header.start + (all.len() * IMAGE_BYTES) as u64 {
                    return Err(Error::data(
                        &path,
                        "has not the length that its header says; download it again",
                    ));
                }
                files.push((corruption.name, header.start));
            }
        }
        if files.is_empty() {
            return Err(Error::data(folder, "no gaussian_noise.npy or any other corruption"));
        }
        let labels = all[..all.len() / SEVERITIES].to_vec();
        Ok(Self { folder: folder.to_owned(), classes, labels, files })
    }

    /// `cifar10c` or `cifar100c`.
    pub fn name(&self) -> &'static str {
        if self.classes == 10 { "cifar10c" } else { "cifar100c" }
    }

    pub fn classes(&self) -> usize {
        self.classes as usize
    }

    /// Images of each corruption and severity.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// Channels, height and width of every image.
    pub fn shape(&self) -> [usize; 3] {
        SHAPE
    }

    /// The corruptions that have no file.
    pub fn missing(&self) -> Vec<&'static str> {
        CORRUPTIONS.iter().map(|c| c.name).filter(|name| !self.has(name)).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(n, _)| *n == name)
    }

    /// Planar images and their labels.
    pub(crate) fn read(&self, name: &str, severity: usize, at: Range<usize>) -> Result<(Vec<u8>, Vec<u32>)> {
        let path = self.folder.join(format!("{name}.npy"));
        let start = self.files.iter().find(|(n, _)| *n == name).map_or(0, |(_, start)| *start);
        let first = (severity - 1) * self.images() + at.start;
        let mut bytes = vec![0; at.len() * IMAGE_BYTES];
        let mut read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(start + (first * IMAGE_BYTES) as u64))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(Error::io(&path))?;
        let plane = IMAGE_BYTES / 3;
        let planar = |image: &[u8]| -> Vec<u8> {
            (0..3).flat_map(|c| (0..plane).map(move |i| (i, c))).map(|(i, c)| image[3 * i + c]).collect()
        };
        Ok((bytes.chunks_exact(IMAGE_BYTES).flat_map(planar).collect(), self.labels[at].to_vec()))
    }
}

/// What a NumPy file says before its data (NEP 1).
struct Header {
    kind: String,
    shape: Vec<usize>,
    /// Where the data begins.
    start: u64,
}

impl Header {
    fn read(file: &mut File, path: &Path) -> Result<Self> {
        let fault = |what: &str| Error::data(path, format!("not a NumPy file of images: {what}"));
        let mut begin = [0; 8];
        file.read_exact(&mut begin).map_err(Error::io(path))?;
        if &begin[..6] != b"\x93NUMPY" {
            return Err(fault("it begins otherwise"));
        }
        let wide = begin[6] > 1;
        let mut length = [0; 4];
        file.read_exact(&mut length[..if wide { 4 } else { 2 }]).map_err(Error::io(path))?;
        let length = u32::from_le_bytes(length);
        if length > 1 << 16 {
            return Err(fault("its header is too long"));
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).map_err(Error::io(path))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let after = |key: &str| text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        let kind =
            after("descr").and_then(|rest| rest.split('\'').nth(1)).ok_or_else(|| fault("no descr"))?;
        if !after("fortran_order").is_some_and(|rest| rest.starts_with("False")) {
            return Err(fault("its order is Fortran's"));
        }
        let inside = after("shape").and_then(|rest| rest.strip_prefix('(')?.split(')').next());
        let dimension = |d: &str| d.trim().parse().ok().filter(|d| (1..=MOST_IMAGES).contains(d));
        let shape: Option<Vec<usize>> = inside
            .map(|dims| dims.split(',').filter(|d| !d.trim().is_empty()).map(dimension).collect())
            .ok_or_else(|| fault("no shape"))?;
        let shape = shape.ok_or_else(|| fault("a dimension is none"))?;
        let start = if wide { 12 } else { 10 } + u64::from(length);
        Ok(Self { kind: kind.into(), shape, start })
    }
}

fn read_labels(path: &Path, classes: u32) -> Result<Vec<u32>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let header = Header::read(&mut file, path)?;
    let fault = |what: String| Error::data(path, format!("{what}; download it again"));
    let size = match header.kind.as_str() {
        "|u1" | "|i1" => 1,
        "<i4" | "<u4" => 4,
        "<i8" | "<u8" => 8,
        other => return Err(fault(format!("labels of kind {other}"))),
    };
    let [count] = header.shape[..] else { return Err(fault(format!("labels of shape {:?}", header.shape))) };
    let mut bytes = vec![0; count * size];
    file.read_exact(&mut bytes).map_err(Error::io(path))?;
    let label = |b: &[u8]| b.iter().rev().fold(0u64, |v, &byte| v << 8 | u64::from(byte));
    let found: Option<Vec<u32>> =
        bytes.chunks_exact(size).map(label).map(|l| u32::try_from(l).ok().filter(|&l| l < classes)).collect();
    found.ok_or_else(|| fault(format!("a label is none of {classes} classes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    /// Two images at five severities; every byte of a file tells its row and channel.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let images: Vec<u8> =
            (0..10).flat_map(|n| (0..IMAGE_BYTES).map(move |i| (n * 3 + i % 3) as u8)).collect();
        std::fs::write(dir.path().join("fog.npy"), npy("|u1", "(10, 32, 32, 3)", &images)).unwrap();
        let labels: Vec<u8> = (0..10).flat_map(|n: u64| (n % 2 + 4).to_le_bytes()).collect();
        std::fs::write(dir.path().join("labels.npy"), npy("<i8", "(10,)", &labels)).unwrap();
        dir
    }

    fn open(dir: &tempfile::TempDir) -> Result<PublishedCorruptions> {
        PublishedCorruptions::open(&format!("cifar10c:{}", dir.path().display())).unwrap()
    }

    #[test]
    fn rows_are_severities() {
        let dir = folder();
        let files = open(&dir).unwrap();
        assert_eq!((files.images(), files.missing().len()), (2, 18));
        let (pixels, labels) = files.read("fog", 3, 1..2).unwrap();
        // Row (3 - 1) * 2 + 1; planes of 1024.
        assert_eq!((labels, pixels[0], pixels[1024], pixels[2048]), (vec![5], 15, 16, 17));
        assert!(PublishedCorruptions::open("cifar10:there").is_none());
        // A folder says by its labels which of the two it is.
        let named = |dir: &tempfile::TempDir| {
            let files = PublishedCorruptions::open(&dir.path().display().to_string()).unwrap().unwrap();
            (files.name(), files.classes())
        };
        assert_eq!(named(&dir), ("cifar10c", 10));
        std::fs::write(dir.path().join("labels.npy"), npy("|u1", "(10,)", &[77; 10])).unwrap();
        assert_eq!(named(&dir), ("cifar100c", 100));
        assert!(PublishedCorruptions::open(&dir.path().join("none").display().to_string()).is_none());
    }

    #[test]
    fn damaged_files_are_named() {
        let damage: [(&str, Vec<u8>, &str); 6] = [
            ("fog.npy", npy("|u1", "(10, 32, 32, 3)", &[0; 7]), "length"),
            ("fog.npy", npy("<f4", "(10, 32, 32, 3)", &[]), "<f4"),
            ("fog.npy", npy("|u1", "(99999999999999999999, 32, 32, 3)", &[]), "dimension"),
            ("fog.npy", b"nothing at all".to_vec(), "begins"),
            ("labels.npy", npy("|u1", "(10,)", &[77; 10]), "10 classes"),
            ("labels.npy", npy("|u1", "(9,)", &[1; 9]), "severities"),
        ];
        for (name, bytes, part) in damage {
            let dir = folder();
            std::fs::write(dir.path().join(name), bytes).unwrap();
            let message = open(&dir).err().expect("refused").to_string();
            assert!(message.contains(name) && message.contains(part), "{message}");
        }
    }
}
