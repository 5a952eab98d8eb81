//! Adapting a package to an application's images: what is kept, what is claimed, and what stopping costs.

use std::time::Duration;

use adamant::finetune::Recipe;
use adamant::package::{Package, Precision, Provenance};
use adamant::{
    AdaptLimits, AdaptOptions, Adaptation, Architecture, Classifier, Device, Example, Examples, Model,
    Picture, Purpose, Stream,
};

const SHAPE: [usize; 3] = [3, 8, 8];
const CLASSES: usize = 3;
const BATCH: usize = 8;

fn model() -> Model {
    let mut model = Architecture::build("resnet8", SHAPE, CLASSES, 3).expect("the architecture builds");
    model.labels = ["dark", "grey", "bright"].map(String::from).to_vec();
    model
}

fn file(precision: Precision) -> Vec<u8> {
    let model = if precision == Precision::F32 { model() } else { model().folded() };
    let package = Package { precision, ..Package::new(model, Provenance::default()) };
    package.to_bytes("x").expect("it is sound")
}

/// Noise around a brightness that tells the class.
fn some(count: u32, row: u32) -> Vec<Example> {
    let stream = Stream::new(7, Purpose::Probe, row, 0);
    let len = SHAPE.iter().product::<usize>() as u32;
    let example = |i: u32| {
        let class = i % CLASSES as u32;
        let pixels = (0..len).map(|k| (60 * class + stream.below(i, k, 100)) as f32 / 255.0).collect();
        let picture = Picture::new(SHAPE, pixels).expect("it is whole");
        Example { picture, class: class as usize }
    };
    (0..count).map(example).collect()
}

fn examples() -> Examples {
    Examples { name: "brightness".into(), train: some(20, 0), held_out: some(24, 1) }
}

fn options(layers: &str, more: &[&str]) -> AdaptOptions {
    let common = ["data.batch=8", "attack.steps=2", "epochs=2", "schedule.peak=0.01"];
    let mut settings: Vec<String> = common.iter().chain(more).map(|s| (*s).to_owned()).collect();
    settings.push(format!("layers={layers}"));
    AdaptOptions {
        source_name: "before.adamant".into(),
        recipe: Recipe::load("aft", &settings).expect("it is well formed"),
        seed: 1,
        attacks: Vec::new(),
        limits: AdaptLimits::default(),
    }
}

fn start(file: &[u8], options: AdaptOptions) -> adamant::Result<Adaptation> {
    Adaptation::start(file, Device::cpu(), &examples(), options)
}

/// Adapts to the end, one step after the other.
fn finished(mut adaptation: Adaptation) -> Package {
    while !adaptation.is_done() {
        adaptation.step().expect("it runs");
    }
    adaptation.finish().expect("it is measured")
}

#[test]
fn what_is_not_selected_stays_to_the_bit() {
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        let file = file(precision);
        let before = Package::from_bytes(&file, "x").expect("it is sound");
        for (layers, more) in
            [("all", vec![]), ("last:1", vec![]), ("bias-norm", vec![]), ("last:0", vec!["weights.ema=0.9"])]
        {
            let after = finished(start(&file, options(layers, &more)).expect("it fits"));
            assert_eq!(after.precision, precision);
            let parameters = &before.model.network.parameters;
            let values = before.model.values.iter().zip(&after.model.values);
            let bits = |t: &adamant::Tensor| t.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let equal: Vec<bool> = values.map(|(a, b)| bits(a) == bits(b)).collect();
            for (parameter, equal) in parameters.iter().zip(&equal) {
                let name = &parameter.name;
                let may_change = match layers {
                    "all" => true,
                    "last:1" => name.starts_with("layer3") || name.starts_with("linear"),
                    "last:0" => name.starts_with("linear"),
                    _ => !(name.ends_with("weight") && parameter.shape.0[..3] != [1, 1, 1]),
                };
                assert!(may_change || *equal, "{precision:?}, {layers}: {name} changed");
            }
            let changed = equal.iter().filter(|equal| !**equal).count();
            let fc = parameters.iter().position(|p| p.name == "linear.bias").expect("it has a head");
            assert!(changed > 0 && !equal[fc], "{precision:?}, {layers}: {changed} changed");
        }
    }
}

