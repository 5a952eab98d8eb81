//! ONNX files in every export style: read, run on both executors, written back; and files that must
//! be refused with a message that helps.

use std::path::{Path, PathBuf};

use adamant::{
    Device, Error, Images, Model, Network, Preprocessing, Session, import, import_bytes, reference_logits,
    to_onnx,
};
use adamant_tests::compare::{Failures, Tolerance, compare};
use adamant_tests::golden::Golden;
use adamant_tests::gpu::gpu;
use adamant_tests::shared::{shared, skip};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Every fixture by name, with images and the logits that ONNX Runtime gave for them.
fn cases() -> Vec<(String, Vec<f32>, Vec<f32>)> {
    let golden = Golden::open("../fixtures/expected.safetensors");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(fixtures()).expect("the fixtures are there") {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_none_or(|e| e != "onnx") {
            continue;
        }
        let stem = path.file_stem().expect("it has an extension").to_string_lossy().into_owned();
        // Files in training mode are read as inference.
        let inference = format!("{stem}.eval_logits");
        let logits = if golden.has(&inference) { inference } else { format!("{stem}.logits") };
        cases.push((stem.clone(), golden.real(&format!("{stem}.x")).1, golden.real(&logits).1));
    }
    assert!(cases.len() >= 100, "only {} fixtures", cases.len());
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

/// Logits of `images`, which may have any values: they already are what the network takes.
fn logits(model: &Model, device: Device, images: &[f32]) -> Result<Vec<f32>, String> {
    // The fixtures' inputs are normalised images; the session takes [0, 1].
    let (low, high) = (-8.0, 8.0);
    let mut model = model.clone();
    let channels = model.network.input[0];
    model.preprocessing =
        Preprocessing { mean: vec![-low / (high - low); channels], std: vec![1.0 / (high - low); channels] };
    let images: Vec<f32> = images.iter().map(|x| (x - low) / (high - low)).collect();
    let count = images.len() / model.network.image_shape(1).len();
    let mut session = Session::new(device, &model, count).map_err(|e| e.to_string())?;
    session.load(&images, &vec![0; count], &vec![0; count]).map_err(|e| e.to_string())?;
    session.logits(count, Images::Clean).map_err(|e| e.to_string())
}

#[test]
fn every_export_style_gives_the_logits_of_onnx_runtime() {
    let mut failures = Failures::new();
    for (name, x, expected) in cases() {
        let result = import(&fixtures().join(format!("{name}.onnx"))).map_err(|e| e.to_string());
        let result = result.and_then(|model| {
            compare(&logits(&model, Device::cpu(), &x)?, &expected, Tolerance::Loose)
                .map_err(|e| format!("cpu: {e}"))?;
            compare(&logits(&model, gpu(), &x)?, &expected, Tolerance::Loose).map_err(|e| format!("gpu: {e}"))
        });
        failures.check(&name, result);
    }
    failures.report();
}

#[test]
fn tract_agrees() {
    let mut failures = Failures::new();
    for (name, x, expected) in cases() {
        let path = fixtures().join(format!("{name}.onnx"));
        let count = x.len() / import(&path).map_or(1, |m| m.network.image_shape(1).len());
        let found = reference_logits(&path, &x, count).map_err(|e| e.to_string());
        failures.check(&name, found.and_then(|found| compare(&found, &expected, Tolerance::Loose)));
    }
    failures.report();
}

#[test]
fn an_export_reads_back_as_it_was_written() {
    let mut failures = Failures::new();
    for (name, x, expected) in cases() {
        let result = (|| {
            let path = fixtures().join(format!("{name}.onnx"));
            let model = import(&path).map_err(|e| e.to_string())?;
            let bytes = to_onnx(&model).map_err(|e| e.to_string())?;
            let again = import_bytes(&bytes, &path).map_err(|e| e.to_string())?;
            compare(&logits(&again, Device::cpu(), &x)?, &expected, Tolerance::Loose)?;
            let names = |n: &Network| n.parameters.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
            if names(&again.network) == names(&model.network) {
                Ok(())
            } else {
                Err("names changed".to_owned())
            }
        })();
        failures.check(&name, result);
    }
    failures.report();
}

#[test]
fn changed_weights_are_exported() {
    let path = fixtures().join("legacy17_bn.onnx");
    let mut model = import(&path).unwrap();
    for (value, parameter) in model.values.iter_mut().zip(&model.network.parameters) {
        if parameter.role.trains() {
            value.data.iter_mut().enumerate().for_each(|(i, x)| *x += 0.01 * (i % 7) as f32);
        }
    }
    let again = import_bytes(&to_onnx(&model).unwrap(), &path).unwrap();
    assert_eq!(again.values, model.values);
    assert_ne!(again.values, import(&path).unwrap().values);
}

#[test]
fn every_unsupported_node_is_named() {
    let error = import(&fixtures().join("bad/unsupported.onnx")).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let message = error.to_string();
    for part in ["Resize", "stage1/upsample", "Einsum", "stage2/mix", "LayerNormalization", "stage3/norm"] {
        assert!(message.contains(part), "no '{part}' in: {message}");
    }
}

#[test]
fn damaged_files_are_errors_that_name_the_file() {
    let mut failures = Failures::new();
    let mut count = 0;
    for entry in std::fs::read_dir(fixtures().join("bad")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let result = match import(&path) {
            // Nodes out of order are sorted, not refused.
            Ok(_) if name == "unsorted.onnx" => Ok(()),
            Ok(_) => Err("was imported".to_owned()),
            Err(e) if e.to_string().contains(&name) => Ok(()),
            Err(e) => Err(format!("the message does not name the file: {e}")),
        };
        failures.check(&name, result);
        count += 1;
    }
    assert!(count >= 12, "only {count} damaged files");
    failures.report();
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = std::fs::read(fixtures().join("legacy17_bn.onnx")).unwrap();
    for len in (0..bytes.len()).step_by(97) {
        // A cut may leave a file that decodes but lacks nodes: it must not panic, and must not pass.
        assert!(import_bytes(&bytes[..len], Path::new("cut.onnx")).is_err(), "cut at {len} was imported");
    }
}

/// The models of `../shared/models` at the accuracy that their manifest states, on all test images.
#[test]
fn real_models_reach_their_accuracy() {
    let Some(shared) = shared() else {
        return skip("real_models_reach_their_accuracy", "../shared is not beside the project");
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let options = adamant::EvaluateOptions { attacks: &[], batch: 250, seed: 0, stop: &stop };
    let imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let cifar = ([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]);
    let models = [
        ("resnet20_cifar10_eval", imagenet, 9173, true),
        ("resnet20_cifar10_bn", imagenet, 9173, true),
        ("resnet20_cifar10_dynamo", imagenet, 9173, true),
        ("resnet20_cifar10_bn_train", imagenet, 9173, false),
        ("resnet56_cifar10_eval", imagenet, 9339, false),
        ("resnet56_cifar10_bn", imagenet, 9339, false),
        ("vnn21_resnet_4b", cifar, 7720, false),
        ("vnn21_resnet4b_eval", cifar, 7720, false),
    ];
    let open = |spec: &str, split| {
        adamant::Dataset::open(
            &format!("{spec}:{}", shared.join("data").display()),
            split,
            &adamant::OpenOptions::default(),
        )
    };
    let data = open("cifar10", adamant::Split::Test).expect("CIFAR-10 is in ../shared/data");
    let mut failures = Failures::new();
    for (name, (mean, std), expected, on_gpu) in models {
        let mut model = import(&shared.join(format!("models/{name}.onnx"))).expect(name);
        model.preprocessing = Preprocessing::new(&mean, &std, 3).unwrap();
        let devices = [Some(Device::cpu()), on_gpu.then(gpu)];
        for device in devices.into_iter().flatten() {
            let device_name = device.name();
            let mut session = Session::new(device, &model, 250).unwrap();
            let found = adamant::evaluate(&mut session, &data, &options, |_| {}).unwrap().clean_correct();
            // One image in 10,000 may sit on the fence between two classes.
            let ok = found.abs_diff(expected) <= 1;
            let result = if ok { Ok(()) } else { Err(format!("{found} of 10000 correct, not {expected}")) };
            failures.check(&format!("{name} on {device_name}"), result);
        }
    }
    let digits = open("mnist", adamant::Split::Test).expect("MNIST is in ../shared/data");
    let model = import(&shared.join("models/fast_mnist_pgd_madry_eval.onnx")).unwrap();
    let mut session = Session::new(Device::cpu(), &model, 250).unwrap();
    let found = adamant::evaluate(&mut session, &digits, &options, |_| {}).unwrap().clean_correct();
    let result =
        if found.abs_diff(9899) <= 1 { Ok(()) } else { Err(format!("{found} of 10000 correct, not 9899")) };
    failures.check("fast_mnist_pgd_madry_eval", result);
    failures.report();
}
