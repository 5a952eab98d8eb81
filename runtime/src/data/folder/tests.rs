use image::{GrayImage, Rgb};

use super::*;

fn save(path: PathBuf, width: u32, height: u32, color: [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(width, height, Rgb(color)).save(path).unwrap();
}

fn open_all(dir: &Path, options: OpenOptions) -> Result<Dataset> {
    open(dir, Split::Test, &options)
}

fn image(data: &Dataset, index: usize) -> Vec<u8> {
    let mut values = vec![0.0; data.shape.iter().product()];
    data.image(index, &mut values);
    values.iter().map(|v| (v * 255.0).round() as u8).collect()
}

#[test]
fn classes_and_files_are_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path().join("dog/1.png"), 2, 1, [10, 20, 30]);
    save(dir.path().join("cat/b.bmp"), 2, 1, [4, 5, 6]);
    save(dir.path().join("cat/a.ppm"), 2, 1, [1, 2, 3]);
    fs::write(dir.path().join("cat/notes.txt"), "hello").unwrap();
    fs::write(dir.path().join("README"), "hello").unwrap();
    assert_eq!(find(dir.path()), Some(dir.path().to_owned()));

    let data = open_all(dir.path(), OpenOptions::default()).unwrap();
    assert_eq!((data.shape, data.labels()), ([3, 1, 2], &[0, 0, 1][..]));
    assert_eq!(data.class_names, ["cat", "dog"]);
    assert_eq!(image(&data, 0), [1, 1, 2, 2, 3, 3]);
    assert_eq!(image(&data, 2), [10, 10, 20, 20, 30, 30]);
    assert!(data.notes[0].contains("serve as both") && data.notes[1].starts_with("1 file"));

    let limited = OpenOptions { limit: Some(1), ..OpenOptions::default() };
    assert_eq!(open_all(dir.path(), limited).unwrap().len(), 1);
}

#[test]
fn pictures_without_classes_are_no_data_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path().join("b.png"), 1, 1, [4, 5, 6]);
    save(dir.path().join("a.png"), 1, 1, [1, 2, 3]);
    fs::write(dir.path().join("notes.txt"), "hello").unwrap();
    let spec = format!("folder:{}", dir.path().display());
    let open = |unlabelled| {
        Dataset::open(&spec, Split::Train, &OpenOptions { unlabelled, ..OpenOptions::default() })
    };
    assert!(open(false).is_err());
    let data = open(true).unwrap();
    assert_eq!((data.len(), data.class_names.len(), image(&data, 1)), (2, 1, vec![4, 5, 6]));
    // With classes, it is a folder like any other.
    save(dir.path().join("cat/c.png"), 1, 1, [7, 8, 9]);
    let data = open(true).unwrap();
    assert_eq!((data.len(), data.class_names.clone()), (1, vec!["cat".to_owned()]));
}

#[test]
fn splits_share_the_classes_of_train() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["train/a", "train/b", "train/c", "val/c"] {
        save(dir.path().join(class).join("1.png"), 1, 1, [0; 3]);
    }
    let options = OpenOptions::default();
    let open = |split| open(dir.path(), split, &options);
    assert_eq!(find(dir.path()), Some(dir.path().to_owned()));
    assert_eq!(open(Split::Train).unwrap().labels(), [0, 1, 2]);
    assert_eq!(open(Split::Test).unwrap().labels(), [2]);
    assert!(open(Split::Test).unwrap().notes.is_empty());

    save(dir.path().join("val/d/1.png"), 1, 1, [0; 3]);
    assert!(open(Split::Test).unwrap_err().to_string().contains("not a class of train/"));
    fs::remove_dir_all(dir.path().join("val")).unwrap();
    assert!(open(Split::Test).unwrap_err().to_string().contains("no folder test/ or val/"));
}

/// Known answers of Pillow: `Image.new("RGB", (1, 1), color).convert("L")`.
#[test]
fn grayscale_is_pillows() {
    let dir = tempfile::tempdir().unwrap();
    let colors = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 100, 50], [77, 77, 77]];
    for (i, color) in colors.into_iter().enumerate() {
        save(dir.path().join(format!("a/{i}.png")), 1, 1, color);
    }
    GrayImage::from_pixel(1, 1, image::Luma([91])).save(dir.path().join("a/5.png")).unwrap();
    let options = OpenOptions { channels: Some(1), ..OpenOptions::default() };
    let data = open_all(dir.path(), options).unwrap();
    assert_eq!(data.shape, [1, 1, 1]);
    let found: Vec<_> = (0..6).map(|i| image(&data, i)[0]).collect();
    assert_eq!(found, [76, 150, 29, 124, 77, 91]);

    let two = OpenOptions { channels: Some(2), ..OpenOptions::default() };
    assert!(matches!(open_all(dir.path(), two), Err(Error::Config(_))));
}

