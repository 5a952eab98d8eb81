//! The binary as its users run it: exit codes, what goes to standard output, what a run leaves, and
//! mistakes.

mod training;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent").to_owned()
}

fn model() -> String {
    root().join("examples/data/digits_resnet8.onnx").display().to_string()
}

fn digits() -> String {
    format!("mnist:{}", root().join("examples/data/digits").display())
}

fn adamant(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adamant"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// Runs a command that must end with `code`, and returns its standard output and error.
fn run(code: i32, arguments: &[&str]) -> (String, String) {
    let output = adamant(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "adamant {arguments:?}\n{out}\n{err}");
    (out, err)
}

/// Runs a command that must fail with exit code 2 and one message that holds `parts`.
fn refused(arguments: &[&str], parts: &[&str]) {
    let (out, err) = run(2, arguments);
    assert!(out.is_empty(), "data on standard output of a failed command: {out}");
    for part in parts {
        assert!(err.contains(part), "no '{part}' in: {err}");
    }
    assert!(!err.contains("panicked"), "{err}");
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// A short fine-tuning of the bundled model; `more` is added to the command line.
fn finetune<'a>(out: &'a str, data: &'a str, model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "finetune",
        model,
        "--mean",
        "none",
        "--data",
        data,
        "--limit",
        "96",
        "--batch",
        "32",
        "--device",
        "cpu",
        "--set",
        "attack.eps=0.1",
        "--set",
        "attack.steps=2",
        "--validate",
        "train:32",
        "--out",
        out,
    ];
    arguments.extend(more);
    arguments
}

#[test]
fn evaluate_prints_the_contract_as_json_and_nothing_else() {
    let (model, data) = (model(), digits());
    let evaluate = |batch: &str| {
        let (out, _) = run(
            0,
            &[
                "evaluate",
                &model,
                "--mean",
                "none",
                "--data",
                &data,
                "--limit",
                "60",
                "--attack",
                "pgd:eps=0.1,steps=3,restarts=2",
                "--attack",
                "fgsm:eps=0.1",
                "--device",
                "cpu",
                "--batch",
                batch,
                "--json",
                "-",
            ],
        );
        serde_json::from_str::<Value>(&out).expect("standard output is one JSON value")
    };
    let report = evaluate("60");
    assert_eq!(report["schema"], 1);
    assert_eq!(report["data"], "mnist");
    assert_eq!(
        (&report["split"], &report["images"], &report["seed"]),
        (&"test".into(), &60.into(), &0.into())
    );
    let correct = report["clean"]["correct"].as_u64().unwrap();
    assert!(correct > 50, "the bundled model reads digits: {correct} of 60");
    assert_eq!(report["clean"]["accuracy"].as_f64().unwrap(), correct as f64 / 60.0);
    let pgd = &report["attacks"][0];
    assert_eq!(
        (&pgd["name"], &pgd["norm"], &pgd["steps"], &pgd["restarts"]),
        (&"pgd".into(), &"linf".into(), &3.into(), &2.into())
    );
    for key in ["eps", "step", "robust_correct", "robust_accuracy", "seconds"] {
        assert!(pgd[key].is_number(), "{key} is missing: {pgd}");
    }
    assert!(report["worst_case"]["robust_correct"].as_u64() <= pgd["robust_correct"].as_u64());
    assert!(report["warnings"].is_array());

    // The last batch of this one is partial: results do not depend on the batch size.
    let other = evaluate("7");
    assert_eq!(report["clean"], other["clean"]);
    for i in 0..2 {
        assert_eq!(report["attacks"][i]["robust_correct"], other["attacks"][i]["robust_correct"]);
    }
}

#[test]
fn a_target_that_is_not_met_is_exit_code_1() {
    let (model, data) = (model(), digits());
    let base = [
        "evaluate",
        &model,
        "--mean",
        "none",
        "--data",
        &data,
        "--limit",
        "40",
        "--attack",
        "fgsm:eps=0.01",
        "--device",
        "cpu",
    ];
    run(0, &[&base[..], &["--require-accuracy", "0.5"]].concat());
    run(1, &[&base[..], &["--require-accuracy", "1.0", "--require-robust", "1.0"]].concat());
}

