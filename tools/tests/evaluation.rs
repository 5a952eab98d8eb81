//! `evaluate` in parts, stopped and gone on with, and what its numbers are made into.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent").to_owned()
}

fn adamant(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
    command.args(arguments).stdin(Stdio::null()).output().expect("the binary starts")
}

/// Runs a command that must end with `code`, and returns its standard output and error.
fn run(code: i32, arguments: &[&str]) -> (String, String) {
    let output = adamant(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "adamant {arguments:?}\n{out}\n{err}");
    (out, err)
}

/// A folder, and names of files in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// `evaluate` on the bundled digits and model.
fn evaluate(more: &[&str]) -> Vec<String> {
    let model = root().join("examples/data/digits_resnet8.onnx").display().to_string();
    let data = format!("mnist:{}", root().join("examples/data/digits").display());
    let start = ["evaluate", &model, "--mean", "none", "--data", &data, "--device", "cpu"];
    start.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect("JSON")
}

/// Takes out what differs from run to run.
fn timeless(mut value: Value) -> Value {
    for attack in value["attacks"].as_array_mut().expect("a list") {
        attack["seconds"] = 0.into();
    }
    value["outcome"]["seconds"] = 0.into();
    // When a batch may stop early depends on the images that are in it.
    value["outcome"]["passes"] = 0.into();
    value["metrics"]["cost"] = 0.into();
    value["command"] = 0.into();
    value["settings"]["data_blake3"] = 0.into();
    value
}

const ATTACKS: [&str; 8] = [
    "--limit",
    "50",
    "--attack",
    "pgd:eps=0.1,steps=4",
    "--attack",
    "square:eps=0.1,queries=30",
    "--batch",
    "8",
];

#[test]
fn shards_merge_into_the_whole() {
    let dir = Folder::new();
    let whole = dir.path("whole.json");
    run(0, &words(&evaluate(&[&ATTACKS[..], &["--json", &whole]].concat())));
    let mut parts = Vec::new();
    for shard in ["3/3", "1/3", "2/3"] {
        let file = dir.path(&format!("part{}.json", &shard[..1]));
        run(0, &words(&evaluate(&[&ATTACKS[..], &["--shard", shard, "--json", &file]].concat())));
        parts.push(file);
    }
    let merged = dir.path("merged.json");
    let mut arguments = vec!["merge"];
    arguments.extend(parts.iter().map(String::as_str));
    let (text, _) = run(0, &[&arguments[..], &["--json", &merged]].concat());
    assert!(text.contains("50 images"), "{text}");
    let expected = timeless(json(&whole));
    assert_eq!(timeless(json(&merged)), expected);
    assert!(expected["worst_case"]["robust_correct"].as_u64() < expected["clean"]["correct"].as_u64());

    let (_, err) = run(2, &["merge", &parts[0], &parts[1]]);
    assert!(err.contains("from 16 to 33 is missing"), "{err}");
    let (_, err) = run(2, &["merge", &parts[0], &root().join("Cargo.toml").display().to_string()]);
    assert!(err.contains("Cargo.toml"), "{err}");
}

/// Kills a command with `signal` once `file` is there.
#[cfg(unix)]
fn end(arguments: &[&str], signal: &str, file: &str) -> Option<i32> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adamant"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let start = Instant::now();
    while !Path::new(file).exists() && start.elapsed() < Duration::from_secs(200) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success(), "the command ended before it could be stopped");
    child.wait().expect("it ends").code()
}

