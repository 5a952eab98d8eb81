//! Labelled images: opening a data set, and handing it out in batches.
//!
//! Pixels stay bytes in memory and become f32 in [0, 1] when they are asked for; images that an attack
//! made are f32 from the start.
//! Normalisation is not done here: it is the first operation of the network, so that an epsilon
//! always means pixels.

mod augment;
#[cfg(feature = "data")]
mod cifar;
#[cfg(feature = "data")]
mod cifar_c;
#[cfg(feature = "data")]
mod folder;
mod loader;
#[cfg(feature = "data")]
mod mat;
#[cfg(feature = "data")]
mod mnist;
#[cfg(feature = "data")]
mod open;
#[cfg(feature = "data")]
mod svhn;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub use augment::Augment;
pub(crate) use augment::Placement;
#[cfg(feature = "data")]
pub use cifar_c::PublishedCorruptions;
#[cfg(feature = "data")]
pub use folder::load_image;
pub use loader::{Batch, Extra, Loader, LoaderOptions};
#[cfg(feature = "data")]
pub use open::{OpenOptions, Split};

use crate::error::{Error, Result};

/// Images of one size with their labels. A clone shares the pixels.
#[derive(Clone)]
pub struct Dataset {
    /// `cifar10`, `cifar100`, `mnist`, `svhn`, `folder`, or the name given to [`Dataset::from_pixels`].
    pub name: String,
    /// Channels, height and width of every image.
    pub shape: [usize; 3],
    /// The name of each label.
    pub class_names: Vec<String>,
    /// What a user should know about what was found, such as missing files. One sentence each.
    pub notes: Vec<String>,
    /// The folder that the images came from.
    path: PathBuf,
    /// Planar images one after another.
    pixels: Pixels,
    labels: Arc<Vec<u32>>,
    /// The images that this view covers.
    range: Range<usize>,
    /// Where they are among the pixels, if not in file order.
    order: Option<Arc<Vec<u32>>>,
}

/// Not an `Arc<[u8]>`, which would copy all of them once.
#[derive(Clone)]
enum Pixels {
    Bytes(Arc<Vec<u8>>),
    /// In [0, 1], and between the 256 levels.
    Values(Arc<Vec<f32>>),
}

impl Pixels {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Values(values) => values.len(),
        }
    }
}

impl Dataset {
    /// A data set from `pixels` in memory: planar (CHW) images one after another, as many as
    /// `labels`.
    ///
    /// # Errors
    /// [`Error::Config`] when the pixels do not fill the images or a label has no class name.
    pub fn from_pixels(
        name: impl Into<String>,
        shape: [usize; 3],
        class_names: Vec<String>,
        pixels: Vec<u8>,
        labels: Vec<u32>,
    ) -> Result<Self> {
        Self::with(name.into(), shape, class_names, Pixels::Bytes(Arc::new(pixels)), labels)
    }

    /// A data set from `values` in [0, 1], planar (CHW) images one after another, as many as `labels`.
    /// Nothing rounds them: images that an attack made stay what they are.
    ///
    /// # Errors
    /// [`Error::Config`] as for [`Dataset::from_pixels`], and when a value is outside [0, 1].
    pub fn from_values(
        name: impl Into<String>,
        shape: [usize; 3],
        class_names: Vec<String>,
        values: Vec<f32>,
        labels: Vec<u32>,
    ) -> Result<Self> {
        let name = name.into();
        if let Some(value) = values.iter().find(|x| !(0.0..=1.0).contains(*x)) {
            return Err(Error::Config(format!(
                "data set '{name}': an image holds {value}; images are in [0, 1]"
            )));
        }
        Self::with(name, shape, class_names, Pixels::Values(Arc::new(values)), labels)
    }

