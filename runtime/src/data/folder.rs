//! Folders of images, one sub-folder a class: torchvision's `ImageFolder`.

mod tiff;

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use image::{ImageFormat, ImageReader, Limits, RgbImage};
use rayon::prelude::*;

use super::open::{MAX_FILE_BYTES, OpenOptions, Split, read_bounded};
use super::{Dataset, grouped};
use crate::error::{Error, Result};

pub(super) const LOOKED_FOR: &str = "sub-folders with images, one a class, here or in train/, test/ and val/";

/// Limits on one picture, so that a small file cannot ask for all of the memory.
const MAX_SIDE: u32 = 1 << 14;
const MAX_DECODED_BYTES: u64 = 256 << 20;
/// What a file's length bounds: no picture worth a class is compressed more, and a header alone is no picture.
const MAX_DECODED_RATIO: u64 = 4096;
const LEAST_DECODED_BYTES: u64 = 1 << 20;
/// Resizing its shorter side would blow up the longer one of a picture narrower than this.
const MAX_ASPECT_RATIO: u32 = 64;

/// ImageNet's evaluation shows the central 224 of 256 pixels; small images are used whole.
const CENTRAL_PART: f64 = 0.875;
const MIN_CROPPED_SIZE: usize = 64;

pub(super) fn find(dir: &Path) -> Option<PathBuf> {
    let has_class_with_image = |root: &Path| {
        let classes = sub_folders(root).unwrap_or_default();
        classes.iter().any(|class| images_in(class).is_ok_and(|(images, _)| !images.is_empty()))
    };
    let mut roots = [dir.to_owned(), dir.join("train"), dir.join("test"), dir.join("val")].into_iter();
    roots.any(|root| has_class_with_image(&root)).then(|| dir.to_owned())
}

/// Decodes the images of `split` below `dir`.
pub(super) fn open(dir: &Path, split: Split, options: &OpenOptions) -> Result<Dataset> {
    read(dir, Listing::of(dir, split)?, options)
}

/// Whether a folder has pictures, and not in classes.
pub(super) fn is_flat(dir: &Path) -> bool {
    find(dir).is_none() && images_in(dir).is_ok_and(|(images, _)| !images.is_empty())
}

/// Decodes the pictures of a folder without classes.
pub(super) fn open_flat(dir: &Path, options: &OpenOptions) -> Result<Dataset> {
    let (files, _) = images_in(dir)?;
    let images = files.into_iter().map(|file| (file, 0)).collect();
    read(dir, Listing { class_names: vec![String::new()], images, notes: Vec::new() }, options)
}

fn read(dir: &Path, listing: Listing, options: &OpenOptions) -> Result<Dataset> {
    let channels = check_channels(options.channels.unwrap_or(3))?;
    let mut images = listing.images;
    images.truncate(options.limit.unwrap_or(usize::MAX));

    let Some((first, _)) = images.first() else {
        return Err(Error::data(dir, "no images were asked for"));
    };
    let [height, width] = match options.size {
        Some(size) => check_size(size)?,
        None => {
            let picture = decode(first)?;
            [picture.height() as usize, picture.width() as usize]
        }
    };
    let image_bytes = channels * height * width;
    let mut pixels = Vec::new();
    let total = images.len().checked_mul(image_bytes);
    total.and_then(|total| pixels.try_reserve_exact(total).ok()).ok_or_else(|| {
        let (count, each) = (grouped(images.len() as u64), grouped(image_bytes as u64));
        let message = format!("{count} images of {each} bytes do not fit in memory; limit them");
        Error::data(dir, message)
    })?;
    pixels.resize(images.len() * image_bytes, 0);

    // The first fault in file order, whichever thread meets one first.
    let fault = pixels.par_chunks_exact_mut(image_bytes).zip(&images).find_map_first(|(out, (path, _))| {
        let picture = decode(path).and_then(|picture| match options.size {
            Some(_) => fit(path, picture, [height, width]),
            None => same_size(path, picture, [height, width], first),
        });
        picture.map(|picture| write_planar(&picture, out)).err()
    });
    if let Some(fault) = fault {
        return Err(fault);
    }

    let labels = images.iter().map(|(_, label)| *label).collect();
    let shape = [channels, height, width];
    let dataset = Dataset::from_pixels("folder", shape, listing.class_names, pixels, labels)?;
    Ok(Dataset { path: dir.to_owned(), notes: listing.notes, ..dataset })
}