#[test]
fn mistakes_are_named_with_their_remedy() {
    let (model, data) = (model(), digits());
    let dir = folder();
    let garbage = path(&dir, "garbage.onnx");
    std::fs::write(&garbage, b"this is not a model").unwrap();
    let truncated = path(&dir, "truncated.onnx");
    let bytes = std::fs::read(&model).unwrap();
    std::fs::write(&truncated, &bytes[..bytes.len() / 2]).unwrap();

    refused(&["evaluate", "missing.onnx", "--data", &data], &["missing.onnx"]);
    refused(&["evaluate", &garbage, "--data", &data], &["garbage.onnx"]);
    refused(&["evaluate", &truncated, "--data", &data], &["truncated.onnx"]);
    refused(&["evaluate", &model, "--data", "mnist:nowhere"], &["nowhere"]);
    refused(&["evaluate", &model, "--data", &data, "--attack", "pdg"], &["pdg", "pgd"]);
    refused(&["evaluate", &model, "--data", &data, "--attack", "pgd:eps=8"], &["8/255"]);
    refused(&["evaluate", &model, "--data", &data, "--device", "no such gpu"], &["no such gpu", "devices"]);
    refused(&["evaluate", &model, "--data", &data, "--frobnicate"], &["--frobnicate"]);
    refused(
        &["inspect", &root().join("tests/fixtures/bad/unsupported.onnx").display().to_string()],
        &["Einsum", "Resize"],
    );
    let run_dir = path(&dir, "run");
    refused(&["finetune", &model, "--data", &data, "--out", &run_dir, "--recipe", "atf"], &["atf", "aft"]);
    refused(
        &["finetune", &model, "--data", &data, "--out", &run_dir, "--set", "attack.stepz=3"],
        &["attack.stepz"],
    );
    refused(&["finetune", &model, "--data", &data, "--out", &run_dir, "--resume"], &["resume"]);
    refused(&["recipes", "madri"], &["madry"]);
    refused(&["verify", &garbage], &["garbage.onnx"]);
    assert!(!Path::new(&run_dir).join("checkpoint.adamant").exists());
}

/// Writes an IDX data set of `count` blank digits with one label.
fn blank_digits(folder: &Path, count: u32, label: u8, labels: u32) {
    let header = |magic: u32, dims: &[u32]| {
        let mut bytes = magic.to_be_bytes().to_vec();
        dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes
    };
    for (images, names) in [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    ] {
        let mut bytes = header(2051, &[count, 28, 28]);
        bytes.extend(vec![0u8; count as usize * 784]);
        std::fs::write(folder.join(images), bytes).unwrap();
        let mut bytes = header(2049, &[labels]);
        bytes.extend(vec![label; labels as usize]);
        std::fs::write(folder.join(names), bytes).unwrap();
    }
}

#[test]
fn data_that_does_not_fit_is_refused() {
    let model = model();
    let dir = folder();
    let data = format!("mnist:{}", dir.path().display());
    let evaluate = ["evaluate", &model, "--mean", "none", "--data", &data, "--device", "cpu"];
    blank_digits(dir.path(), 3, 77, 3);
    refused(&evaluate, &["77"]);
    blank_digits(dir.path(), 3, 1, 2);
    refused(&evaluate, &["idx"]);
    std::fs::write(dir.path().join("t10k-images-idx3-ubyte"), [0, 0, 8, 3, 255, 255, 255, 255]).unwrap();
    refused(&evaluate, &["t10k-images"]);
    // Ten digits of 28 x 28 are not what this model of another shape takes.
    let other = root().join("tests/golden/tiny_resnet.onnx").display().to_string();
    blank_digits(dir.path(), 3, 1, 3);
    refused(&["evaluate", &other, "--mean", "none", "--data", &data, "--device", "cpu"], &["28"]);
}