    fn with(
        name: String,
        shape: [usize; 3],
        class_names: Vec<String>,
        pixels: Pixels,
        labels: Vec<u32>,
    ) -> Result<Self> {
        let fault = |message: String| Err(Error::Config(format!("data set '{name}': {message}")));
        let needed = shape.iter().try_fold(labels.len(), |a, &d| a.checked_mul(d));
        if shape.contains(&0) || needed != Some(pixels.len()) {
            let (images, shape, len) = (labels.len(), dimensions(shape), pixels.len());
            let what = if matches!(pixels, Pixels::Bytes(_)) { "bytes" } else { "values" };
            return fault(format!("{images} images of {shape} cannot have {len} {what}"));
        }
        if let Some(index) = labels.iter().position(|&l| l as usize >= class_names.len()) {
            let (label, classes) = (labels[index], class_names.len());
            return fault(format!("image {index} has label {label} of {classes} classes"));
        }
        // Random numbers and per-image memory are keyed by 32-bit indices.
        if u32::try_from(labels.len()).is_err() {
            return fault(format!("{} images are more than 2^32 - 1", labels.len()));
        }
        Ok(Self {
            path: PathBuf::from(&name),
            name,
            shape,
            class_names,
            notes: Vec::new(),
            pixels,
            range: 0..labels.len(),
            labels: Arc::new(labels),
            order: None,
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The label of each image, below `class_names.len()`.
    pub fn labels(&self) -> &[u32] {
        &self.labels[self.range.clone()]
    }

    /// Which of so many classes have no image.
    pub fn absent_classes(&self, classes: usize) -> Vec<usize> {
        let mut absent = vec![true; classes];
        for &label in self.labels() {
            absent.get_mut(label as usize).into_iter().for_each(|absent| *absent = false);
        }
        (0..classes).filter(|&class| absent[class]).collect()
    }

    /// Position of this view's first image in the whole data set: 0 unless it is a
    /// [`subset`](Self::subset).
    pub fn offset(&self) -> usize {
        self.range.start
    }

    /// Position of image `at` in file order.
    pub fn position(&self, at: usize) -> usize {
        let at = self.range.start + at;
        self.order.as_ref().map_or(at, |order| order[at] as usize)
    }

    /// The images at these positions of the view, in this order: a data set of its own, whose images are known by
    /// their place in it. The pixels are shared.
    ///
    /// # Panics
    /// When there is no such position.
    pub fn reordered(&self, positions: &[u32]) -> Self {
        let order: Vec<u32> = positions.iter().map(|&at| self.position(at as usize) as u32).collect();
        let labels = positions.iter().map(|&at| self.labels()[at as usize]).collect();
        let range = 0..order.len();
        Self { labels: Arc::new(labels), range, order: Some(Arc::new(order)), ..self.clone() }
    }

    /// Writes image `index` to `out`, planar (CHW), each value in [0, 1].
    ///
    /// # Panics
    /// When there is no such image or `out` is not as long as one.
    pub fn image(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.len(), "image {index} of {}", self.len());
        let len = self.shape.iter().product::<usize>();
        let start = self.position(index) * len;
        assert_eq!(out.len(), len, "values of an image");
        match &self.pixels {
            Pixels::Values(values) => out.copy_from_slice(&values[start..start + len]),
            Pixels::Bytes(bytes) => {
                for (value, &byte) in out.iter_mut().zip(&bytes[start..start + len]) {
                    *value = f32::from(byte) / 255.0;
                }
            }
        }
    }

    /// Image `index` as it is stored: planar (CHW). `None` where images are not of bytes.
    pub(crate) fn bytes(&self, index: usize) -> Option<&[u8]> {
        let len = self.shape.iter().product::<usize>();
        match &self.pixels {
            Pixels::Bytes(bytes) => Some(&bytes[self.position(index) * len..][..len]),
            Pixels::Values(_) => None,
        }
    }

    /// A hash of these images and their labels.
    pub fn blake3(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let len = self.shape.iter().product::<usize>();
        for start in (0..self.len()).map(|at| self.position(at) * len) {
            match &self.pixels {
                Pixels::Bytes(bytes) => hasher.update(&bytes[start..start + len]),
                Pixels::Values(values) => hasher.update(bytemuck::cast_slice(&values[start..start + len])),
            };
        }
        self.labels().iter().for_each(|label| {
            hasher.update(&label.to_le_bytes());
        });
        hasher.finalize().to_hex().to_string()
    }

    /// These images and then those of `other`.
    ///
    /// # Errors
    /// [`Error::Config`] when their images or their classes are of another kind.
    pub fn join(&self, other: &Self) -> Result<Self> {
        let kind = |d: &Self| format!("{} in {} classes", dimensions(d.shape), d.class_names.len());
        if self.shape != other.shape || self.class_names.len() != other.class_names.len() {
            return Err(Error::Config(format!(
                "'{}' has images of {}, '{}' of {}",
                self.name,
                kind(self),
                other.name,
                kind(other)
            )));
        }
        let images = |d| (0..Self::len(d)).map(move |i| (d, i));
        let pixels = Self::gather(&images(self).chain(images(other)).collect::<Vec<_>>());
        let labels = [self.labels(), other.labels()].concat();
        let joined = Self::with(self.name.clone(), self.shape, self.class_names.clone(), pixels, labels)?;
        Ok(Self { path: self.path.clone(), ..joined })
    }

    /// The images that `labels` has a label for, with that one.
    ///
    /// # Errors
    /// [`Error::Config`] when a label has no class name.
    ///
    /// # Panics
    /// When there is not one entry an image.
    pub fn relabelled(&self, labels: &[Option<u32>], class_names: &[String]) -> Result<Self> {
        assert_eq!(labels.len(), self.len(), "one entry for each image");
        let images: Vec<(&Self, usize)> =
            labels.iter().enumerate().filter(|(_, label)| label.is_some()).map(|(i, _)| (self, i)).collect();
        let pixels = Self::gather(&images);
        let labels = labels.iter().copied().flatten().collect();
        let kept = Self::with(self.name.clone(), self.shape, class_names.to_vec(), pixels, labels)?;
        Ok(Self { path: self.path.clone(), ..kept })
    }

    /// The pixels of images of one size, as bytes where all of them are.
    fn gather(images: &[(&Self, usize)]) -> Pixels {
        let bytes: Option<Vec<&[u8]>> = images.iter().map(|(data, i)| data.bytes(*i)).collect();
        if let Some(bytes) = bytes {
            return Pixels::Bytes(Arc::new(bytes.concat()));
        }
        let len = images.first().map_or(0, |(data, _)| data.shape.iter().product());
        let mut values = vec![0.0; images.len() * len];
        for ((data, i), out) in images.iter().zip(values.chunks_exact_mut(len)) {
            data.image(*i, out);
        }
        Pixels::Values(Arc::new(values))
    }

    /// The first `count` images, or all when there are fewer.
    pub fn limit(&self, count: usize) -> Self {
        self.subset(0..count)
    }

    /// The images of `range`; the part of it beyond the last image is ignored.
    pub fn subset(&self, range: Range<usize>) -> Self {
        let start = self.range.start + range.start.min(self.len());
        let end = self.range.start + range.end.min(self.len());
        Self { range: start..end.max(start), ..self.clone() }
    }
}

/// Without the pixels, which are too many to print.
impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("shape", &self.shape)
            .field("classes", &self.class_names.len())
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// Checks that a model which takes images of `input` (channels, height, width) and tells `classes`
/// classes apart can be used with this data.
///
/// # Errors
/// [`Error::Data`] naming both sides and the remedy.
pub fn check_fit(dataset: &Dataset, input: [usize; 3], classes: usize) -> Result<()> {
    let fault = |message: String| Err(Error::data(&dataset.path, message));
    if dataset.shape != input {
        let remedy = if dataset.name == "folder" {
            "open the folder with the model's image size and channels"
        } else {
            "use a model made for this data, or give the images as folder:DIR, which resizes them"
        };
        return fault(format!(
            "the images of {} are {}, the model takes {} (channels x height x width); {remedy}",
            dataset.name,
            dimensions(dataset.shape),
            dimensions(input),
        ));
    }
    if dataset.class_names.len() != classes {
        return fault(format!(
            "{} has {} classes, the model tells {classes} apart; use the data that the model was \
             trained for, or a model trained for this data",
            dataset.name,
            dataset.class_names.len(),
        ));
    }
    Ok(())
}

fn dimensions([channels, height, width]: [usize; 3]) -> String {
    format!("{channels}x{height}x{width}")
}

#[cfg(feature = "data")]
/// 1234567 as "1,234,567".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| i.to_string()).collect()
    }

