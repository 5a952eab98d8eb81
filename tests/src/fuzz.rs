//! Hostile input: what reads files from anywhere, fed with anything.
//!
//! A [`Target`] is one reader. The corpora run as an ordinary test (`tests/tests/hostile.rs`), the binary `fuzz`
//! mutates them, and so does cargo-fuzz (`tests/fuzz`).

mod memory;
mod mutate;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use adamant::finetune::Recipe;
use adamant::package::{Package, verify};
use adamant::{
    Dataset, OpenOptions, PublishedCorruptions, Split, import_bytes, load_image, to_onnx, to_safetensors,
};

pub use memory::{Counting, peak, reset_peak};
pub use mutate::Mutator;

/// One reader of hostile bytes.
pub struct Target {
    pub name: &'static str,
    /// Where its corpus lies, from the folder of this crate.
    pub corpora: &'static [&'static str],
    /// Bytes that it may allocate for each byte of its input, besides [`ALLOWANCE`].
    pub allowed: usize,
    /// Reads the bytes: what it found, or why it refused them.
    pub run: fn(&[u8]) -> Result<String, String>,
}

/// Bytes that any input may allocate: tables, messages, and the constants that an ONNX file may compute.
pub const ALLOWANCE: usize = 32 << 20;

/// Every reader of files.
pub const TARGETS: &[Target] = &[
    Target {
        name: "package",
        corpora: &["fixtures/packages", "fuzz/corpus/package"],
        allowed: 32,
        run: package,
    },
    Target {
        name: "sealed",
        corpora: &["fixtures/packages", "fuzz/corpus/package"],
        allowed: 32,
        run: sealed,
    },
    Target {
        name: "onnx",
        corpora: &["fixtures", "fixtures/bad", "fuzz/corpus/onnx"],
        allowed: 128,
        run: onnx,
    },
    Target { name: "cifar", corpora: &["fuzz/corpus/cifar"], allowed: 16, run: cifar },
    // What is compressed may be a thousand times longer: DEFLATE's best ratio is 1032.
    Target { name: "mnist", corpora: &["fuzz/corpus/mnist"], allowed: 4096, run: mnist },
    Target { name: "svhn", corpora: &["fuzz/corpus/svhn"], allowed: 16_384, run: svhn },
    Target { name: "npy", corpora: &["fuzz/corpus/npy"], allowed: 64, run: npy },
    Target { name: "picture", corpora: &["fuzz/corpus/picture"], allowed: 16_384, run: picture },
    Target {
        name: "recipe",
        corpora: &["../runtime/src/finetune/recipes", "fuzz/corpus/recipe"],
        allowed: 4096,
        run: recipe,
    },
];

impl Target {
    /// The target called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|t| t.name == name)
    }

    /// The files of its corpus, in the order of their names.
    ///
    /// # Panics
    /// When a folder cannot be read.
    pub fn corpus(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for folder in self.corpora.iter().map(|f| root.join(f)).filter(|f| f.is_dir()) {
            let entries = std::fs::read_dir(&folder).expect("the folder can be read");
            let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("it can be listed").path()).collect();
            paths.sort();
            // Scripts and expectations lie beside some corpora.
            let is_seed = |p: &PathBuf| p.is_file() && !p.extension().is_some_and(|e| e == "py" || e == "md");
            for path in paths.into_iter().filter(is_seed) {
                let bytes = std::fs::read(&path).expect("the file can be read");
                found.push((path, bytes));
            }
        }
        found
    }

    /// The most that an input of `len` bytes may allocate.
    pub const fn limit(&self, len: usize) -> usize {
        ALLOWANCE + self.allowed * len
    }
}

/// For cargo-fuzz: runs the target called `name`.
///
/// # Panics
/// When there is none, and when the reader panics.
pub fn run(name: &str, bytes: &[u8]) {
    let target = Target::named(name).expect("the target is listed");
    drop((target.run)(bytes));
}

/// A folder of this process, for readers of files.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = parent.join(format!("adamant-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the input");
        folder
    })
}

/// Removes what targets have written.
pub fn clean_up() {
    drop(std::fs::remove_dir_all(folder()));
}

/// Writes files into the folder `name` and returns that.
fn files(name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let folder = folder().join(name);
    std::fs::create_dir_all(&folder).expect("a folder for the input");
    for (file, bytes) in files {
        std::fs::write(folder.join(file), bytes).expect("the input is written");
    }
    folder
}