#[test]
fn the_gpu_executor_serves_the_command_line() {
    let (model, data) = (model(), digits());
    let measure = |device: &str| {
        let (out, _) = run(
            0,
            &[
                "evaluate",
                &model,
                "--mean",
                "none",
                "--data",
                &data,
                "--limit",
                "48",
                "--attack",
                "pgd:eps=0.1,steps=2",
                "--device",
                device,
                "--json",
                "-",
            ],
        );
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let (cpu, gpu) = (measure("cpu"), measure("gpu"));
    assert_eq!(cpu["clean"], gpu["clean"]);
    let robust = |report: &Value| report["attacks"][0]["robust_correct"].as_i64().unwrap();
    assert!((robust(&cpu) - robust(&gpu)).abs() <= 1, "cpu {} and gpu {}", robust(&cpu), robust(&gpu));
}

#[test]
fn bench_times_and_prints_json_alone() {
    let arguments = ["bench", "--arch", "resnet8", "--batch", "2", "--runs", "1", "--device", "cpu"];
    let (text, _) = run(0, &[&arguments[..], &["--layers"]].concat());
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let (json, _) = run(0, &[&arguments[..], &["--layers", "--json", "-"]].concat());
    let report: Value = serde_json::from_str(&json).expect("standard output is JSON and nothing else");
    let names: Vec<_> = report["results"].as_array().expect("a list").iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["forward", "pgd_step", "train_step", "pgd10_adversarial_step"]);
    for result in report["results"].as_array().expect("a list") {
        assert!(result["median_ms"].as_f64().expect("a number") > 0.0, "{result}");
    }
    // The profile accounts for all of a PGD step.
    let shares = report["ops"].as_array().expect("a list").iter().filter(|op| op["workload"] == "pgd_step");
    let sum: f64 = shares.map(|op| op["share"].as_f64().expect("a number")).sum();
    assert!((sum - 1.0).abs() < 1e-6, "the shares add up to {sum}");
    // What is said of the times follows from them.
    let median = |name: &str| {
        let results = report["results"].as_array().expect("a list");
        let found = results.iter().find(|r| r["name"] == name).expect("it was timed");
        found["median_ms"].as_f64().expect("a number")
    };
    let parts = 10.0 * median("pgd_step") + median("train_step");
    let overhead = report["overhead"].as_f64().expect("a number");
    assert!((overhead - (median("pgd10_adversarial_step") / parts - 1.0)).abs() < 1e-6, "{overhead}");
    let [device, first] =
        ["device_s", "first_train_step_s"].map(|name| report["startup"][name].as_f64().expect("a number"));
    assert!(0.0 < device && device < first, "device open at {device} s, first step done at {first} s");
}

#[test]
fn bench_times_what_it_is_asked_for_at_three_batches() {
    let arguments =
        ["bench", "--arch", "resnet8", "--batch", "2", "--runs", "2", "--device", "cpu", "--scaling"];
    let chosen = ["--workload", "train_step", "--workload", "forward"];
    let (text, _) = run(0, &[&arguments[..], &chosen].concat());
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let (json, _) = run(0, &[&arguments[..], &chosen, &["--json", "-"]].concat());
    let report: Value = serde_json::from_str(&json).expect("standard output is JSON and nothing else");
    let names: Vec<_> = report["results"].as_array().expect("a list").iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["forward", "train_step"]);
    assert!(report["overhead"].is_null(), "of steps that were not timed: {}", report["overhead"]);
    let scaling = report["scaling"].as_array().expect("a list");
    let batches: Vec<_> = scaling.iter().map(|s| &s["batch"]).collect();
    assert_eq!(batches, [2, 8, 32]);
    assert_eq!(scaling[0]["relative"], 1.0);
    let wrong = ["bench", "--workload", "backward"];
    refused(&wrong, &["backward", "pgd_step"]);
    refused(&["bench", "--scaling", "--batch", &usize::MAX.to_string()], &["--batch", "--scaling"]);
}