/// Stopped once its first batch is done.
#[cfg(unix)]
#[test]
fn a_killed_evaluation_goes_on() {
    let dir = Folder::new();
    let (straight, broken) = (dir.path("straight.json"), dir.path("broken.json"));
    let partial = format!("{broken}.partial");
    let attacks = [
        "--limit",
        "64",
        "--attack",
        "square:eps=0.05,queries=80",
        "--attack",
        "fgsm:eps=0.1",
        "--batch",
        "8",
    ];
    run(0, &words(&evaluate(&[&attacks[..], &["--json", &straight]].concat())));
    let arguments = evaluate(&[&attacks[..], &["--json", &broken]].concat());
    assert_eq!(end(&words(&arguments), "-KILL", &partial), None);
    // Not by accident, not with other settings.
    let (_, err) = run(2, &words(&arguments));
    assert!(err.contains("--resume"), "{err}");
    let other = [&words(&arguments)[..], &["--seed", "1", "--resume"]].concat();
    let (_, err) = run(2, &other);
    assert!(err.contains("seed"), "{err}");
    let (_, err) = run(0, &[&words(&arguments)[..], &["--resume"]].concat());
    assert!(err.contains("going on"), "{err}");
    assert_eq!(timeless(json(&broken)), timeless(json(&straight)));
    assert!(!Path::new(&partial).exists(), "the state is not needed any more");
}

#[test]
fn curves_fall_and_are_averaged() {
    let (out, _) = run(
        0,
        &words(&evaluate(&[
            "--limit",
            "40",
            "--attack",
            "pgd:steps=5",
            "--curve",
            "0.2,0,0.05,0.1",
            "--json",
            "-",
        ])),
    );
    let report: Value = serde_json::from_str(&out).expect("JSON alone");
    let curve = &report["metrics"]["curves"][0];
    let points = curve["points"].as_array().expect("points");
    let eps: Vec<f64> = points.iter().map(|p| p["eps"].as_f64().expect("a radius")).collect();
    assert!(eps.iter().zip([0.0, 0.05, 0.1, 0.2]).all(|(a, b)| (a - b).abs() < 1e-6), "{eps:?}");
    let robust: Vec<f64> = points.iter().map(|p| p["robust_accuracy"].as_f64().expect("a part")).collect();
    assert!(robust.is_sorted_by(|a, b| a >= b) && robust[0] > robust[3], "{robust:?}");
    let area: f64 = (0..3).map(|i| (eps[i + 1] - eps[i]) * (robust[i] + robust[i + 1]) / 2.0).sum();
    assert!((curve["expected"].as_f64().expect("a mean") - area / eps[3]).abs() < 1e-12);
    let sum = report["clean"]["accuracy"].as_f64().unwrap()
        + report["worst_case"]["robust_accuracy"].as_f64().unwrap();
    assert_eq!(report["metrics"]["sum"].as_f64(), Some(100.0 * sum));
    assert!(report["metrics"]["ardist"].is_null(), "there is no curve for digits");

    let (text, _) = run(0, &words(&evaluate(&["--limit", "8", "--attack", "fgsm", "--curve", "0.05,0.1"])));
    assert!(
        text.contains("expected from 0 to 0.1") && text.lines().all(|l| l.chars().count() <= 80),
        "{text}"
    );
    let (_, err) = run(2, &words(&evaluate(&["--attack", "fgsm:eps=0.1", "--curve", "0.05,0.2"])));
    assert!(err.contains("leave eps out"), "{err}");
}

