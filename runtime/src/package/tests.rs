//! What is written is read back, now and by later versions.

mod damage;

use super::header::Header;
use super::metadata::Metadata;
use super::*;
use crate::model::Preprocessing;
use crate::network::{Layer, Network, Parameter, Role, Source};
use crate::ops::{
    Add, AvgPool, BatchNorm, ChannelAffine, Conv2d, Flatten, MaxPool, Normalize, Op, Pad, Relu, Slice, Window,
};
use crate::report::{AttackResult, CleanResult, Warning, WorstCase};
use crate::shape::Tensor;

/// Convolution, activation, pooling and a linear layer; three classes of 3x3 grey images.
fn model() -> Model {
    let parameter = |name: &str, shape, role| Parameter { name: name.into(), shape: Shape(shape), role };
    let layer = |name: &str, op, inputs: &[Source]| Layer { name: name.into(), op, inputs: inputs.to_vec() };
    let pool = AvgPool { window: Window::global(2, 2), count_include_pad: false };
    let network = Network {
        input: [1, 3, 3],
        parameters: vec![
            parameter("conv.weight", [2, 2, 1, 2], Role::Weight),
            parameter("conv.bias", [1, 1, 1, 2], Role::Bias),
            parameter("fc.weight", [1, 1, 2, 3], Role::Weight),
        ],
        layers: vec![
            layer(
                "conv",
                Op::Conv2d(Conv2d::LINEAR),
                &[Source::Image, Source::Parameter(0), Source::Parameter(1)],
            ),
            layer("relu", Op::Relu(Relu::PLAIN), &[Source::Layer(0)]),
            layer("pool", Op::AvgPool(pool), &[Source::Layer(1)]),
            layer("fc", Op::Conv2d(Conv2d::LINEAR), &[Source::Layer(2), Source::Parameter(2)]),
        ],
        output: Source::Layer(3),
    };
    let values = network.parameters.iter().map(|p| {
        let data = (0..p.shape.len()).map(|i| i as f32 - 0.25).collect();
        Tensor::new(p.shape, data)
    });
    Model {
        values: values.collect(),
        preprocessing: Preprocessing { mean: vec![0.5], std: vec![0.25] },
        labels: ["cat", "dog", "Übung"].map(String::from).to_vec(),
        onnx_skeleton: b"not really ONNX".to_vec(),
        network,
    }
}

fn package() -> Package {
    Package {
        model: model(),
        // A fixed version, so that the bytes do not change with every release.
        provenance: Provenance {
            adamant_version: "0.1.0".into(),
            recipe: "epochs = 2".into(),
            ..Provenance::imported(Path::new("models/tiny.onnx"), b"its bytes")
        },
        report: Some(report()),
        training: Some(TrainingState {
            epochs_done: 1,
            total_epochs: 2,
            step: 70,
            seed: 3,
            best: Some(0.5),
            tensors: vec![("momentum/conv.bias".into(), vec![1.0, -2.0]), ("epsilon".into(), Vec::new())],
            settings: "epochs = 2".into(),
        }),
        precision: Precision::F32,
    }
}

fn report() -> EvaluationReport {
    EvaluationReport {
        schema: EvaluationReport::SCHEMA,
        model: "tiny.onnx".into(),
        data: "mnist".into(),
        split: "test".into(),
        images: 10,
        seed: 0,
        device: "cpu".into(),
        clean: CleanResult::new(9, 10),
        attacks: vec![AttackResult {
            name: "pgd".into(),
            norm: "linf".into(),
            eps: 0.3,
            step: 0.1,
            steps: 20,
            restarts: 1,
            robust_correct: 4,
            robust_accuracy: 0.4,
            seconds: 1.5,
        }],
        worst_case: WorstCase::new(4, 10),
        warnings: vec![Warning { flag: "zero-gradient".into(), message: "on 1 image".into() }],
    }
}

fn bytes() -> Vec<u8> {
    package().to_bytes("tiny.adamant").unwrap()
}

fn parse(file: &[u8]) -> Result<Package> {
    Package::from_bytes(file, "tiny.adamant")
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.adamant");
    let mut package = package();
    for _ in 0..2 {
        package.write(&path).unwrap();
        assert_eq!(Package::read(&path).unwrap(), package);
        // Once more over the old file, without the optional parts.
        package.report = None;
        package.training = None;
        package.model.labels.clear();
        package.model.onnx_skeleton.clear();
    }
}

#[test]
fn equal_packages_are_equal_bytes() {
    assert_eq!(bytes(), bytes());
    assert_eq!(parse(&bytes()).unwrap().to_bytes("").unwrap(), bytes());
}

#[test]
fn blobs_are_aligned_for_mapping_and_binding() {
    let file = bytes();
    let header = Header::parse(&file).unwrap();
    assert_eq!(header.blobs.offset % 4096, 0);
    let Metadata::V1(metadata) = postcard::from_bytes(header.metadata.of(&file)).unwrap();
    assert!(metadata.blobs().all(|(_, blob)| blob.offset % 256 == 0));
}

