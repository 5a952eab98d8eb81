//! MNIST and data sets of its format (IDX): one file of images and one of labels, gzipped or not.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::open::{MAX_FILE_BYTES, Split};
use super::{Dataset, grouped};
use crate::error::{Error, Result};

pub(super) const LOOKED_FOR: &str = "train-images-idx3-ubyte, train-labels-idx1-ubyte, \
    t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (also .gz), here and in mnist/";

const CLASSES: usize = 10;

/// DEFLATE's best compression ratio: a longer content cannot be in the file.
const MAX_DEFLATE_RATIO: u64 = 1032;

pub(super) fn find(dir: &Path) -> Option<PathBuf> {
    // The last is where torchvision unpacks it.
    let roots = [dir.to_owned(), dir.join("mnist"), dir.join("MNIST/raw")];
    roots.into_iter().find(|root| {
        [Split::Train, Split::Test].iter().any(|split| file(root, *split, "images-idx3").is_some())
    })
}

/// The file of a split under any of the names in use; `what` is `images-idx3` or `labels-idx1`.
fn file(root: &Path, split: Split, what: &str) -> Option<PathBuf> {
    let stem = stem(split, what);
    let dotted = stem.replace("-idx", ".idx");
    [stem.clone(), format!("{stem}.gz"), dotted.clone(), format!("{dotted}.gz")]
        .into_iter()
        .map(|name| root.join(name))
        .find(|path| path.is_file())
}

fn stem(split: Split, what: &str) -> String {
    match split {
        Split::Train => format!("train-{what}-ubyte"),
        Split::Test => format!("t10k-{what}-ubyte"),
    }
}

/// Reads the images and labels of `split` in `root`.
pub(super) fn open(root: &Path, split: Split) -> Result<Dataset> {
    let required = |what| {
        file(root, split, what).ok_or_else(|| {
            let name = stem(split, what);
            Error::data(root, format!("{name} (or {name}.gz) not found; download it"))
        })
    };
    let images_path = required("images-idx3")?;
    let labels_path = required("labels-idx1")?;
    let ([count, height, width], pixels) = read_idx(&images_path)?;
    let ([labels_count], labels) = read_idx(&labels_path)?;
    if labels_count != count {
        let message = format!(
            "has {labels_count} labels for the {count} images of {}; download both again",
            images_path.display()
        );
        return Err(Error::data(&labels_path, message));
    }
    if let Some(index) = labels.iter().position(|&label| usize::from(label) >= CLASSES) {
        let label = labels[index];
        let message = format!("record {index} has label {label}, MNIST's are 0 to 9");
        return Err(Error::data(&labels_path, message));
    }
    let class_names = (0..CLASSES).map(|digit| digit.to_string()).collect();
    let labels = labels.into_iter().map(u32::from).collect();
    let dataset = Dataset::from_pixels("mnist", [1, height, width], class_names, pixels, labels)?;
    Ok(Dataset { path: root.to_owned(), ..dataset })
}