/// What `attack --save` wrote is the images of its result, to the last bit.
#[test]
fn saved_images_are_evaluated_again() {
    let dir = Folder::new();
    let (saved, first, second) = (dir.path("saved"), dir.path("first.json"), dir.path("second.json"));
    let mut arguments = evaluate(&["--limit", "60", "--attack", "pgd:eps=0.04,steps=5"]);
    arguments[0] = "attack".into();
    run(0, &[&words(&arguments)[..], &["--save", &saved, "--json", &first]].concat());
    let model = root().join("examples/data/digits_resnet8.onnx").display().to_string();
    let again = |data: &str, more: &[&str]| {
        let start = ["evaluate", &model, "--mean", "none", "--device", "cpu", "--data", data];
        run(0, &[&start[..], &["--attack", "fgsm:eps=0.001", "--json", &second], more].concat())
    };
    let (_, err) = again(&format!("saved:{saved}"), &[]);
    assert!(err.contains("after pgd"), "{err}");
    let (attacked, found) = (json(&first), json(&second));
    let robust = &attacked["attacks"][0]["robust_correct"];
    assert_eq!(&found["clean"]["correct"], robust);
    assert_eq!(found["outcome"]["clean"], attacked["outcome"]["robust"][0]);
    assert!((1..60).contains(&robust.as_u64().unwrap()), "some fall and some withstand: {robust}");
    // A shard, and a folder that is recognised for what it is.
    std::fs::remove_file(&second).unwrap();
    again(&saved, &["--limit", "20"]);
    let bits = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(bits(&json(&second)["outcome"]["clean"]), bits(&attacked["outcome"]["robust"][0])[..20]);
    // Not a level of 256: an 8-bit copy would be other images.
    let images = std::fs::read(Path::new(&saved).join("images.f32")).unwrap();
    let values = images.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    assert!(values.into_iter().any(|x| (x * 255.0 - (x * 255.0).round()).abs() > 0.01));

    let data = format!("saved:{saved}");
    let corrupt = ["evaluate", &model, "--mean", "none", "--data", &data, "--suite", "corruptions"];
    let (_, err) = run(2, &corrupt);
    assert!(err.contains("256 levels"), "{err}");
    let mut broken = images;
    broken[..4].copy_from_slice(&2.0f32.to_le_bytes());
    std::fs::write(Path::new(&saved).join("images.f32"), broken).unwrap();
    let (_, err) = run(2, &["evaluate", &model, "--mean", "none", "--data", &data]);
    assert!(err.contains("[0, 1]") && err.contains("saved"), "{err}");
    let (_, err) = run(2, &["evaluate", &model, "--data", "saved:nowhere"]);
    assert!(err.contains("nowhere"), "{err}");
}

/// Surrogates are named above what was made against them, and have their own normalisation.
#[test]
fn surrogates_are_told_apart() {
    let dir = Folder::new();
    let file = dir.path("result.json");
    let model = root().join("examples/data/digits_resnet8.onnx").display().to_string();
    let attacked = ["--limit", "200", "--attack", "pgd:eps=0.1,steps=4", "--surrogate", &model];
    let measure = |more: &[&str]| {
        let (text, err) = run(0, &words(&evaluate(&[&attacked[..], more, &["--json", &file]].concat())));
        let found = json(&file);
        std::fs::remove_file(&file).unwrap();
        (text, err, found)
    };
    let (text, _, found) = measure(&[]);
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        one_line.contains("digits_resnet8.onnx, which gets 100.0% of these right: transfer-pgd"),
        "{text}"
    );
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    // The same model by another name: what fools the one fools the other.
    assert_eq!(found["surrogates"][0]["accuracy"], 1.0);
    assert_eq!(found["attacks"][0]["robust_correct"], found["attacks"][1]["robust_correct"]);
    assert!(found["attacks"][0]["robust_correct"].as_u64() < found["clean"]["correct"].as_u64());

    let (_, err, found) = measure(&["--surrogate-mean", "9", "--surrogate-std", "0.1"]);
    assert!(err.contains("surrogate 1 gets") && err.contains("[surrogate-near-chance]"), "{err}");
    assert!(found["surrogates"][0]["accuracy"].as_f64().unwrap() < 0.3);
    assert!(found["attacks"][1]["robust_correct"].as_u64() > found["attacks"][0]["robust_correct"].as_u64());
    let (_, err) = run(2, &words(&evaluate(&["--attack", "fgsm", "--surrogate-mean", "none"])));
    assert!(err.contains("--surrogate <MODEL>"), "{err}");
}