/// Decodes one image for a model that takes `shape` (channels, height, width): the same way as the
/// images of a folder, so that a classification equals what an evaluation counted.
///
/// # Errors
/// [`Error::Io`] and [`Error::Data`] naming the file.
pub fn load_image(path: impl AsRef<Path>, shape: [usize; 3]) -> Result<Vec<f32>> {
    let (path, [channels, height, width]) = (path.as_ref(), shape);
    check_channels(channels)?;
    let picture = fit(path, decode(path)?, check_size([height, width])?)?;
    let mut pixels = vec![0; channels * height * width];
    write_planar(&picture, &mut pixels);
    Ok(pixels.iter().map(|&byte| f32::from(byte) / 255.0).collect())
}

/// The files of a split, before any is decoded.
struct Listing {
    class_names: Vec<String>,
    /// Files with their labels: by class, then by name.
    images: Vec<(PathBuf, u32)>,
    notes: Vec<String>,
}

impl Listing {
    fn of(dir: &Path, split: Split) -> Result<Self> {
        let mut notes = Vec::new();
        let part = |name: &str| Some(dir.join(name)).filter(|part| is_split(part));
        let (train, test) = (part("train"), part("test").or_else(|| part("val")));
        let root = match (split, &train, &test) {
            (_, None, None) => {
                notes.push("no train/ and test/ folders: all images serve as both".to_owned());
                dir
            }
            (Split::Train, Some(part), _) | (Split::Test, _, Some(part)) => part,
            (Split::Train, None, _) => {
                return Err(Error::data(dir, "has test images only; add the folder train/"));
            }
            (Split::Test, _, None) => {
                return Err(Error::data(dir, "has no folder test/ or val/ beside train/"));
            }
        };
        let classes = sub_folders(root)?;
        // A class that the test images lack must not shift the labels of the others.
        let class_names: Vec<_> = match &train {
            Some(train) => sub_folders(train)?.iter().map(|class| name(class)).collect(),
            None => classes.iter().map(|class| name(class)).collect(),
        };

        let (mut images, mut skipped) = (Vec::new(), 0);
        for class in &classes {
            let label = class_names.iter().position(|known| *known == name(class));
            let label = label
                .ok_or_else(|| Error::data(class, "is not a class of train/; remove it, or add it there"))?;
            let (files, others) = images_in(class)?;
            if files.is_empty() {
                notes.push(format!("class {} has no images", name(class)));
            }
            images.extend(files.into_iter().map(|file| (file, label as u32)));
            skipped += others;
        }
        if skipped > 0 {
            notes.push(format!("{skipped} files or folders that are not images were skipped"));
        }
        if images.is_empty() {
            return Err(Error::data(root, format!("no images; looked for {LOOKED_FOR}")));
        }
        Ok(Self { class_names, images, notes })
    }
}

