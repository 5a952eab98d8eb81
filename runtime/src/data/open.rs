//! From what a user wrote after `--data` to a data set.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Dataset, cifar, folder, grouped, mnist, svhn};
use crate::error::{Error, Result};
use crate::spelling::did_you_mean;

/// Which half of a data set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Split {
    #[default]
    Train,
    Test,
}

/// How to open a data set. `size` and `channels` matter to folders of images only: CIFAR, MNIST and
/// SVHN have their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenOptions {
    /// Height and width of the images. From 64 up as torchvision evaluates ImageNet: the shorter
    /// side is resized to size / 0.875 and the centre is cut out; smaller sizes show the whole
    /// image, resized. `None` when all images have one size already.
    pub size: Option<[usize; 2]>,
    /// 1 for grayscale, 3 for RGB; `None` is RGB.
    pub channels: Option<usize>,
    /// Keep the first images only, in file order. The others of a folder are not even decoded.
    pub limit: Option<usize>,
    /// A folder may hold pictures without sub-folders; their label is 0, and the only class has no name.
    pub unlabelled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Cifar10,
    Cifar100,
    Mnist,
    Svhn,
    Folder,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Cifar10, Self::Cifar100, Self::Mnist, Self::Svhn, Self::Folder];

    fn name(self) -> &'static str {
        match self {
            Self::Cifar10 => cifar::CIFAR10.name,
            Self::Cifar100 => cifar::CIFAR100.name,
            Self::Mnist => "mnist",
            Self::Svhn => "svhn",
            Self::Folder => "folder",
        }
    }

    /// The folder, `dir` or one inside it, that has the files of this kind.
    fn find(self, dir: &Path) -> Option<PathBuf> {
        match self {
            Self::Cifar10 => cifar::CIFAR10.find(dir),
            Self::Cifar100 => cifar::CIFAR100.find(dir),
            Self::Mnist => mnist::find(dir),
            Self::Svhn => svhn::find(dir),
            Self::Folder => folder::find(dir),
        }
    }

    fn looked_for(self) -> String {
        match self {
            Self::Cifar10 => cifar::CIFAR10.looked_for(),
            Self::Cifar100 => cifar::CIFAR100.looked_for(),
            Self::Mnist => mnist::LOOKED_FOR.into(),
            Self::Svhn => svhn::LOOKED_FOR.into(),
            Self::Folder => folder::LOOKED_FOR.into(),
        }
    }
}

impl Dataset {
    /// Opens `cifar10:DIR`, `cifar100:DIR`, `mnist:DIR`, `svhn:DIR`, `folder:DIR`, or just `DIR` when its
    /// contents say which. [`Dataset::notes`] tells what deserves attention.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown kind or option; [`Error::Data`] and [`Error::Io`] naming
    /// the file that is missing, damaged or unreadable.
    pub fn open(spec: &str, split: Split, options: &OpenOptions) -> Result<Self> {
        let (kind, dir) = parse(spec)?;
        if !dir.is_dir() {
            return Err(Error::data(dir, "there is no such folder"));
        }
        if options.unlabelled && matches!(kind, None | Some(Kind::Folder)) && folder::is_flat(dir) {
            return folder::open_flat(dir, options);
        }
        let (kind, root) = match kind {
            Some(kind) => (kind, locate(kind, dir)?),
            None => recognize(dir)?,
        };
        let dataset = match kind {
            Kind::Cifar10 => cifar::CIFAR10.open(&root, split),
            Kind::Cifar100 => cifar::CIFAR100.open(&root, split),
            Kind::Mnist => mnist::open(&root, split),
            Kind::Svhn => svhn::open(&root, split),
            Kind::Folder => folder::open(&root, split, options),
        }?;
        Ok(match options.limit {
            Some(count) => dataset.limit(count),
            None => dataset,
        })
    }
}

fn parse(spec: &str) -> Result<(Option<Kind>, &Path)> {
    let Some((prefix, rest)) = spec.split_once(':') else {
        return Ok((None, Path::new(spec)));
    };
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == prefix) {
        return Ok((Some(kind), Path::new(rest)));
    }
    // A drive's letter, or a folder whose name has a colon.
    if prefix.len() == 1 || Path::new(spec).exists() {
        return Ok((None, Path::new(spec)));
    }
    if prefix == "cifar10c" || prefix == "cifar100c" {
        return Err(Error::Config(format!(
            "'{spec}': corrupted images alone; `adamant evaluate --suite corruptions` measures on them"
        )));
    }
    let known = Kind::ALL.map(Kind::name);
    let (all, near) = (known.join(", "), did_you_mean(prefix, &known));
    Err(Error::Config(format!("'{spec}': '{prefix}' is not a kind of data; there are {all}{near}")))
}

fn locate(kind: Kind, dir: &Path) -> Result<PathBuf> {
    kind.find(dir).ok_or_else(|| {
        let message = format!("no {} data here; looked for {}", kind.name(), kind.looked_for());
        Error::data(dir, message)
    })
}

