//! The folder that `attack --save` writes, `evaluate` reads and `report` shows: every image as it was, and
//! as the attack left it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use adamant::Dataset;
use adamant::op::Norm;
use adamant::package::write_atomically;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::output::pixels;

/// The kind of data that such a folder is.
pub const SAVED: &str = "saved";

const IMAGES: &str = "images.f32";
const CLEAN: &str = "clean.u8";
const MANIFEST: &str = "manifest.json";

/// What `manifest.json` says about the images.
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    pub schema: u32,
    pub model: String,
    pub data: String,
    pub split: String,
    pub attack: String,
    pub norm: Norm,
    pub eps: f32,
    /// Of `images.f32`; `clean.u8` has the same images, as bytes, before the attack.
    pub dtype: String,
    /// Images, channels, height, width.
    pub shape: [usize; 4],
    pub class_names: Vec<String>,
    /// The true label of each image.
    pub labels: Vec<u32>,
    /// The position of each image in the data set.
    pub indices: Vec<usize>,
    /// Whether the model is right about each image without the attack.
    pub clean_correct: Vec<bool>,
    /// Whether it is right with and without.
    pub robust: Vec<bool>,
    /// The class that it takes each attacked image for.
    pub predicted: Vec<u32>,
}

/// Adversarial images as raw numbers: an 8-bit image file would round them, some out of the ball.
pub struct Saving {
    folder: PathBuf,
    file: File,
}

impl Saving {
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(IMAGES);
        let open = File::options().create(true).truncate(true).read(true).write(true).open(&path);
        let file = open.with_context(|| path.display().to_string())?;
        // Without its manifest, a folder that is written anew is not taken for whole.
        let manifest = folder.join(MANIFEST);
        if manifest.exists() {
            fs::remove_file(&manifest).with_context(|| manifest.display().to_string())?;
        }
        Ok(Self { folder: folder.to_owned(), file })
    }

    /// Writes image number `at`, over what was there: a later attempt may find more.
    pub fn put(&mut self, at: usize, image: &[f32]) -> adamant::Result<()> {
        let bytes: Vec<u8> = image.iter().flat_map(|x| x.to_le_bytes()).collect();
        let start = at as u64 * bytes.len() as u64;
        let mut write = || {
            self.file.seek(SeekFrom::Start(start))?;
            self.file.write_all(&bytes)
        };
        write().map_err(|source| adamant::Error::Io { path: self.folder.join(IMAGES), source })
    }

    /// Image number `at` as it was written.
    pub fn get(&mut self, at: usize, len: usize) -> Result<Vec<f32>> {
        read_floats(&mut self.file, at, len).with_context(|| self.folder.join(IMAGES).display().to_string())
    }

    /// Writes what belongs to the images; `clean` are those before the attack.
    pub fn finish(self, manifest: &Manifest, clean: &[u8]) -> Result<()> {
        self.file.sync_all().with_context(|| self.folder.join(IMAGES).display().to_string())?;
        write_atomically(self.folder.join(CLEAN), clean)?;
        let text = serde_json::to_string(manifest)? + "\n";
        Ok(write_atomically(self.folder.join(MANIFEST), text.as_bytes())?)
    }
}

fn read_floats(file: &mut File, at: usize, len: usize) -> std::io::Result<Vec<f32>> {
    file.seek(SeekFrom::Start(at as u64 * len as u64 * 4))?;
    let mut bytes = vec![0; len * 4];
    file.read_exact(&mut bytes)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Such a folder.
pub struct Saved {
    folder: PathBuf,
    pub manifest: Manifest,
}

impl Saved {
    pub fn is_one(folder: &Path) -> bool {
        folder.join(MANIFEST).is_file() && folder.join(IMAGES).is_file()
    }

    /// Opens a folder, whose manifest must fit its files.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let manifest: Manifest = serde_json::from_str(&text).with_context(|| {
            format!("{}: not a manifest of this version; attack again with --save", path.display())
        })?;
        let size = |name: &str| -> Result<u64> {
            let path = folder.join(name);
            Ok(fs::metadata(&path).with_context(|| path.display().to_string())?.len())
        };
        let values = manifest.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let images = manifest.shape[0];
        let lists = [manifest.labels.len(), manifest.clean_correct.len(), manifest.robust.len()];
        if values != Some(size(CLEAN)?)
            || values.and_then(|v| v.checked_mul(4)) != Some(size(IMAGES)?)
            || lists.iter().any(|&len| len != images)
            || manifest.predicted.len() != images
        {
            bail!("{}: the manifest does not fit the images; attack again with --save", folder.display());
        }
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    fn image_len(&self) -> usize {
        self.manifest.shape[1..].iter().product()
    }

    /// Image number `at` before the attack, in [0, 1].
    pub fn clean(&self, at: usize) -> Result<Vec<f32>> {
        let (path, len) = (self.folder.join(CLEAN), self.image_len());
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(at as u64 * len as u64))?;
            let mut bytes = vec![0; len];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().with_context(|| path.display().to_string())?;
        Ok(bytes.into_iter().map(|b| f32::from(b) / 255.0).collect())
    }

    /// The first `limit` attacked images, bit for bit, with their true labels.
    pub fn dataset(&self, limit: Option<usize>) -> Result<Dataset> {
        let Manifest { data, split, attack, norm, eps, shape, class_names, labels, .. } = &self.manifest;
        let images = limit.unwrap_or(usize::MAX).min(shape[0]);
        let path = self.folder.join(IMAGES);
        // As many as the file has, which was looked at when the folder was opened.
        let read = || read_floats(&mut File::open(&path)?, 0, images * self.image_len());
        let values = read().with_context(|| path.display().to_string())?;
        let labels = labels[..images].to_vec();
        let mut found =
            Dataset::from_values(SAVED, [shape[1], shape[2], shape[3]], class_names.clone(), values, labels)
                .with_context(|| self.folder.display().to_string())?;
        found.notes.push(format!(
            "images of {data} {split} after {attack} ({norm}, eps {}): what is called clean is their accuracy",
            pixels(f64::from(*eps))
        ));
        Ok(found)
    }

    /// Image number `at` as the attack left it.
    pub fn found(&self, at: usize) -> Result<Vec<f32>> {
        let path = self.folder.join(IMAGES);
        let read = || read_floats(&mut File::open(&path)?, at, self.image_len());
        read().with_context(|| path.display().to_string())
    }
}