#[test]
fn it_goes_on_from_where_it_was_saved_to_the_bit() {
    let file = file(Precision::Int8);
    for more in [vec![], vec!["weights.ema=0.9"], vec!["epsilon.policy=iaat"]] {
        let whole = finished(start(&file, options("all", &more)).expect("it fits"));
        // Saved and resumed after every step: within an epoch, and between two.
        let mut adaptation = start(&file, options("all", &more)).expect("it fits");
        let mut steps = 0;
        while !adaptation.is_done() {
            let progress = adaptation.step().expect("it runs");
            steps += 1;
            assert_eq!(progress.batch, (steps - 1) % 3 + 1);
            assert!((progress.part - f64::from(steps as u32) / 6.0).abs() < 1e-9);
            assert_eq!(progress.done, steps == 6);
            let saved = adaptation.save().expect("it is sound");
            adaptation = Adaptation::resume(&saved, Device::cpu(), &examples(), AdaptLimits::default())
                .expect("it is what was saved");
        }
        let found = adaptation.finish().expect("it is measured");
        assert_eq!(found.model, whole.model, "{more:?}");
        assert_eq!(found.provenance, whole.provenance);
        let correct = |p: &Package| {
            let report = p.report.clone().expect("it has a claim");
            (report.clean.correct, report.attacks[0].robust_correct)
        };
        assert_eq!(correct(&found), correct(&whole));
    }
}

#[test]
fn the_claim_is_of_the_packed_model_on_what_was_held_out() {
    let file = file(Precision::Int8);
    let mut adaptation = start(&file, options("all", &["epochs=6"])).expect("it fits");
    let before = adaptation.measure().expect("it is measured");
    let after = finished(adaptation);
    let report = after.report.clone().expect("it has a claim");
    assert_eq!((report.images, report.data.as_str()), (24, "brightness"));
    assert_eq!((report.attacks[0].name.as_str(), report.attacks[0].steps), ("pgd", 20));
    assert_eq!(after.provenance.source_blake3, blake3_of(&file));
    assert_eq!(after.provenance.source_name, "before.adamant");
    assert!(after.provenance.recipe.contains("name = \"aft\""));
    // It has learned something, and a classifier made of its bytes counts the same.
    assert!(report.clean.correct > before.clean.correct, "{before:?} {report:?}");
    let package = Package::from_bytes(&after.to_bytes("x").expect("it is sound"), "x").expect("it is sound");
    let classifier = Classifier::new(package, Device::cpu(), BATCH).expect("it fits");
    let held_out = examples().held_out;
    let right = held_out.iter().filter(|e| {
        let best = classifier.classify(&e.picture, 1).expect("it runs");
        best[0].class == e.class
    });
    assert_eq!(right.count() as u64, report.clean.correct);
}

fn blake3_of(file: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("before.adamant");
    std::fs::write(&path, file).expect("it is written");
    Provenance::imported(&path, file).source_blake3
}