fn recognize(dir: &Path) -> Result<(Kind, PathBuf)> {
    let mut found: Vec<_> = Kind::ALL.into_iter().filter_map(|kind| Some((kind, kind.find(dir)?))).collect();
    // Any folder may hold a stray picture: the files of the other kinds say more.
    if found.len() > 1 {
        found.retain(|(kind, _)| *kind != Kind::Folder);
    }
    if found.len() > 1 {
        let specs: Vec<_> =
            found.iter().map(|(kind, _)| format!("{}:{}", kind.name(), dir.display())).collect();
        let message = format!("several kinds of data are here; say which: {}", specs.join(" or "));
        return Err(Error::data(dir, message));
    }
    found.pop().ok_or_else(|| {
        let each = Kind::ALL.map(|kind| format!("\n  {}: {}", kind.name(), kind.looked_for()));
        Error::data(dir, format!("no data that is known; looked for{}", each.concat()))
    })
}

/// Whole data files beyond this are refused: the largest real one, CIFAR-100, has 154 MB.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 30;

/// The bytes of a regular file that has at most `max` of them.
pub(super) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(Error::io(path))?;
    // A pipe would block, a device would never end.
    if !metadata.is_file() {
        return Err(Error::data(path, "is not a regular file"));
    }
    if metadata.len() > max {
        let (found, max) = (grouped(metadata.len()), grouped(max));
        let message = format!("has {found} bytes, more than the {max} of any such file");
        return Err(Error::data(path, message));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(max).read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_a_kind_and_a_folder() {
        let known = parse("mnist:some/dir").unwrap();
        assert_eq!(known, (Some(Kind::Mnist), Path::new("some/dir")));
        assert_eq!(parse("some/dir").unwrap(), (None, Path::new("some/dir")));
        assert_eq!(parse(r"C:\data").unwrap(), (None, Path::new(r"C:\data")));
        let message = parse("cifar:some/dir").unwrap_err().to_string();
        assert!(message.contains("'cifar'") && message.contains("cifar10, cifar100"), "{message}");
        assert!(message.ends_with("; did you mean 'cifar10'?"), "{message}");
    }

    #[test]
    fn errors_say_what_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let open = |spec: &str| Dataset::open(spec, Split::Test, &OpenOptions::default());
        let message = |spec: &str| open(spec).unwrap_err().to_string();
        let here = dir.path().display().to_string();

        assert!(message(&format!("{here}/none")).contains("no such folder"));
        let unknown = message(&here);
        for word in ["test_batch.bin", "test.bin", "t10k-images", "sub-folder"] {
            assert!(unknown.contains(word), "{unknown}");
        }
        assert!(message(&format!("cifar100:{here}")).contains("cifar-100-binary"));

        fs::write(dir.path().join("test_batch.bin"), []).unwrap();
        fs::write(dir.path().join("t10k-images-idx3-ubyte"), []).unwrap();
        let several = message(&here);
        assert!(several.contains("cifar10:") && several.contains("or mnist:"), "{several}");
    }

    #[test]
    fn reading_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, [0; 10]).unwrap();
        assert_eq!(read_bounded(&file, 10).unwrap().len(), 10);
        assert!(read_bounded(&file, 9).unwrap_err().to_string().contains("10 bytes"));
        assert!(read_bounded(dir.path(), 9).is_err());
    }

    /// CIFAR-10 and MNIST side by side, found inside the folder that holds both.
    #[test]
    fn shared_data_opens() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        if !dir.is_dir() {
            eprintln!("SKIPPED shared_data_opens: ../shared/data is not there");
            return;
        }
        let here = dir.display();
        let open = |kind: &str, split| {
            Dataset::open(&format!("{kind}:{here}"), split, &OpenOptions::default()).unwrap()
        };
        let test = open("cifar10", Split::Test);
        assert_eq!((test.len(), test.shape), (10_000, [3, 32, 32]));
        assert_eq!(test.labels()[..5], [3, 8, 8, 0, 6]);
        assert_eq!((&*test.class_names[3], &*test.class_names[9]), ("cat", "truck"));

        let train = open("cifar10", Split::Train);
        assert_eq!(train.labels()[..5], [6, 9, 9, 4, 1]);
        assert_eq!(train.len() % 10_000, 0);
        assert_eq!(train.len() == 50_000, train.notes.is_empty());

        let test = open("mnist", Split::Test);
        assert_eq!((test.len(), test.shape), (10_000, [1, 28, 28]));
        assert_eq!(test.labels()[..5], [7, 2, 1, 0, 4]);
        assert_eq!(open("mnist", Split::Train).labels()[..5], [5, 0, 4, 1, 9]);
    }

    #[test]
    fn the_bundled_digits_open() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/digits");
        let spec = dir.display().to_string();
        for (split, per_class) in [(Split::Train, 400), (Split::Test, 100)] {
            let data = Dataset::open(&spec, split, &OpenOptions::default()).unwrap();
            assert_eq!((&*data.name, data.shape), ("mnist", [1, 28, 28]));
            let mut counts = [0; 10];
            data.labels().iter().for_each(|&label| counts[label as usize] += 1);
            assert_eq!(counts, [per_class; 10]);
            let mut image = [0.0; 784];
            data.image(0, &mut image);
            assert!(image[0] == 0.0 && image.contains(&1.0), "a white digit on black");
        }
        let options = OpenOptions { limit: Some(7), ..OpenOptions::default() };
        assert_eq!(Dataset::open(&spec, Split::Test, &options).unwrap().len(), 7);
    }
}
