//! SVHN, street view house numbers (Netzer et al., 2011), the cropped digits: MATLAB files of 32x32 pictures.

use std::path::{Path, PathBuf};

use super::mat::{self, Array, Values};
use super::open::Split;
use super::{Dataset, grouped};
use crate::error::{Error, Result};

pub(super) const LOOKED_FOR: &str = "train_32x32.mat, test_32x32.mat, here and in svhn/ and SVHN/";

const CLASSES: usize = 10;

fn name(split: Split) -> &'static str {
    match split {
        Split::Train => "train_32x32.mat",
        Split::Test => "test_32x32.mat",
    }
}

pub(super) fn find(dir: &Path) -> Option<PathBuf> {
    let roots = [dir.to_owned(), dir.join("svhn"), dir.join("SVHN")];
    roots.into_iter().find(|root| [Split::Train, Split::Test].iter().any(|s| root.join(name(*s)).is_file()))
}

/// Reads the images and labels of `split` in `root`.
pub(super) fn open(root: &Path, split: Split) -> Result<Dataset> {
    let path = root.join(name(split));
    if !path.is_file() {
        return Err(Error::data(root, format!("{} not found; download it", name(split))));
    }
    let fault = |message: String| Error::data(&path, message);
    let arrays = mat::read(&path)?;
    let array = |name: &str| {
        arrays.iter().find(|a| a.name == name).ok_or_else(|| fault(format!("has no array '{name}'")))
    };
    let (shape, pixels) = pixels(array("X")?).map_err(fault)?;
    let labels = labels(array("y")?).map_err(fault)?;
    if labels.len() * shape.iter().product::<usize>() != pixels.len() {
        let images = pixels.len() / shape.iter().product::<usize>().max(1);
        return Err(fault(format!(
            "has {} labels for {} images; download it again",
            grouped(labels.len() as u64),
            grouped(images as u64)
        )));
    }
    let class_names = (0..CLASSES).map(|digit| digit.to_string()).collect();
    let dataset = Dataset::from_pixels("svhn", shape, class_names, pixels, labels)?;
    Ok(Dataset { path: root.to_owned(), ..dataset })
}

/// From height x width x channels x images, the first varying fastest, to planar images one after another.
fn pixels(x: &Array) -> Result<([usize; 3], Vec<u8>), String> {
    let (&[height, width, channels, count], Values::Bytes(bytes)) = (x.dims.as_slice(), &x.values) else {
        return Err(format!("'X' is an array of {:?}; expected bytes, 32x32x3 for each image", x.dims));
    };
    let mut pixels = vec![0; bytes.len()];
    let plane = height * width;
    if plane == 0 || channels == 0 || count == 0 {
        return Err("has no images".into());
    }
    for (from, to) in bytes.chunks_exact(plane).zip(pixels.chunks_exact_mut(plane)) {
        for (i, value) in from.iter().enumerate() {
            // Element i is row i % height of column i / height.
            to[i % height * width + i / height] = *value;
        }
    }
    Ok(([channels, height, width], pixels))
}

/// Digits, where 10 stands for 0.
fn labels(y: &Array) -> Result<Vec<u32>, String> {
    let numbers: Vec<f64> = match &y.values {
        Values::Bytes(bytes) => bytes.iter().map(|&b| b.into()).collect(),
        Values::Numbers(numbers) => numbers.clone(),
    };
    let digit = |(i, label): (usize, f64)| match label {
        10.0 => Ok(0),
        l if (0.0..10.0).contains(&l) && l.fract() == 0.0 => Ok(l as u32),
        l => Err(format!("image {i} has label {l}, SVHN's are 1 to 10")),
    };
    numbers.into_iter().enumerate().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::OpenOptions;
    use crate::data::mat::tests::{file, matrix};

    const UINT8: u32 = 2;

    /// Two images of 2x3 with three channels: byte = 100 image + 30 channel + 10 row + column.
    fn images() -> Vec<u8> {
        let mut bytes = Vec::new();
        for n in 0..2 {
            for c in 0..3 {
                for column in 0..3 {
                    bytes.extend([0, 1].map(|row| 100 * n + 30 * c + 10 * row + column));
                }
            }
        }
        bytes
    }

    fn folder(labels: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let arrays = [
            matrix("X", &[2, 3, 3, 2], UINT8, &images()),
            matrix("y", &[labels.len() as u32, 1], UINT8, labels),
        ];
        fs::write(dir.path().join("test_32x32.mat"), file(&arrays, true)).unwrap();
        dir
    }

    fn open(dir: &tempfile::TempDir, split: Split) -> Result<Dataset> {
        Dataset::open(&dir.path().display().to_string(), split, &OpenOptions::default())
    }

    #[test]
    fn columns_become_rows() {
        let data = open(&folder(&[10, 7]), Split::Test).unwrap();
        assert_eq!((data.name.as_str(), data.shape, data.labels()), ("svhn", [3, 2, 3], &[0, 7][..]));
        let mut image = [0.0; 18];
        data.image(1, &mut image);
        let bytes = image.map(|v| (v * 255.0).round() as u32);
        assert_eq!(bytes[..6], [100, 101, 102, 110, 111, 112]);
        assert_eq!(bytes[12..], [160, 161, 162, 170, 171, 172]);
    }

    #[test]
    fn contradictions_are_errors() {
        let message = |labels: &[u8]| open(&folder(labels), Split::Test).unwrap_err().to_string();
        assert!(message(&[1, 11]).contains("label 11"));
        assert!(message(&[1, 2, 3]).contains("3 labels for 2 images"));
        let missing = open(&folder(&[1, 2]), Split::Train).unwrap_err().to_string();
        assert!(missing.contains("train_32x32.mat not found"), "{missing}");
    }
}
