//! The page of `report`: it says what was measured, it needs nothing from anywhere, and whatever a file
//! calls itself stays text.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent").to_owned()
}

fn run(code: i32, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "adamant {arguments:?}\n{out}\n{err}");
    (out, err)
}

#[test]
fn a_report_stands_alone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    // A name that would be markup if it were not escaped.
    let model = path("<b>a & b.onnx");
    std::fs::copy(root().join("examples/data/digits_resnet8.onnx"), &model).expect("a copy");
    let data = format!("mnist:{}", root().join("examples/data/digits").display());
    let common = ["--mean", "none", "--data", &data, "--device", "cpu"];
    let (curve, corrupted, found, out) =
        (path("curve.json"), path("corrupted.json"), path("found"), path("report"));
    let with = |start: &[&str], more: &[&str]| {
        let words: Vec<&str> = [start, &common, more].concat();
        run(0, &words);
    };
    let evaluate = ["evaluate", &model];
    with(
        &evaluate,
        &["--limit", "40", "--attack", "pgd:steps=5", "--curve", "0.05,0.1,0.6", "--json", &curve],
    );
    with(&evaluate, &["--limit", "8", "--suite", "corruptions", "--json", &corrupted]);
    with(&["attack", &model], &["--limit", "24", "--attack", "pgd:eps=0.1,steps=5", "--save", &found]);
    let trained = path("run");
    with(
        &["finetune", &model],
        &[
            "--out",
            &trained,
            "--limit",
            "64",
            "--batch",
            "32",
            "--epochs",
            "2",
            "--recipe",
            "iaat",
            "--set",
            "attack.steps=1",
            "--set",
            "attack.eps=0.1",
            "--validate",
            "train:32",
        ],
    );
    let (text, _) = run(0, &["analyse", &trained, "--images", "60", "--device", "cpu"]);
    assert!(text.contains("60 images"), "{text}");
    let (printed, _) = run(0, &["report", &corrupted, &curve, &found, &trained, "--out", &out]);
    assert_eq!(printed.trim(), Path::new(&out).join("index.html").display().to_string());
    let page = std::fs::read_to_string(Path::new(&out).join("index.html")).expect("the page");

    let first = page.split("<h1>").nth(1).expect("a first line").split("</h1>").next().unwrap();
    assert!(first.contains("40 images") && first.contains("0.6"), "{first}");
    assert!(page.contains("&lt;b&gt;a &amp; b.onnx") && !page.contains("<b>a &"), "names are escaped");
    for outside in ["http:", "https:", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let sources: Vec<&str> = page.split("src=\"").skip(1).collect();
    assert!(sources.len() >= 9 && sources.iter().all(|s| s.starts_with("data:image/png;base64,")));
    assert!(page.contains("prefers-color-scheme: dark"));
    for part in [
        "Robust accuracy by radius",
        "Expected robustness",
        "What an attack does to an image",
        "gaussian noise",
        "C-like",
        "Accuracy after each epoch",
        "Radius of each training image",
        "Radii kept of the training images",
        "Cosine to the features of the start",
        "Features in two dimensions",
        "What DRA and PGD add to an image",
        "The smallest radii among the training images",
        "The largest radii among the training images",
        "How to repeat it",
        "--curve 0.05,0.1,0.6",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("NaN"), "no number is none");

    assert!(!page.contains("earlier version"), "nothing is missing");

    // A file of an earlier version says what it does not have.
    let (old, older) = (path("old.json"), path("older.json"));
    let mut whole: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&curve).unwrap()).expect("JSON");
    whole["metrics"].as_object_mut().unwrap().remove("cost");
    std::fs::write(&old, whole.to_string()).unwrap();
    for part in ["metrics", "settings", "outcome"] {
        whole.as_object_mut().unwrap().remove(part);
    }
    std::fs::write(&older, whole.to_string()).unwrap();
    for (file, lacks) in [
        (&old, "without what each attack cost"),
        (&older, "without sum, ARDist and curves, the settings and hashes, the result of each image"),
    ] {
        let (_, err) = run(0, &["report", file, "--out", &out]);
        let page = std::fs::read_to_string(Path::new(&out).join("index.html")).expect("the page");
        assert!(err.contains(lacks) && page.contains(lacks), "{err}");
    }

    // Eight of the smallest radii and eight of the largest, in order, and every image in two dimensions.
    let analysis = Path::new(&trained).join("analysis/analysis.json");
    let text = std::fs::read_to_string(&analysis).expect("the analysis");
    let analysed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let radii = |key: &str| -> Vec<f64> {
        analysed[key]
            .as_array()
            .expect("a list")
            .iter()
            .map(|e| e["eps"].as_f64().expect("a radius"))
            .collect()
    };
    let (smallest, largest) = (radii("smallest"), radii("largest"));
    assert_eq!((smallest.len(), largest.len()), (8, 8));
    assert!(smallest.is_sorted() && largest.iter().rev().is_sorted() && smallest[7] <= largest[7]);
    for points in ["clean", "adversarial"] {
        assert_eq!(analysed["embedding"][points].as_array().expect("a list").len(), 60);
    }
    let changed = &analysed["noise"]["changed"];
    assert!(changed[0].as_f64() < changed[1].as_f64(), "DRA changes fewer values: {changed}");
    std::fs::write(&analysis, text.replace("\"clean\":[[", "\"clean\":[[0.0,0.0],[")).unwrap();
    let (_, err) = run(2, &["report", &trained, "--out", &out]);
    assert!(err.contains("analysis.json"), "{err}");

    // What is no result is named.
    let wrong = path("wrong.json");
    std::fs::write(&wrong, "{}").unwrap();
    let (_, err) = run(2, &["report", &wrong, "--out", &out]);
    assert!(err.contains("wrong.json"), "{err}");
    let (_, err) = run(2, &["report", &dir.path().display().to_string(), "--out", &out]);
    assert!(err.contains("manifest.json"), "{err}");
    // Images whose manifest says more than there is.
    let manifest = Path::new(&found).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("[24,1,28,28]", "[24,1,9999999999,28]");
    std::fs::write(&manifest, text).unwrap();
    let (_, err) = run(2, &["report", &found, "--out", &out]);
    assert!(err.contains("does not fit"), "{err}");
}