#[test]
fn small_packages_keep_what_they_claim_and_who_made_them() {
    let folder = folder();
    let (model, digits) = (model(), digits());
    let [full, small, key, public] =
        ["full.adamant", "small.adamant", "maker.key", "maker.pub"].map(|name| path(&folder, name));
    run(0, &["package", &model, "--out", &full, "--quiet"]);
    run(0, &["keygen", "--out", &key]);
    refused(&["keygen", "--out", &key], &["maker.key", "exists"]);
    let images = ["--data", &digits, "--limit", "100", "--eps", "0.1", "--device", "cpu"];
    let arguments = ["package", &model, "--out", &small, "--precision", "int8", "--sign", &key];
    let (text, _) = run(0, &[&arguments[..], &images].concat());
    assert!(text.contains("packing: clean"), "{text}");
    let size = |path: &str| std::fs::metadata(path).expect("it was written").len();
    assert!(size(&small) * 5 < size(&full) * 2, "{} of {} bytes", size(&small), size(&full));

    let (claims, _) = run(0, &["verify", &small, "--key", &public]);
    let claims = claims.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["(95% confidence:", "of 100 images of mnist test", "packed by: Adamant 0."] {
        assert!(claims.contains(part), "{part}: {claims}");
    }
    let (json, _) = run(0, &["verify", &small, "--key", &public, "--json", "-"]);
    let found: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(found["precision"], "int8");
    assert_eq!(found["signature"]["state"], "valid");
    assert_eq!(found["report"]["images"], 100);
    // A name without its maker's folders.
    assert_eq!(found["report"]["model"].as_str(), Path::new(&model).file_name().and_then(|n| n.to_str()));
    let other = "0".repeat(64);
    let (_, err) = run(2, &["verify", &small, "--key", &other]);
    assert!(err.contains("not by 0000"), "{err}");
    let (_, err) = run(2, &["verify", &full, "--key", &public]);
    assert!(err.contains("not signed"), "{err}");
    refused(&["verify", &full, "--key", &key], &["maker.key", "not a public key"]);
    refused(&["package", &model, "--out", &full, "--sign", &public], &["maker.pub", "not a secret key"]);
    // Before anything is measured.
    let unsigned = ["package", &model, "--out", &full, "--data", &digits, "--sign", "no.key"];
    let (text, err) = run(2, &unsigned);
    assert!(
        text.is_empty() && err.contains("--sign no.key") && err.contains("adamant keygen"),
        "{text}{err}"
    );
    assert!(!err.contains("device:"), "{err}");

    let rerun = ["verify", &small, "--rerun", "--data", &digits, "--device", "cpu"];
    let (text, _) = run(0, &rerun);
    assert!(text.contains("measured again"), "{text}");
    refused(&["verify", &full, "--rerun", "--data", &digits], &["claims nothing", "--data"]);

    // Both exported files are whole, and classify alike.
    let onnx = path(&folder, "small.onnx");
    run(0, &["export", &small, "--out", &onnx]);
    let measure = |model: &str| -> Value {
        let arguments = ["evaluate", model, "--data", &digits, "--limit", "100", "--attack", "fgsm:eps=0.1"];
        let (json, _) = run(0, &[&arguments[..], &["--device", "cpu", "--json", "-", "--quiet"]].concat());
        serde_json::from_str(&json).expect("JSON")
    };
    let (packed, exported, before) = (measure(&small), measure(&onnx), measure(&full));
    assert_eq!(packed["clean"], exported["clean"]);
    assert_eq!(packed["clean"], found["report"]["clean"]);
    let correct = |v: &Value| v["clean"]["correct"].as_i64().expect("a count");
    assert!((correct(&packed) - correct(&before)).abs() <= 1);
}

#[test]
fn shells_and_man_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (script, _) = run(0, &["completions", shell]);
        assert!(script.contains("finetune") && script.contains("memory-limit"), "{shell}");
    }
    let folder = folder();
    let out = path(&folder, "man");
    run(0, &["man", "--out", &out]);
    let page = std::fs::read_to_string(Path::new(&out).join("adamant-finetune.1")).expect("it was written");
    assert!(page.contains("recipe"), "{page}");
}