#[test]
fn memory_and_time_are_kept() {
    let file = file(Precision::F32);
    let settings = ["data.batch=20"];
    let mut free = start(&file, options("all", &settings)).expect("it fits");
    while !free.is_done() {
        assert_eq!(free.step().expect("it runs").recomputed, 0.0);
    }
    let whole = free.package().expect("it is sound");

    let limited = |bytes| {
        let limits = AdaptLimits { memory: Some(bytes), time: None };
        start(&file, AdaptOptions { limits, ..options("all", &settings) })
    };
    // Where activations are computed again and nothing else, the bits are the same.
    let first_step = |bytes: u64| Some(limited(bytes).ok()?.step().expect("it was planned"));
    let tight = (1..64)
        .map(|n| (16 << 20) - (n << 18))
        .find(|&bytes| first_step(bytes).is_some_and(|at| at.recomputed > 0.0 && at.parts == 1))
        .expect("some limit is like that");
    let mut adaptation = limited(tight).expect("it was tried");
    while !adaptation.is_done() {
        adaptation.step().expect("it was planned");
    }
    assert_eq!(adaptation.package().expect("it is sound").model, whole.model);

    // What cannot be is refused before the first step, with what would be enough: batches then come in parts.
    let refused = |bytes| limited(bytes).err().expect("it is too little").to_string();
    let message = refused(1024);
    assert!(message.contains("memory limit"), "{message}");
    let least = message.split("takes ").nth(1).and_then(|m| m.split(" MiB").next()).expect("a number");
    let least = (least.parse::<f64>().expect("a number") * f64::from(1 << 20)) as u64;
    assert!(refused(least * 9 / 10).contains("memory limit"));
    assert!(least < tight);
    let mut adaptation = limited(least).expect("the message says so");
    assert!(adaptation.step().expect("it was planned").parts > 1);
    assert!(finished(adaptation).report.is_some());

    let limits = AdaptLimits { memory: None, time: Some(Duration::from_nanos(1)) };
    let mut brief = start(&file, AdaptOptions { limits, ..options("all", &[]) }).expect("it fits");
    let progress = brief.step().expect("the first step is taken");
    assert!(progress.done && progress.part == 1.0 && brief.is_done());
    assert!(brief.step().expect_err("the time is spent").to_string().contains("finish"));
    // With more time it goes on.
    let saved = brief.save().expect("it is sound");
    let longer = Adaptation::resume(&saved, Device::cpu(), &examples(), AdaptLimits::default());
    let whole = finished(start(&file, options("all", &[])).expect("it fits"));
    assert_eq!(finished(longer.expect("it is what was saved")).model, whole.model);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let file = file(Precision::F32);
    let message = |result: adamant::Result<Adaptation>| result.err().expect("it is refused").to_string();
    let with = |change: &dyn Fn(&mut Examples)| {
        let mut examples = examples();
        change(&mut examples);
        message(Adaptation::start(&file, Device::cpu(), &examples, options("all", &[])))
    };
    assert!(with(&|e| e.held_out.clear()).contains("held out"));
    assert!(with(&|e| e.train.clear()).contains("no training images"));
    assert!(with(&|e| e.held_out.push(e.train[3].clone())).contains("example 24"));
    assert!(with(&|e| e.train[2].class = 3).contains("label 3 of 3"));
    let other = Picture::from_gray8(1, 1, &[0]).expect("it is whole");
    assert!(with(&|e| e.train[1].picture = other.clone()).contains("resize"));
    assert!(message(start(&file[..99], options("all", &[]))).contains("truncated"));
    assert!(message(start(&file, options("last:9", &[]))).contains("3 blocks"));
    assert!(message(start(&file, options("all", &["selection.guard=0.2"]))).contains("selection.guard"));

    let mut adaptation = start(&file, options("all", &[])).expect("it fits");
    adaptation.step().expect("it runs");
    let saved = adaptation.save().expect("it is sound");
    let resume = |saved: &[u8], examples: &Examples| {
        message(Adaptation::resume(saved, Device::cpu(), examples, AdaptLimits::default()))
    };
    let mut fewer = examples();
    fewer.train.pop();
    assert!(resume(&saved, &fewer).contains("other examples"));
    assert!(resume(&file, &examples()).contains("start with it"));
    let mut checkpoint = Package::from_bytes(&saved, "x").expect("it is a package");
    let state = checkpoint.training.as_mut().expect("it is a checkpoint");
    state.settings = state.settings.split("[run]").next().expect("there is some").to_owned();
    let checkpoint = checkpoint.to_bytes("x").expect("it is sound");
    assert!(resume(&checkpoint, &examples()).contains("another kind"));
}
