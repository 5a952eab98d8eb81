//! Runs of `train`, `finetune` and `compare`, and the recipes that they take.

use super::*;

#[test]
fn a_run_leaves_what_the_contract_says_and_becomes_a_package() {
    let (model, data, dir) = (model(), digits(), folder());
    let out = path(&dir, "run");
    run(0, &finetune(&out, &data, &model, &["--epochs", "2"]));
    for name in ["config.toml", "metrics.jsonl", "checkpoint.adamant", "best.adamant", "log.txt"] {
        assert!(Path::new(&out).join(name).exists(), "{name} is missing");
    }
    let metrics = std::fs::read_to_string(Path::new(&out).join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["epoch"], i + 1);
        for key in
            ["lr", "loss", "clean_accuracy", "robust_accuracy", "mean_eps", "seconds", "images_per_second"]
        {
            assert!(line[key].is_number(), "{key} is missing: {line}");
        }
    }
    // A folder that holds a run is not overwritten by accident.
    refused(&finetune(&out, &data, &model, &["--epochs", "2"]), &["--resume"]);

    let package = path(&dir, "digits.adamant");
    run(
        0,
        &[
            "package", &out, "--out", &package, "--data", &data, "--limit", "40", "--eps", "0.1", "--device",
            "cpu",
        ],
    );
    let (claims, _) = run(0, &["verify", &package]);
    assert!(claims.contains("40"), "the claim names its images: {claims}");

    let onnx = path(&dir, "hard.onnx");
    run(0, &["export", &package, "--out", &onnx]);
    let (inspected, _) = run(0, &["inspect", &onnx, "--verify", "--device", "cpu"]);
    assert!(inspected.contains("tract"), "{inspected}");

    // A byte in the middle of the weights.
    let mut bytes = std::fs::read(&package).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&package, bytes).unwrap();
    let output = adamant(&["verify", &package]);
    assert_eq!(output.status.code(), Some(2));
    refused(&["evaluate", &package, "--data", &data, "--device", "cpu"], &["digits.adamant"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_continues_bit_for_bit() {
    continues_bit_for_bit(&folder(), &[]);
}

/// A run with the options `more` in `straight` of the folder, and another in `broken`, interrupted and resumed.
fn continues_bit_for_bit(dir: &tempfile::TempDir, more: &[&str]) {
    let (model, data) = (model(), digits());
    let (straight, broken) = (path(dir, "straight"), path(dir, "broken"));
    let more = [&["--epochs", "3"], more].concat();
    run(0, &finetune(&straight, &data, &model, &more));

    let mut child = Command::new(env!("CARGO_BIN_EXE_adamant"))
        .args(finetune(&broken, &data, &model, &more))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let checkpoint = Path::new(&broken).join("checkpoint.adamant");
    let start = Instant::now();
    while !checkpoint.exists() && start.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let status = child.wait().unwrap();
    let epochs =
        |run: &str| std::fs::read_to_string(Path::new(run).join("metrics.jsonl")).unwrap().lines().count();
    // On a fast machine the run may have ended before the signal came; else it says how to go on.
    if epochs(&broken) < 3 {
        assert_eq!(status.code(), Some(2));
        let mut message = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut message).unwrap();
        assert!(message.contains("--resume"), "{message}");
    }
    run(0, &finetune(&broken, &data, &model, &[&more[..], &["--resume"]].concat()));
    assert_eq!(epochs(&broken), 3);
    let bytes = |run: &str| std::fs::read(Path::new(run).join("checkpoint.adamant")).unwrap();
    assert!(bytes(&straight) == bytes(&broken), "the checkpoints differ");
}

#[test]
fn recipes_print_what_runs() {
    let (list, _) = run(0, &["recipes"]);
    for name in ["standard", "madry", "aft"] {
        assert!(list.contains(name), "{name} is not listed: {list}");
    }
    let (toml, _) = run(0, &["recipes", "aft"]);
    let (dir, model, data) = (folder(), model(), digits());
    let (file, out) = (path(&dir, "mine.toml"), path(&dir, "run"));
    std::fs::write(&file, toml).unwrap();
    run(0, &finetune(&out, &data, &model, &["--recipe", &file, "--epochs", "1"]));
}

/// A recipe's numbers are those of its paper for the data at hand, unless something else is set.
#[test]
fn recipes_know_their_data() {
    let (dir, model, data) = (folder(), model(), digits());
    let out = path(&dir, "run");
    let more = ["--recipe", "madry", "--epochs", "1", "--set", "attack.start=clean"];
    let arguments = finetune(&out, &data, &model, &more);
    let (_, err) = run(0, &arguments);
    assert!(err.contains("madry, as in its [on.mnist]"), "{err}");
    let config = std::fs::read_to_string(Path::new(&out).join("config.toml")).expect("it was written");
    for line in ["eps = \"25.5/255\"", "step = \"0.01\"", "steps = 2", "start = \"clean\"", "on = [\"mnist\""]
    {
        assert!(config.contains(line), "{line}: {config}");
    }
    let (_, err) = run(0, &[&arguments[..], &["--resume"]].concat());
    assert!(err.contains("is finished"), "{err}");
}

#[test]
fn training_from_nothing_makes_a_model_that_exports() {
    let (data, dir) = (digits(), folder());
    let (out, onnx) = (path(&dir, "run"), path(&dir, "trained.onnx"));
    run(
        0,
        &[
            "train",
            "--arch",
            "mnist-cnn",
            "--data",
            &data,
            "--out",
            &out,
            "--limit",
            "64",
            "--epochs",
            "1",
            "--batch",
            "32",
            "--validate",
            "none",
            "--device",
            "cpu",
        ],
    );
    run(0, &["export", &out, "--out", &onnx]);
    run(0, &["inspect", &onnx, "--verify", "--device", "cpu"]);
}

#[test]
fn a_memory_limit_changes_the_cost_and_nothing_else() {
    let folder = folder();
    let (model, digits) = (model(), digits());
    let train = |name: &str, more: &[&str]| {
        let (out, onnx) = (path(&folder, name), path(&folder, &format!("{name}.onnx")));
        let arguments =
            finetune(&out, &digits, &model, &[&["--recipe", "aft", "--epochs", "1"], more].concat());
        let (_, err) = run(0, &arguments);
        run(0, &["export", &out, "--out", &onnx]);
        (std::fs::read(&onnx).expect("it was written"), err)
    };
    let (free, _) = train("free", &[]);
    let (limited, err) = train("limited", &["--memory-limit", "20MiB"]);
    assert!(err.contains("computed a second time"), "{err}");
    assert!(free == limited, "the limit changed the weights");
    let out = path(&folder, "none");
    let more = ["--recipe", "aft", "--epochs", "1", "--memory-limit"];
    let tiny = finetune(&out, &digits, &model, &[&more[..], &["1MiB"]].concat());
    refused(&tiny, &["memory limit", "1.0 MiB", "raise --memory-limit"]);
    assert!(!Path::new(&out).exists(), "a run that is refused leaves no folder");
    // What it says is enough is enough: batches come in parts.
    let (_, err) = run(2, &tiny);
    let least = err.split(" MiB").nth(1).and_then(|e| e.rsplit(' ').next()).expect("a number");
    let least = format!("{least}MiB");
    let (_, err) = train("parts", &["--memory-limit", &least]);
    assert!(err.contains("parts of") && err.contains("one update"), "{err}");
    // The batch of an update is the recipe's, also where it says auto.
    let auto = path(&folder, "auto");
    let mut arguments = finetune(&auto, &digits, &model, &[&more[..], &["8MiB"]].concat());
    let at = arguments.iter().position(|a| *a == "--batch").expect("the common arguments have it");
    arguments[at + 1] = "auto";
    let (_, err) = run(0, &arguments);
    assert!(err.contains("parts of"), "{err}");
    let config = std::fs::read_to_string(Path::new(&auto).join("config.toml")).expect("it was written");
    assert!(config.contains("batch = 128"), "{config}");
    let whole = ["--recipe", "free", "--epochs", "1", "--memory-limit", &least];
    refused(&finetune(&out, &digits, &model, &whole), &["attack.kind = free", "--batch"]);
}

/// Pictures without labels: the model that training starts from gives them, and they are kept for `--resume`.
#[test]
fn extra_images_are_labelled_by_the_model_and_resume() {
    let folder = folder();
    let (model, digits) = (model(), digits());
    let pictures = path(&folder, "more");
    std::fs::create_dir(&pictures).expect("a folder");
    for i in 0..30 {
        let name = Path::new(&pictures).join(format!("{i}.png"));
        // Half of them look like something.
        let value = if i % 2 == 0 { 0 } else { 200 };
        let picture = image::GrayImage::from_fn(28, 28, |x, y| {
            image::Luma([if (12..16).contains(&x) && (4..24).contains(&y) { value } else { 0 }])
        });
        picture.save(name).expect("it is written");
    }
    let extra = format!("folder:{pictures}:0.25");
    // The labels of the run that was interrupted do not come from the half-trained model.
    continues_bit_for_bit(&folder, &["--extra", &extra, "--pseudo-labels"]);
    let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).expect("it was written");
    let labels: Vec<Option<u32>> = serde_json::from_str(&read("straight/extra_labels.json")).expect("JSON");
    assert_eq!(labels.len(), 30);
    assert_eq!(read("straight/extra_labels.json"), read("broken/extra_labels.json"));
    let config = read("straight/config.toml");
    assert!(config.contains("pseudo_labels = \"") && config.contains(":0.25\""), "{config}");

    let straight = path(&folder, "straight");
    let other = finetune(&straight, &digits, &model, &["--extra", &digits, "--resume"]);
    refused(&other, &["--extra", "was started with"]);
    refused(&finetune(&path(&folder, "x"), &digits, &model, &["--pseudo-labels"]), &["--extra"]);
    let wrong = format!("{pictures}:1.5");
    refused(&finetune(&path(&folder, "x"), &digits, &model, &["--extra", &wrong]), &["part of a batch"]);
}