fn package(bytes: &[u8]) -> Result<String, String> {
    let folder = files("package", &[("x.adamant", bytes)]);
    let checked = verify(folder.join("x.adamant"));
    let package = Package::from_bytes(bytes, "x").map_err(|e| e.to_string())?;
    // What is read is sound, and is written again so that it reads the same.
    assert!(checked.expect("what is read is verified").is_sound());
    let again = package.to_bytes("x").expect("what was read can be written");
    assert_eq!(Package::from_bytes(&again, "x").expect("what was written can be read"), package);
    if let Ok(bytes) = to_onnx(&package.model) {
        assert!(!bytes.is_empty());
    }
    drop(to_safetensors(&package.model, package.precision));
    Ok(format!("{} parameters", package.model.values.len()))
}

/// A package whose header and metadata were changed by somebody who can compute hashes.
fn sealed(bytes: &[u8]) -> Result<String, String> {
    let mut bytes = bytes.to_vec();
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes) as usize
    };
    let (start, len) = (word(&bytes, 16), word(&bytes, 24));
    let metadata = start.checked_add(len).and_then(|end| bytes.get(start..end));
    if let Some(metadata) = metadata.filter(|_| bytes.len() >= 64) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[..48]).update(metadata);
        let seal = hasher.finalize();
        bytes[48..64].copy_from_slice(&seal.as_bytes()[..16]);
    }
    package(&bytes)
}

fn onnx(bytes: &[u8]) -> Result<String, String> {
    let model = import_bytes(bytes, "x".as_ref()).map_err(|e| e.to_string())?;
    // What is imported can be exported, and is then the same model.
    let exported = to_onnx(&model).map_err(|e| format!("export: {e}"))?;
    let again = import_bytes(&exported, "x".as_ref()).expect("what was exported can be imported");
    assert_eq!(again.values, model.values);
    Ok(format!("{} layers", model.network.layers.len()))
}

/// What a data set is, or why it is none.
fn opened(spec: &str) -> Result<String, String> {
    let data = Dataset::open(spec, Split::Test, &OpenOptions::default()).map_err(|e| e.to_string())?;
    let mut image = vec![0.0; data.shape.iter().product()];
    if !data.is_empty() {
        data.image(data.len() - 1, &mut image);
        assert!(image.iter().all(|v| (0.0..=1.0).contains(v)));
    }
    Ok(format!("{} images", data.len()))
}

fn cifar(bytes: &[u8]) -> Result<String, String> {
    let ten = files("cifar10", &[("test_batch.bin", bytes)]);
    let hundred = files("cifar100", &[("test.bin", bytes)]);
    let ten = opened(&format!("cifar10:{}", ten.display()));
    opened(&format!("cifar100:{}", hundred.display())).or(ten)
}

fn mnist(bytes: &[u8]) -> Result<String, String> {
    const LABELS: &[u8] = &[0, 0, 8, 1, 0, 0, 0, 2, 3, 4];
    const IMAGES: &[u8] = &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 5, 6];
    let with = |name, images, labels| {
        let folder = files(name, &[("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)]);
        opened(&format!("mnist:{}", folder.display()))
    };
    let as_labels = with("mnist-labels", IMAGES, bytes);
    with("mnist-images", bytes, LABELS).or(as_labels)
}

fn svhn(bytes: &[u8]) -> Result<String, String> {
    let folder = files("svhn", &[("test_32x32.mat", bytes)]);
    opened(&format!("svhn:{}", folder.display()))
}

fn npy(bytes: &[u8]) -> Result<String, String> {
    let labels = {
        let mut header =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }".to_vec();
        header.resize(127, b' ');
        header.push(b'\n');
        header.resize(128 + 5 * 8, 0);
        header
    };
    let found = |name, labels: &[u8], images: &[u8]| {
        let folder = files(name, &[("labels.npy", labels), ("gaussian_noise.npy", images)]);
        let spec = format!("cifar10c:{}", folder.display());
        let opened = PublishedCorruptions::open(&spec).expect("it is of this kind");
        opened.map(|data| format!("{} images", data.images())).map_err(|e| e.to_string())
    };
    let as_labels = found("npy-labels", bytes, &labels);
    found("npy-images", &labels, bytes).or(as_labels)
}

fn picture(bytes: &[u8]) -> Result<String, String> {
    let folder = files("picture", &[("x.png", bytes)]);
    let of = |shape: [usize; 3]| {
        let pixels = load_image(folder.join("x.png"), shape).map_err(|e| e.to_string())?;
        assert!(pixels.iter().all(|v| (0.0..=1.0).contains(v)));
        Ok(format!("{} values", pixels.len()))
    };
    let small = of([3, 8, 8]);
    of([1, 64, 72]).or(small)
}

fn recipe(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
    let recipe = Recipe::parse(text, "x", &[]).map_err(|e| e.to_string())?;
    // What is accepted prints as what it is.
    let printed = recipe.to_toml();
    let again = Recipe::parse(&printed, "printed", &[]).expect("what is printed runs as it is");
    // NaN is not equal to itself: what is printed again is compared.
    assert_eq!(again.to_toml(), printed);
    Ok(recipe.name)
}