/// Whether `dir` is a split rather than a class that happens to be called "train".
fn is_split(dir: &Path) -> bool {
    sub_folders(dir).is_ok_and(|classes| !classes.is_empty())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Everything in a folder but hidden files, sorted by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        if !name(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn sub_folders(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// The images directly in a folder, and how many other things are there.
fn images_in(dir: &Path) -> Result<(Vec<PathBuf>, usize)> {
    let (images, others): (Vec<_>, Vec<_>) =
        entries(dir)?.into_iter().partition(|path| ImageFormat::from_path(path).is_ok() && path.is_file());
    Ok((images, others.len()))
}

fn decode(path: &Path) -> Result<RgbImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    let bytes = read_bounded(path, MAX_FILE_BYTES)?;
    let most = (bytes.len() as u64).saturating_mul(MAX_DECODED_RATIO);
    limits.max_alloc = Some(most.clamp(LEAST_DECODED_BYTES, MAX_DECODED_BYTES));
    if !tiff::is_plausible(&bytes) {
        return Err(Error::data(path, "announces more values than it has; replace or remove the file"));
    }
    // The content tells the format: names are often wrong.
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let mut reader = reader.map_err(Error::io(path))?;
    reader.limits(limits);
    let picture = reader
        .decode()
        .map_err(|e| Error::data(path, format!("cannot be decoded: {e}; replace or remove the file")))?;
    if picture.width() == 0 || picture.height() == 0 {
        return Err(Error::data(path, "has no pixels; replace or remove the file"));
    }
    Ok(picture.into_rgb8())
}

fn check_channels(channels: usize) -> Result<usize> {
    match channels {
        1 | 3 => Ok(channels),
        n => Err(Error::Config(format!("images have 1 or 3 channels, {n} cannot be had"))),
    }
}

fn check_size(size: [usize; 2]) -> Result<[usize; 2]> {
    if size.iter().all(|side| (1..=MAX_SIDE as usize).contains(side)) {
        return Ok(size);
    }
    let [height, width] = size;
    Err(Error::Config(format!("image size {height}x{width}: each side is 1 to {MAX_SIDE}")))
}

fn same_size(path: &Path, picture: RgbImage, size: [usize; 2], first: &Path) -> Result<RgbImage> {
    let found = [picture.height() as usize, picture.width() as usize];
    if found == size {
        return Ok(picture);
    }
    let ([h, w], [height, width]) = (found, size);
    let first = first.display();
    let message =
        format!("is {h}x{w} but {first} is {height}x{width} (height x width); give a size to resize to");
    Err(Error::data(path, message))
}

/// Resizes to `size` (height, width) as torchvision evaluates: `Resize(size / 0.875)` of the
/// shorter side, then `CenterCrop(size)`; sizes below 64 are resized whole. Bilinear with
/// antialiasing.
fn fit(path: &Path, picture: RgbImage, size: [usize; 2]) -> Result<RgbImage> {
    let [height, width] = size.map(|side| side as u32);
    let (w, h) = picture.dimensions();
    if size.iter().any(|&side| side < MIN_CROPPED_SIZE) {
        return Ok(imageops::resize(&picture, width, height, FilterType::Triangle));
    }
    if w.max(h) / w.min(h) > MAX_ASPECT_RATIO {
        let message = format!("{w}x{h} pixels are too narrow to crop; replace or remove the file");
        return Err(Error::data(path, message));
    }
    let [covered_height, covered_width] = resized([h, w], [height, width]);
    let picture = if (h, w) == (covered_height, covered_width) {
        picture
    } else {
        imageops::resize(&picture, covered_width, covered_height, FilterType::Triangle)
    };
    // Python's round(), which CenterCrop uses, takes halves to the even number.
    let margin = |outer: u32, inner: u32| (f64::from(outer - inner) / 2.0).round_ties_even() as u32;
    let (x, y) = (margin(covered_width, width), margin(covered_height, height));
    Ok(imageops::crop_imm(&picture, x, y, width, height).to_image())
}

/// Height and width of a picture of `from` once it just covers `to` / 0.875.
fn resized(from: [u32; 2], to: [u32; 2]) -> [u32; 2] {
    let [height, width] = from.map(u64::from);
    let [to_height, to_width] = to.map(|side| (f64::from(side) / CENTRAL_PART).round_ties_even() as u64);
    // Fractions are cut off, as in torchvision.
    let covered = if width * to_height <= height * to_width {
        [to_width * height / width, to_width]
    } else {
        [to_height, to_height * width / height]
    };
    covered.map(|side| side as u32)
}

/// Three planes, or one of luma when `out` has room for one only.
fn write_planar(picture: &RgbImage, out: &mut [u8]) {
    let plane = picture.pixels().len();
    if out.len() == plane {
        // ITU-R 601 in 16-bit fixed point, exactly as Pillow's convert("L").
        for (out, &image::Rgb([r, g, b])) in out.iter_mut().zip(picture.pixels()) {
            let luma = 19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b);
            *out = ((luma + 0x8000) >> 16) as u8;
        }
        return;
    }
    for (channel, out) in out.chunks_exact_mut(plane).enumerate() {
        for (out, pixel) in out.iter_mut().zip(picture.pixels()) {
            *out = pixel.0[channel];
        }
    }
}

#[cfg(test)]
mod tests;