#[test]
fn methods_are_compared_side_by_side() {
    let folder = folder();
    let (model, digits, out) = (model(), digits(), path(&folder, "runs"));
    let mut arguments = finetune(&out, &digits, &model, &["--epochs", "1", "--json", "-"]);
    arguments[0] = "compare";
    let wild = path(&folder, "wild.toml");
    let (aft, _) = run(0, &["recipes", "aft"]);
    let rates: Vec<&str> = aft.lines().filter(|line| line.starts_with("peak = ")).collect();
    assert_eq!(rates.len(), 1, "{aft}");
    std::fs::write(&wild, aft.replace(rates[0], "peak = 1e30")).expect("it is written");
    arguments.extend(["--recipe", "aft", "--recipe", &wild, "--recipe", "fast", "--images", "50"]);
    let (json, _) = run(0, &arguments);
    let found: Value = serde_json::from_str(&json).expect("JSON");
    let rows = found["rows"].as_array().expect("a list");
    let names: Vec<&str> = rows.iter().filter_map(|r| r["recipe"].as_str()).collect();
    assert_eq!(names, ["before", "aft", &wild, "fast"]);
    // One that fails does not take the others with it.
    assert!(rows[2]["diverged"].as_str().is_some_and(|why| why.contains("schedule.peak")), "{}", rows[2]);
    assert!(rows[2].get("clean").is_none());
    assert!(rows[1]["seconds"].as_f64().is_some_and(|s| s > 0.0));
    // How like the start's what the last layer sees still is; of the start itself nobody asks.
    assert!(rows[0].get("cosine").is_none());
    assert!(rows[1]["cosine"].as_f64().is_some_and(|c| c > 0.5 && c < 1.0), "{}", rows[1]);
    let hardened = std::fs::read(Path::new(&out).join("aft/checkpoint.adamant")).expect("it was written");
    // Once more: nothing is left to train, and the numbers are the same.
    let (again, _) = run(0, &arguments);
    let again: Value = serde_json::from_str(&again).expect("JSON");
    assert_eq!(again["rows"], found["rows"]);
    assert_eq!(std::fs::read(Path::new(&out).join("aft/checkpoint.adamant")).expect("it is there"), hardened);
    // Nor is anything left to measure: what is on disk is taken, unless it was measured otherwise.
    let file = Path::new(&out).join("measured.json");
    let kept = std::fs::read_to_string(&file).expect("it was written");
    let mut kept: Value = serde_json::from_str(&kept).expect("JSON");
    for model in kept["models"].as_object_mut().expect("an object").values_mut() {
        model["clean"] = 0.125.into();
    }
    let table = |extra: &[&str]| {
        std::fs::write(&file, kept.to_string()).expect("it is written");
        let (json, _) = run(0, &[&arguments[..], extra].concat());
        let table: Value = serde_json::from_str(&json).expect("JSON");
        table["rows"].as_array().expect("a list").clone()
    };
    let clean = |rows: &[Value]| rows.iter().filter_map(|r| r["clean"].as_f64()).collect::<Vec<_>>();
    assert_eq!(clean(&table(&[])), [0.125; 3]);
    assert!(clean(&table(&["--measure-eps", "0.05"])).iter().all(|&c| c != 0.125));
    // With more seeds, the first of which is trained, a row is their mean.
    let fast = &table(&["--seeds", "2"])[3];
    let seeds = fast["seeds"].as_array().expect("a list");
    assert_eq!(seeds.iter().map(|s| s["seed"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1)]);
    let clean = clean(seeds);
    assert_eq!(clean[0], 0.125);
    assert_eq!(fast["clean"].as_f64(), Some((clean[0] + clean[1]) / 2.0));
    assert!(Path::new(&out).join("fast-seed-1/checkpoint.adamant").exists());
    // The page that `report` makes of a table names the methods, and why one diverged.
    let (table, page) = (path(&folder, "table.json"), path(&folder, "page"));
    std::fs::write(&table, json).expect("it is written");
    run(0, &["report", &table, "--out", &page]);
    let page = std::fs::read_to_string(Path::new(&page).join("index.html")).expect("the page");
    assert!(
        page.contains("3 methods") && page.contains("schedule.peak") && page.contains(">fast<"),
        "{page}"
    );
    std::fs::write(&file, "{").expect("it is written");
    refused(&arguments, &["measured.json", "delete it"]);
}