    /// `count` images of 1x1x2 with pixels 0, 1, 2 ... and labels 0, 1, 2, 0 ...
    fn counting(count: u8) -> Dataset {
        let labels = (0..u32::from(count)).map(|i| i % 3).collect();
        let pixels = (0..2 * count).collect();
        Dataset::from_pixels("counting", [1, 1, 2], names(3), pixels, labels).unwrap()
    }

    #[test]
    fn images_are_bytes_over_255() {
        let data = Dataset::from_pixels("x", [1, 1, 3], names(1), vec![0, 51, 255], vec![0]);
        let mut image = [9.0; 3];
        data.unwrap().image(0, &mut image);
        assert_eq!(image, [0.0, 0.2, 1.0]);
    }

    #[test]
    fn values_are_not_rounded() {
        let values = vec![0.0, 0.1, 1.0, 0.3 + f32::EPSILON];
        let of = |values: &[f32]| {
            Dataset::from_values("x", [1, 1, 2], names(1), values.to_vec(), vec![0; values.len() / 2])
        };
        let data = of(&values).unwrap();
        let mut image = [9.0; 2];
        data.subset(1..2).image(0, &mut image);
        assert_eq!(image[..], values[2..]);
        assert!(data.bytes(0).is_none());
        // Images that differ in the last bit are others.
        let near = of(&[0.0, 0.1, 1.0, 0.3]).unwrap();
        assert!(data.blake3() != near.blake3() && data.limit(1).blake3() == near.limit(1).blake3());
        for wrong in [1.0 + f32::EPSILON, -1e-9, f32::NAN] {
            assert!(of(&[0.0, wrong]).unwrap_err().to_string().contains("[0, 1]"));
        }
    }

