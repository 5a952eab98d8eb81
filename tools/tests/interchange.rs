//! The same picture gives the same classes everywhere: in packages of every version and precision, in the
//! library on both executors, on the command line, and in ONNX Runtime on the file that is exported.
//!
//! The packages of `tests/fixtures/packages` stand for those in the field: they open for ever. `generate.py`
//! there says how they were made, and has ONNX Runtime's answers.

use std::path::{Path, PathBuf};
use std::process::Command;

use adamant::package::{Package, Precision, Signature, verify};
use adamant::{
    Classifier, Device, DeviceChoice, Images, Model, Picture, Session, import, import_bytes, to_onnx_as,
};
use serde_json::Value;

/// How far logits may be apart, as a part of the largest: sums of the same numbers in another order.
const LOGIT_TOLERANCE: f32 = 1e-5;

/// Golden packages: format, precision, whether it is a checkpoint.
const PACKAGES: [(&str, (u16, u16), Precision, bool); 5] = [
    ("v1.0-checkpoint", (1, 0), Precision::F32, true),
    ("v1.0-f32", (1, 0), Precision::F32, false),
    ("v1.1-f16", (1, 1), Precision::F16, false),
    ("v1.1-int8", (1, 1), Precision::Int8, false),
    ("v1.1-signed", (1, 1), Precision::F32, false),
];

const PICTURES: usize = 3;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/packages").join(name)
}

/// ONNX Runtime's logits: pictures x classes.
fn expected(name: &str) -> Vec<Vec<f32>> {
    let text = std::fs::read_to_string(fixture("expected.json")).expect("the fixture is there");
    let value: Value = serde_json::from_str(&text).expect("it is JSON");
    let number = |v: &Value| v.as_f64().expect("a number") as f32;
    let rows = value["logits"][name].as_array().expect("the package has logits");
    rows.iter().map(|row| row.as_array().expect("a row").iter().map(number).collect()).collect()
}

/// Classes, the most probable first.
fn ranked(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|z| (z - largest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

fn pictures(shape: [usize; 3]) -> Vec<Picture> {
    let open = |n| Picture::open(fixture(&format!("picture{n}.ppm")), shape).expect("it is a picture");
    (0..PICTURES).map(open).collect()
}

fn logits(device: Device, model: &Model) -> Vec<Vec<f32>> {
    let mut session = Session::new(device, model, PICTURES).expect("it fits");
    let images: Vec<f32> = pictures(model.network.input).iter().flat_map(|p| p.pixels().to_vec()).collect();
    session.load(&images, &[0; PICTURES], &[0; PICTURES]).expect("they fit");
    let found = session.logits(PICTURES, Images::Clean).expect("it runs");
    found.chunks_exact(session.classes()).map(<[f32]>::to_vec).collect()
}

fn assert_near(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let largest = expected.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
        assert_eq!(found.len(), expected.len(), "{what}");
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= LOGIT_TOLERANCE * largest, "{what}: {found:?} and {expected:?}");
        }
        assert_eq!(ranked(found), ranked(expected), "{what}");
    }
}

/// What the command line says of each picture: classes in order, with their probabilities.
fn on_the_command_line(package: &Path, device: &str) -> Vec<Vec<(usize, f32)>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
    command.args(["classify", "--top", "5", "--json", "-", "--device", device]).arg(package);
    command.args((0..PICTURES).map(|n| fixture(&format!("picture{n}.ppm"))));
    let output = command.output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let guess = |g: &Value| {
        let index = g["index"].as_u64().expect("a class") as usize;
        (index, g["probability"].as_f64().expect("a number") as f32)
    };
    let images = value["images"].as_array().expect("a list").iter();
    images.map(|image| image["top"].as_array().expect("a list").iter().map(guess).collect()).collect()
}

#[test]
fn the_same_picture_gives_the_same_classes_everywhere() {
    let devices = [("cpu", DeviceChoice::Cpu), ("gpu", DeviceChoice::Gpu)];
    for (name, ..) in PACKAGES {
        let path = fixture(&format!("{name}.adamant"));
        let package = Package::read(&path).expect("it opens for ever");
        let expected = expected(name);
        for (device, choice) in &devices {
            let what = format!("{name} on {device}");
            let open = || Device::open(choice).expect("the device is there");
            assert_near(&what, &logits(open(), &package.model), &expected);
            let classifier = Classifier::new(package.clone(), open(), 2).expect("it fits");
            let all = pictures(classifier.input());
            let found = classifier.classify_all(&all.iter().collect::<Vec<_>>(), 5).expect("it runs");
            let printed = on_the_command_line(&path, device);
            for ((found, printed), expected) in found.iter().zip(&printed).zip(&expected) {
                let probabilities = softmax(expected);
                let api: Vec<usize> = found.iter().map(|g| g.class).collect();
                let cli: Vec<usize> = printed.iter().map(|(class, _)| *class).collect();
                assert_eq!((&api, &cli), (&ranked(expected), &ranked(expected)), "{what}");
                for (guess, (class, probability)) in found.iter().zip(printed) {
                    assert!((guess.probability - probabilities[*class]).abs() < 1e-4, "{what}");
                    assert!((guess.probability - probability).abs() < 1e-6, "{what}");
                    assert_eq!(guess.label.as_deref(), package.model.labels.get(*class).map(String::as_str));
                }
            }
        }
    }
}