/// Choices that would be regretted after hours are refused before.
#[test]
fn what_cannot_end_well_is_refused_at_once() {
    let (dir, model, data) = (folder(), model(), digits());
    let out = path(&dir, "run");
    let with = |more: &[&str], parts: &[&str]| {
        let mut arguments = finetune(&out, &data, &model, &[]);
        arguments.extend(more);
        refused(&arguments, parts);
        assert!(!Path::new(&out).exists());
    };
    // These digits are trained on.
    let mut arguments = finetune(&out, &data, &model, &["--split", "test"]);
    let place = arguments.iter().position(|a| *a == "train:32").expect("what validates");
    arguments[place] = "test:16";
    refused(&arguments, &["--validate test:16", "train:16"]);
    with(&["--json", "no/such/folder/x.json"], &["--json no/such/folder/x.json", "name a file"]);
    with(&["--json", &path(&dir, "")], &["is a folder"]);
    with(&["--recipe", "fast"], &["--set attack.steps=2 changes nothing in fast", "attack.kind = pgd"]);
    with(&["--set", "steps=3"], &["unknown key 'steps'", "did you mean 'attack.steps'?"]);
    with(&["--recipe", "AFT"], &["did you mean 'aft'?"]);
    refused(&["analyse", &model], &["digits_resnet8.onnx: not a folder that `finetune`"]);
    // Wrong by the numbers for CIFAR-10, and right by those for MNIST.
    let recipe = ["--recipe", "iaat", "--set", "attack.eps=0.3", "--epochs", "1"];
    let mut arguments = finetune(&out, &data, &model, &["--set", "epsilon.smallest=0.1"]);
    arguments.extend(recipe);
    run(0, &arguments);
}