    #[test]
    fn subsets_nest_and_never_leave_the_data() {
        let data = counting(10);
        let part = data.subset(2..8).subset(1..100);
        assert_eq!((part.len(), part.offset()), (5, 3));
        assert_eq!(part.labels(), &data.labels()[3..8]);
        let (mut of_part, mut of_all) = ([0.0; 2], [0.0; 2]);
        part.image(4, &mut of_part);
        data.image(7, &mut of_all);
        assert_eq!(of_part, of_all);
        assert_eq!(data.limit(4).len(), 4);
        assert_eq!((data.absent_classes(3), data.subset(1..2).absent_classes(4)), (vec![], vec![0, 2, 3]));
        assert_eq!(data.limit(99).len(), 10);
        assert!(data.subset(20..30).is_empty());
    }

    #[test]
    fn another_order_is_the_same_images() {
        let data = counting(10).subset(1..10);
        let found = data.reordered(&[8, 0, 3]);
        assert_eq!(found.labels(), [data.labels()[8], data.labels()[0], data.labels()[3]]);
        assert_eq!([0, 1, 2].map(|at| found.position(at)), [9, 1, 4]);
        let last = found.subset(1..3);
        assert_eq!((last.len(), last.offset(), last.position(1)), (2, 1, 4));
        let (mut of_last, mut of_all) = ([0.0; 2], [0.0; 2]);
        last.image(1, &mut of_last);
        data.image(3, &mut of_all);
        assert_eq!(of_last, of_all);
        assert_eq!(last.bytes(1), data.bytes(3));
        assert_eq!(last.subset(1..2).blake3(), data.subset(3..4).blake3());
        assert_eq!(data.reordered(&[0, 1, 2, 3, 4, 5, 6, 7, 8]).blake3(), data.blake3());
        assert_eq!(last.reordered(&[1]).labels(), &data.labels()[3..4]);
    }

    #[test]
    fn contradictions_are_errors() {
        let make = |shape, bytes: usize, labels: &[u32]| {
            Dataset::from_pixels("x", shape, names(2), vec![0; bytes], labels.to_vec())
        };
        assert!(make([1, 1, 2], 4, &[0, 1]).is_ok());
        for (wrong, part) in [
            (make([1, 1, 2], 5, &[0, 1]), "2 images of 1x1x2 cannot have 5 bytes"),
            (make([1, 0, 2], 0, &[0, 1]), "cannot have 0 bytes"),
            (make([usize::MAX, 2, 2], 4, &[0]), "cannot have 4 bytes"),
            (make([1, 1, 2], 4, &[0, 2]), "image 1 has label 2 of 2 classes"),
        ] {
            let message = wrong.unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn misfits_name_both_sides() {
        let data = counting(3);
        check_fit(&data, [1, 1, 2], 3).unwrap();
        let message = check_fit(&data, [3, 32, 32], 3).unwrap_err().to_string();
        assert!(message.contains("1x1x2") && message.contains("3x32x32"), "{message}");
        let message = check_fit(&data, [1, 1, 2], 10).unwrap_err().to_string();
        assert!(message.contains("3 classes") && message.contains("10"), "{message}");
    }

    #[cfg(feature = "data")]
    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