/// Sizes after torchvision's `Resize(256)`: `(h, w)` of what `CenterCrop(224)` then receives.
#[test]
fn the_shorter_side_is_resized() {
    for (from, to) in [
        ([256, 256], [256, 256]),
        ([375, 500], [256, 341]),
        ([500, 375], [341, 256]),
        ([100, 333], [256, 852]),
        ([1, 64], [256, 16384]),
    ] {
        assert_eq!(resized(from, [224, 224]), to, "{from:?}");
    }
    // Not square: both sides are covered.
    assert_eq!(resized([100, 100], [224, 112]), [256, 256]);
    assert_eq!(resized([100, 200], [224, 112]), [256, 512]);
}

#[test]
fn the_centre_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    // 80x96 needs no resizing for a crop of 70: 70 / 0.875 = 80.
    let picture = RgbImage::from_fn(96, 80, |x, y| Rgb([x as u8, y as u8, 0]));
    fs::create_dir(dir.path().join("a")).unwrap();
    picture.save(dir.path().join("a/1.png")).unwrap();
    let options = OpenOptions { size: Some([70, 70]), ..OpenOptions::default() };
    let data = open_all(dir.path(), options).unwrap();
    assert_eq!(data.shape, [3, 70, 70]);
    let bytes = image(&data, 0);
    assert_eq!((bytes[0], bytes[69], bytes[4900]), (13, 82, 5));

    // Small sizes show the whole picture.
    let options = OpenOptions { size: Some([2, 2]), ..OpenOptions::default() };
    let bytes = image(&open_all(dir.path(), options).unwrap(), 0);
    assert!(bytes[0] < 40 && bytes[1] > 55 && bytes[0] + bytes[1] == 95, "{bytes:?}");
}

#[test]
fn damaged_images_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let fault = |options| open_all(dir.path(), options).unwrap_err().to_string();
    let any = OpenOptions::default();
    let sized = OpenOptions { size: Some([64, 64]), ..any };

    fs::create_dir(dir.path().join("a")).unwrap();
    assert!(fault(any).contains("no images; looked for"));

    save(dir.path().join("a/1.png"), 8, 8, [1, 2, 3]);
    save(dir.path().join("a/2.png"), 8, 9, [1, 2, 3]);
    let message = fault(any);
    assert!(message.contains("2.png: is 9x8 but ") && message.contains("8x8"), "{message}");

    let whole = fs::read(dir.path().join("a/1.png")).unwrap();
    for bytes in [&whole[..whole.len() / 2], &[], b"not an image"] {
        fs::write(dir.path().join("a/2.png"), bytes).unwrap();
        let message = fault(any);
        assert!(message.contains("2.png: cannot be decoded"), "{message}");
    }

    save(dir.path().join("a/2.png"), 1, 65, [1, 2, 3]);
    assert!(fault(sized).contains("too narrow"));
    let oversized = OpenOptions { size: Some([1 << 20, 1]), ..any };
    assert!(fault(oversized).contains("1048576x1"));
}

/// A header that promises 60,000 x 60,000 pixels, with none behind it.
#[test]
fn a_huge_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/1.ppm"), "P6 60000 60000 255\n").unwrap();
    let message = open_all(dir.path(), OpenOptions::default()).unwrap_err().to_string();
    assert!(message.contains("1.ppm: cannot be decoded"), "{message}");
}

/// Decoders meet damaged bytes and files cut short at every third place: errors at worst.
#[test]
fn damage_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let picture = RgbImage::from_fn(9, 7, |x, y| Rgb([(x * 28) as u8, (y * 36) as u8, 99]));
    for extension in ["png", "jpg", "bmp", "webp", "tiff", "ppm"] {
        let path = dir.path().join(format!("1.{extension}"));
        picture.save(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(decode(&path).is_ok(), "{extension}");
        for at in (0..bytes.len()).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, &damaged).unwrap();
            let _ = decode(&path);
            fs::write(&path, &bytes[..at]).unwrap();
            let _ = decode(&path);
        }
    }
    fs::write(dir.path().join("1.ppm"), "P6 0 0 255\n").unwrap();
    assert!(decode(&dir.path().join("1.ppm")).is_err());
}

#[test]
fn one_image_is_loaded_like_those_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("class/a.png");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(100, 80, |x, y| Rgb([2 * x as u8, y as u8, 7])).save(&path).unwrap();
    for (channels, side) in [(3, 64), (3, 16), (1, 64)] {
        let options =
            OpenOptions { size: Some([side; 2]), channels: Some(channels), limit: None, unlabelled: false };
        let data = open_all(dir.path(), options).unwrap();
        let mut expected = vec![0.0; data.shape.iter().product()];
        data.image(0, &mut expected);
        assert_eq!(load_image(&path, data.shape).unwrap(), expected);
    }
    assert!(load_image(&path, [2, 8, 8]).is_err());
    assert!(load_image(dir.path().join("none.png"), [3, 8, 8]).is_err());
}