/// The dimensions and values of an IDX file of unsigned bytes with `N` dimensions, none of them 0.
fn read_idx<const N: usize>(path: &Path) -> Result<([usize; N], Vec<u8>)> {
    let fault = |message: String| Error::data(path, message);
    let damaged = |e: std::io::Error| fault(format!("cannot be read: {e}; download it again"));
    let file_bytes = fs::metadata(path).map_err(Error::io(path))?.len();
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);

    // By content, because a browser may unpack a .gz file and leave it its name.
    let gzipped = file.fill_buf().map_err(Error::io(path))?.starts_with(&[0x1f, 0x8b]);
    let (mut reader, most_bytes): (Box<dyn Read>, u64) = if gzipped {
        (Box::new(GzDecoder::new(file)), file_bytes.saturating_mul(MAX_DEFLATE_RATIO))
    } else {
        (Box::new(file), file_bytes)
    };

    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(damaged)?;
    if magic != [0, 0, 8, N as u8] {
        let message = format!("is not an IDX file of bytes with {N} dimension(s): it starts {magic:02x?}");
        return Err(fault(message));
    }
    let mut dims = [0; N];
    for dim in &mut dims {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).map_err(damaged)?;
        *dim = u32::from_be_bytes(bytes) as usize;
    }

    // The header may say anything: the file's own size bounds what is believed.
    let most_bytes = most_bytes.min(MAX_FILE_BYTES);
    let len = dims.iter().try_fold(1u64, |a, &d| a.checked_mul(d as u64));
    let len = len.filter(|&len| len <= most_bytes && len > 0).ok_or_else(|| {
        let (file_bytes, most) = (grouped(file_bytes), grouped(most_bytes));
        fault(format!(
            "the header announces {dims:?} values; a file of {file_bytes} bytes holds 1 to {most}; \
             download it again"
        ))
    })?;
    // The vector grows with what really arrives. One byte more than announced shows an excess.
    let mut values = Vec::new();
    reader.take(len + 1).read_to_end(&mut values).map_err(damaged)?;
    if values.len() as u64 != len {
        let more = if values.len() as u64 > len { " or more" } else { "" };
        let (len, found) = (grouped(len), grouped(values.len() as u64));
        return Err(fault(format!(
            "expected {len} bytes after the header, found {found}{more}; download it again"
        )));
    }
    Ok((dims, values))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// The message for these images, with two sound labels.
    fn fault(images: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("train-images-idx3-ubyte.gz"), images).unwrap();
        fs::write(dir.path().join("train-labels-idx1-ubyte"), idx(&[2], &[1, 2])).unwrap();
        let message = open(dir.path(), Split::Train).unwrap_err().to_string();
        assert!(message.contains("train-images-idx3-ubyte.gz"), "{message}");
        message
    }

    #[test]
    fn every_spelling_opens() {
        let images = idx(&[2, 2, 3], &[0, 255, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        let labels = idx(&[2], &[7, 0]);
        for (images_name, labels_name, nested) in [
            ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", ""),
            ("t10k-images.idx3-ubyte", "t10k-labels-idx1-ubyte.gz", "mnist"),
            ("t10k-images-idx3-ubyte.gz", "t10k-labels.idx1-ubyte.gz", "MNIST/raw"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join(nested);
            fs::create_dir_all(&root).unwrap();
            for (name, bytes) in [(images_name, &images), (labels_name, &labels)] {
                let bytes = if name.ends_with(".gz") { gzip(bytes) } else { bytes.clone() };
                fs::write(root.join(name), bytes).unwrap();
            }
            let data = open(&find(dir.path()).unwrap(), Split::Test).unwrap();
            assert_eq!((data.shape, data.labels()), ([1, 2, 3], &[7, 0][..]));
            let mut image = [0.0; 6];
            data.image(0, &mut image);
            assert_eq!(image[..2], [0.0, 1.0]);
            assert!(open(&root, Split::Train).is_err());
        }
    }

    #[test]
    fn a_header_is_not_believed() {
        let many = idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 20]);
        assert!(fault(&many).contains("announces"));
        assert!(fault(&gzip(&many)).contains("announces"));
        assert!(fault(&idx(&[2, 28, 28], &[0; 20])).contains("announces"));
        assert!(fault(&idx(&[0, 28, 28], &[])).contains("announces"));
        assert!(fault(&gzip(&idx(&[2, 2, 2], &[0; 7]))).contains("expected 8 bytes"));
        assert!(fault(&idx(&[2, 2, 2], &[0; 9])).contains("9 or more"));
    }

    #[test]
    fn damaged_files_are_errors() {
        let sound = gzip(&idx(&[2, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 7]));
        for end in 0..sound.len() {
            assert!(fault(&sound[..end]).contains("download it again"));
        }
        let mut wrong_checksum = sound.clone();
        let at = sound.len() - 8;
        wrong_checksum[at] ^= 1;
        assert!(fault(&wrong_checksum).contains("cannot be read"));
        assert!(fault(b"<html>not found").contains("is not an IDX file"));
        assert!(fault(&idx(&[8], &[0; 8])).contains("3 dimension(s)"));
    }

    #[test]
    fn a_bomb_stops_at_the_announced_size() {
        let mut bomb = idx(&[2, 28, 28], &[]);
        bomb.resize(64 << 20, 0);
        assert!(fault(&gzip(&bomb)).contains("expected 1,568 bytes after the header, found 1,569"));
    }

    #[test]
    fn labels_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("train-images-idx3-ubyte"), idx(&[2, 1, 1], &[0, 1])).unwrap();
        for (labels, part) in [(&[1, 10][..], "record 1 has label 10"), (&[1], "1 labels for the 2")] {
            let bytes = idx(&[labels.len() as u32], labels);
            fs::write(dir.path().join("train-labels-idx1-ubyte"), bytes).unwrap();
            let message = open(dir.path(), Split::Train).unwrap_err().to_string();
            assert!(message.contains("train-labels") && message.contains(part), "{message}");
        }
    }
}
