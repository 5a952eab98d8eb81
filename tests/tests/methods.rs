//! Whole runs of methods against PyTorch, from the same random numbers and in the same order of images.

use std::sync::atomic::AtomicBool;

use adamant::finetune::{Recipe, Trainer, TrainerOptions};
use adamant::{Dataset, Device, Model, Role, Session, import};
use adamant_tests::compare::{Tolerance, compare};
use adamant_tests::golden::{self, Golden};
use adamant_tests::layout::hwio_to_oihw;
use adamant_tests::{Failures, gpu::gpu};

static RUNNING: AtomicBool = AtomicBool::new(false);

/// What every run has: two epochs of two batches.
const COMMON: [&str; 12] = [
    "epochs=2",
    "data.batch=6",
    "data.augment=none",
    "attack.eps=8/255",
    "optimizer.kind=sgd",
    "optimizer.momentum=0.9",
    "optimizer.nesterov=false",
    "optimizer.weight_decay=0",
    "schedule.kind=constant",
    "schedule.peak=0.05",
    "batchnorm.mode=train",
    "selection.kind=last",
];

fn data(golden: &Golden) -> Dataset {
    let (dims, pixels) = golden.integers("pixels");
    let labels = golden.integers("labels").1.iter().map(|&l| l as u32).collect();
    let names = (0..5).map(|i| i.to_string()).collect();
    let pixels = pixels.iter().map(|&p| p as u8).collect();
    Dataset::from_pixels("golden", [dims[1], dims[2], dims[3]], names, pixels, labels).unwrap()
}

/// The golden network with the last bias that runs start from.
fn start(golden: &Golden, bias: &str) -> Model {
    let mut model = import(&golden::folder().join("tiny_resnet.onnx")).expect("the golden network imports");
    let place = model.network.parameters.iter().position(|p| p.name == "fc.bias").unwrap();
    model.values[place].data = golden.real(bias).1;
    model
}

fn recipe(name: &str, settings: &[&str]) -> Recipe {
    let settings: Vec<String> = COMMON.iter().chain(settings).map(|s| (*s).to_owned()).collect();
    Recipe::load(name, &settings).unwrap()
}

#[test]
fn runs_follow_pytorch() {
    let golden = Golden::open("runs.safetensors");
    let pgd = ["attack.step=4/255", "attack.steps=2", "attack.start=random"];
    let daat = ["epsilon.rho=[0.2]", "epsilon.rho_stages=[]"];
    let iaat = ["epsilon.gamma=4/255", "epsilon.beta=0.5", "epsilon.warmup_epochs=0"];
    let cases: Vec<(&str, &str, Vec<&str>)> = vec![
        ("free", "free", vec!["attack.steps=2"]),
        ("atta", "atta", vec!["attack.steps=1", "attack.step=4/255"]),
        ("yopo", "yopo", vec!["attack.steps=2", "attack.step=4/255", "attack.inner_steps=2"]),
        ("mixup-at", "mixup-at", pgd.to_vec()),
        ("interpolated-at", "interpolated-at", pgd.to_vec()),
        ("mma", "mma", vec!["attack.steps=2"]),
        ("lbgat", "lbgat", [&pgd[..], &["attack.objective=ce"]].concat()),
        ("lbgat-6", "lbgat", [&pgd[..], &["attack.objective=ce", "loss.beta=6"]].concat()),
        (
            "split",
            "trades",
            [&pgd[..], &["attack.objective=ce", "batchnorm.mode=split", "optimizer.clip=0.5"]].concat(),
        ),
        (
            "split-replay",
            "madry",
            [
                &pgd[..],
                &["replay.kind=clean", "batchnorm.mode=split"],
                &["epsilon.policy=hinge", "epsilon.start=0.25", "epsilon.end=0.75"],
            ]
            .concat(),
        ),
        (
            "guided",
            "madry",
            [&pgd[..], &["guide.kind=features", "guide.weight=20", "attack.guide=0.5"]].concat(),
        ),
        ("swa", "standard", vec!["weights.swa=0"]),
        ("swa-late", "standard", vec!["weights.swa=0.5"]),
        ("margin", "madry", [&pgd[..], &["attack.objective=margin"]].concat()),
        ("ema", "standard", vec!["weights.ema=0.3"]),
        ("awp", "madry", [&pgd[..], &["weights.awp=0.05", "optimizer.weight_decay=0.1"]].concat()),
        ("dra", "dra", vec!["epochs=3", "attack.steps=2", "epsilon.end=0.6666666667", "epsilon.last=2/255"]),
        (
            "aft",
            "aft",
            [
                &pgd[..],
                &[
                    "schedule.kind=slow-start-fast-decay",
                    "schedule.start=0.002",
                    "schedule.warmup_epochs=0.75",
                    "schedule.decay=0.5",
                ],
            ]
            .concat(),
        ),
        ("arrest", "arrest", [&pgd[..], &["replay.angle=9.7", "replay.until_epoch=1"]].concat()),
        ("daat-plain", "daat", [&pgd[..], &daat].concat()),
        ("daat-linear", "daat", [&pgd[..], &daat, &["epsilon.policy=daat-linear"]].concat()),
        ("iaat-paper", "iaat", [&pgd[..], &iaat].concat()),
        ("iaat-probes", "iaat", [&pgd[..], &iaat, &["epsilon.probe_steps=1"]].concat()),
        ("iaat-code", "iaat", [&pgd[..], &iaat, &["epsilon.rule=code"]].concat()),
    ];
    let mut failures = Failures::new();
    for device in ["cpu", "gpu"] {
        for (name, preset, settings) in &cases {
            let model = start(&golden, if *preset == "iaat" { "iaat.bias" } else { "bias" });
            let device_of = if device == "cpu" { Device::cpu() } else { gpu() };
            let session = Session::new(device_of, &model, 6).unwrap();
            let options = TrainerOptions {
                seed: 0,
                train: data(&golden),
                extra: None,
                validation: None,
                stop: &RUNNING,
            };
            let mut trainer = Trainer::new(session, recipe(preset, settings), options).unwrap();
            while !trainer.is_done() {
                trainer.epoch(|_| {}).unwrap();
            }
            for (value, parameter) in trainer.weights().unwrap().iter().zip(&model.network.parameters) {
                let found = match parameter.role {
                    Role::Weight => hwio_to_oihw(value).data,
                    _ => value.data.clone(),
                };
                let expected = golden.real(&format!("{name}.{}", parameter.name)).1;
                let what = format!("{device}, {name}, {}", parameter.name);
                failures.check(&what, compare(&found, &expected, Tolerance::Loose));
            }
            // What a method remembers from batch to batch.
            for (tensor, values) in trainer.state(None).unwrap().tensors {
                if ["epsilon", "calibration.bias"].contains(&tensor.as_str()) {
                    let expected = golden.real(&format!("{name}.{tensor}")).1;
                    let what = format!("{device}, {name}, {tensor}");
                    failures.check(&what, compare(&values, &expected, Tolerance::Loose));
                }
            }
        }
    }
    failures.report();
}