/// A run that is finished tells what came of it again.
#[test]
fn a_finished_run_still_has_a_result() {
    let (dir, model, data) = (folder(), model(), digits());
    let (out, again) = (path(&dir, "run"), path(&dir, "again.json"));
    let (json, _) = run(0, &finetune(&out, &data, &model, &["--epochs", "1", "--json", "-"]));
    let (text, err) = run(0, &finetune(&out, &data, &model, &["--resume", "--json", &again]));
    assert!(err.contains("is finished") && text.contains("epoch 1 of 1"), "{text}{err}");
    assert_eq!(std::fs::read_to_string(&again).expect("it was written"), json);
    let mut other = finetune(&out, &data, &model, &["--resume"]);
    let place = other.iter().position(|a| *a == "none").expect("the normalisation");
    other[place] = "0.5";
    other.extend(["--std", "0.5"]);
    refused(&other, &["--mean, --std", "leave them out"]);
}

/// Classes are known by their names; a folder has them in another order.
#[test]
fn extra_images_keep_their_classes() {
    let (dir, model, data) = (folder(), model(), digits());
    let pictures = |folder: &str, names: [&str; 10]| {
        for (i, name) in names.iter().enumerate() {
            let class = dir.path().join(folder).join(name);
            std::fs::create_dir_all(&class).expect("a folder");
            let picture = image::GrayImage::from_pixel(28, 28, image::Luma([20 * i as u8]));
            picture.save(class.join("0.png")).expect("it is written");
        }
        format!("folder:{}", dir.path().join(folder).display())
    };
    let words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let other = pictures("words", words);
    let same = pictures("digits", ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let notes = |out: &str, extra: &str| {
        run(0, &finetune(&path(&dir, out), &data, &model, &["--extra", extra, "--epochs", "1"])).1
    };
    assert!(!notes("a", &same).contains("are called"));
    let found = notes("b", &other);
    assert!(found.contains("are called eight, five, four") && found.contains("0, 1, 2"), "{found}");
    let (page, _) = run(0, &["report", &path(&dir, "b"), "--out", &path(&dir, "report")]);
    let page = std::fs::read_to_string(page.trim()).expect("the page");
    assert!(page.contains(&format!("--extra {other}:0.5")), "{page}");
}