#[test]
fn a_missing_file_is_named() {
    let message = Package::read("no/such.adamant").unwrap_err().to_string();
    assert!(message.starts_with("no/such.adamant: "), "{message}");
}

#[test]
fn what_contradicts_itself_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.adamant");
    package().write(&path).unwrap();
    let mut wrong = package();
    wrong.model.values.pop();
    assert!(matches!(wrong.write(&path), Err(Error::Package { .. })));
    assert_eq!(Package::read(&path).unwrap(), package());
}

#[test]
fn small_weights_are_read_back_and_say_what_they_are() {
    let header = |bytes: &[u8]| Header::parse(bytes).unwrap();
    assert_eq!(header(&bytes()).minor, 0, "an older Adamant reads f32");
    for precision in [Precision::F16, Precision::Int8] {
        let small = Package { precision, ..package() }.to_bytes("").unwrap();
        assert_eq!(header(&small).minor, 1);
        let read = parse(&small).unwrap();
        assert_eq!(read.precision, precision);
        assert_eq!(read.model.values[1], package().model.values[1], "biases stay what they are");
        assert_eq!(read.to_bytes("").unwrap(), small, "what is read is written again as it was");
        let weights = |p: &Package| p.model.values[2].data.clone();
        for (a, b) in weights(&read).iter().zip(weights(&package())) {
            assert!((a - b).abs() <= 0.02, "{a} and {b}");
        }
    }
    let mut broken = Package { precision: Precision::Int8, ..package() };
    broken.model.values[2].data[0] = f32::NAN;
    let message = broken.to_bytes("x").unwrap_err().to_string();
    assert!(message.contains("fc.weight") && message.contains("NaN"), "{message}");
}

/// Writing a checkpoint takes no memory beside its tensors.
#[cfg(target_endian = "little")]
#[test]
fn what_is_stored_as_it_is_in_memory_is_not_copied() {
    use std::borrow::Cow;

    let package = package();
    let parts = writer::encode(&package, None).unwrap();
    let blobs = parts[1..].iter();
    let copied: usize = blobs.filter(|part| matches!(part, Cow::Owned(_))).map(|part| part.len()).sum();
    assert_eq!(copied, 0);
}

#[cfg(feature = "sign")]
#[test]
fn a_signature_covers_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signed.adamant");
    let key = SigningKey::generate().unwrap();
    package().write_signed(&path, &key).unwrap();
    assert_eq!(Package::read(&path).unwrap(), package());
    assert_eq!(verify(&path).unwrap().signature, Signature::Valid(key.public_key()));
    let signed = std::fs::read(&path).unwrap();
    for position in (0..signed.len()).rev().take(300).chain((0..signed.len()).step_by(61)) {
        let mut changed = signed.clone();
        changed[position] ^= 1;
        assert!(parse(&changed).is_err(), "byte {position}");
    }
    // Another package, put under the same signature with every hash made right.
    let other = Package { training: None, ..package() };
    let parts = writer::encode(&other, Some(&SigningKey::generate().unwrap())).unwrap();
    let forged = [&parts[..parts.len() - 1].concat(), &signed[signed.len() - signature::LEN..]].concat();
    let message = parse(&forged).unwrap_err().to_string();
    assert!(message.contains("signature invalid") && message.contains(&key.public_key()), "{message}");
    assert!(parse(&signed[..signed.len() - 1]).unwrap_err().to_string().contains("truncated"));
    assert!(parse(&[&signed[..], &[0]].concat()).is_err());
}

/// Packages outlive the program that wrote them.
///
/// When this fails, the bytes of something in the metadata have changed, and files in the field would
/// no longer be read. Give [`Metadata`] a new variant that holds the new form, and keep the old one.
#[test]
fn format_1_0_is_what_it_was() {
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
    assert_eq!(hash(&bytes()), "9b5d8d31ddab1a57");

    let window = Window { kernel: [1, 2], stride: [3, 4], pads: [5, 6, 7, 8], dilation: [9, 10], ceil: true };
    let layers = [
        Op::Normalize(Normalize),
        Op::Conv2d(Conv2d { stride: [1, 2], pads: [3, 4, 5, 6], dilation: [7, 8], groups: 9 }),
        Op::BatchNorm(BatchNorm { epsilon: 1e-5, momentum: 0.1 }),
        Op::Relu(Relu { max: 6.0 }),
        Op::Add(Add),
        Op::MaxPool(MaxPool { window }),
        Op::AvgPool(AvgPool { window, count_include_pad: true }),
        Op::Pad(Pad { before: [1, 2, 3], after: [4, 5, 6], interior: [7, 8, 9], value: 0.5 }),
        Op::Slice(Slice { start: [1, 2, 3], step: [4, 5, 6], len: [7, 8, 9] }),
        Op::Flatten(Flatten),
        Op::ChannelAffine(ChannelAffine),
    ];
    assert_eq!(hash(&postcard::to_stdvec(&layers).unwrap()), "92b441a3043b7b48");
}