/// Where a project lies is not for a table to fail at.
#[test]
fn a_long_path_does_not_make_lines_too_long() {
    let dir = Folder::new();
    let rest = 70usize.saturating_sub(dir.path("").chars().count()).max(1);
    let model = dir.path(&format!("{}.onnx", "m".repeat(rest)));
    std::fs::copy(root().join("examples/data/digits_resnet8.onnx"), &model).unwrap();
    let mut evaluation = evaluate(&["--limit", "2", "--attack", "fgsm:eps=0.1"]);
    evaluation[1].clone_from(&model);
    let times = ["bench", &model, "--batch", "1", "--runs", "1", "--workload", "forward", "--device", "cpu"];
    for arguments in [&words(&evaluation)[..], &times] {
        let (text, _) = run(0, arguments);
        assert!(text.contains(&model) && text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }
}

/// The suites are those of the authors' code, in its order and with its restarts.
#[test]
fn autoattack_plus_is_six_attacks() {
    let dir = Folder::new();
    let file = dir.path("plus.json");
    run(
        0,
        &words(&evaluate(&["--limit", "6", "--suite", "autoattack-plus", "--eps", "0.4", "--json", &file])),
    );
    let found = json(&file);
    let attacks: Vec<(&str, u64, u64)> = found["attacks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["name"].as_str().unwrap(), a["steps"].as_u64().unwrap(), a["restarts"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("apgd-ce", 100, 5),
        ("apgd-dlr", 100, 5),
        ("fab", 100, 5),
        ("square", 5000, 1),
        ("apgd-t", 100, 1),
        ("fab-t", 100, 1),
    ];
    assert_eq!(attacks, expected);
    assert_eq!(found["order"], "in-turn");
    // What the first attack cost is counted, and nothing is spent on images that fell.
    let cost = found["metrics"]["cost"].as_array().unwrap();
    assert!(cost[0]["gradients"].as_f64().unwrap() >= 23.0, "{cost:?}");
    if found["attacks"][0]["robust_correct"] == 0 {
        assert!(cost[1..].iter().all(|c| c["gradients"] == 0.0), "{cost:?}");
    }
}

/// Corruptions that are measured are not measured again.
#[cfg(unix)]
#[test]
fn corruptions_go_on_where_they_stopped() {
    let dir = Folder::new();
    let (straight, broken) = (dir.path("straight.json"), dir.path("broken.json"));
    let partial = format!("{broken}.partial");
    let suite = ["--limit", "24", "--suite", "corruptions"];
    run(0, &words(&evaluate(&[&suite[..], &["--json", &straight]].concat())));
    let arguments = evaluate(&[&suite[..], &["--json", &broken]].concat());
    assert_eq!(end(&words(&arguments), "-KILL", &partial), None);
    let mut state = json(&partial);
    let expected = timeless(json(&straight));
    let all = expected["corruptions"]["results"].as_array().unwrap().clone();
    assert_eq!(all.len(), 19);
    // As if three had been measured, the second with a count that no measurement finds twice.
    let mut kept = all[..3].to_vec();
    kept[1]["correct"] = serde_json::json!([24, 0, 24, 0, 24]);
    state["corruptions"] = kept.clone().into();
    std::fs::write(&partial, state.to_string()).unwrap();
    run(0, &[&words(&arguments)[..], &["--resume"]].concat());
    let found = timeless(json(&broken));
    assert_eq!(found["corruptions"]["results"][1]["correct"], kept[1]["correct"]);
    assert_eq!(found["corruptions"]["results"][1]["accuracy"][1], 0.0);
    for i in (0..19).filter(|&i| i != 1) {
        assert_eq!(found["corruptions"]["results"][i], expected["corruptions"]["results"][i], "{i}");
    }
    assert!(!Path::new(&partial).exists(), "the state is not needed any more");
    // A state of other corruptions, or with more images than there are.
    for (key, wrong) in
        [("name", serde_json::json!("rain")), ("correct", serde_json::json!([25, 0, 0, 0, 0]))]
    {
        let mut state = state.clone();
        state["corruptions"][0][key] = wrong;
        std::fs::write(&partial, state.to_string()).unwrap();
        std::fs::remove_file(&broken).ok();
        let (_, err) = run(2, &[&words(&arguments)[..], &["--resume"]].concat());
        assert!(err.contains("other corruptions"), "{err}");
    }
}