#[test]
fn golden_packages_are_what_they_were() {
    for (name, format, precision, is_checkpoint) in PACKAGES {
        let found = verify(fixture(&format!("{name}.adamant"))).expect("it opens for ever");
        assert!(found.is_sound());
        assert_eq!(
            (found.format, found.precision, found.is_checkpoint),
            (format, precision, is_checkpoint),
            "{name}"
        );
        let key = std::fs::read_to_string(fixture("maker.pub")).expect("the fixture is there");
        let signature = match name {
            "v1.1-signed" => Signature::Valid(key.trim().to_owned()),
            _ => Signature::None,
        };
        assert_eq!(found.signature, signature, "{name}");
        let claims = found.report.map(|r| (r.images, r.attacks.len()));
        assert_eq!(claims, matches!(name, "v1.0-f32" | "v1.1-int8").then_some((20, 1)), "{name}");
        assert_eq!(found.provenance.source_name, "tiny_resnet.onnx");
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut file = std::fs::read(fixture("v1.1-int8.adamant")).expect("the fixture is there");
    file[8..12].copy_from_slice(&[2, 0, 3, 0]);
    let message = Package::from_bytes(&file, "x").expect_err("it is newer").to_string();
    assert!(message.contains("format 2.3") && message.contains("update Adamant"), "{message}");
}

/// What ONNX Runtime ran is what is exported, and comes back with the package's own numbers.
#[test]
fn the_files_that_onnx_runtime_ran_are_what_is_exported() {
    for (name, _, precision, _) in PACKAGES {
        let package = Package::read(fixture(&format!("{name}.adamant"))).expect("it opens for ever");
        let ran = import(&fixture(&format!("{name}.onnx"))).expect("it is ONNX");
        let bytes = to_onnx_as(&package.model, precision).expect("it has an ONNX form");
        let exported = import_bytes(&bytes, name.as_ref()).expect("it is ONNX");
        assert_eq!(exported.network, ran.network, "{name}");
        assert_eq!(exported.values, ran.values, "{name}");
        let sorted = |model: &Model| {
            let bits = model.values.iter().map(|t| t.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
            let mut bits: Vec<_> = bits.collect();
            bits.sort();
            bits
        };
        assert_eq!(sorted(&ran), sorted(&package.model), "{name}");
    }
}

fn adamant(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
    let output = command.args(arguments).output().expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_ending_says_what_is_exported() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = fixture("v1.1-int8.adamant").display().to_string();
    let export = |name: &str, more: &[&str]| {
        let out = folder.path().join(name).display().to_string();
        let (code, text) = adamant(&[&["export", &package, "--out", &out], more].concat());
        assert_eq!(code, Some(0), "{text}");
        std::fs::read(&out).expect("it is written")
    };
    let model = Package::read(&package).expect("it is sound").model;
    let onnx = |precision| to_onnx_as(&model, precision).expect("it has a form");
    assert!(export("a.onnx", &[]) == onnx(Precision::Int8));
    assert!(export("b.onnx", &["--precision", "f32"]) == onnx(Precision::F32));
    let weights = export("c.safetensors", &[]);
    assert!(weights == adamant::to_safetensors(&model, Precision::Int8).expect("it has a form"));
    assert!(export("d.weights", &["--format", "safetensors"]) == weights);
}

#[test]
fn layers_on_the_command_line_freeze_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent");
    let model = root.join("examples/data/digits_resnet8.onnx");
    let (file, run) = (model.display().to_string(), folder.path().join("run"));
    let (data, out) =
        (format!("mnist:{}", root.join("examples/data/digits").display()), run.display().to_string());
    let arguments = |layers| {
        let common = [
            "finetune",
            &file,
            "--mean",
            "none",
            "--data",
            &data,
            "--limit",
            "64",
            "--batch",
            "32",
            "--epochs",
            "1",
            "--validate",
            "none",
            "--device",
            "cpu",
            "--set",
            "attack.steps=1",
            "--out",
            &out,
            "--layers",
        ];
        adamant(&[&common[..], &[layers]].concat())
    };
    let (code, text) = arguments("last:99");
    assert!(code == Some(2) && text.contains("3 blocks"), "{text}");
    let (code, text) = arguments("last:0");
    // A run that was refused leaves nothing behind.
    assert_eq!(code, Some(0), "{text}");
    let before = import(&model).expect("it is ONNX");
    let after = Package::read(run.join("checkpoint.adamant")).expect("the run has one").model;
    for ((parameter, a), b) in before.network.parameters.iter().zip(&before.values).zip(&after.values) {
        let trained = parameter.name.starts_with("linear");
        assert_eq!(a != b, trained, "{}", parameter.name);
    }
}
