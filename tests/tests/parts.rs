//! Batches that are trained on in parts: the update is that of the whole batch.

use std::sync::atomic::AtomicBool;

use adamant::finetune::{PRESETS, Recipe, Room, Trainer, TrainerOptions, room};
use adamant::package::TrainingState;
use adamant::{Architecture, Dataset, Device, Error, Session, Tensor};
use adamant_tests::gpu::gpu;
use adamant_tests::noise::{self, BATCH, CLASSES, data, model};

/// A batch comes in parts of 3, 3 and 2 images, the last one of an epoch in parts of 3 and 1.
const PART: usize = 3;

static RUNNING: AtomicBool = AtomicBool::new(false);

fn recipe(name: &str, settings: &[&str]) -> Recipe {
    noise::recipe(name, 2, settings)
}

fn trainer(device: Device, recipe: &Recipe, at_once: usize) -> Result<Trainer<'static>, Error> {
    let session = Session::new(device, &model(), at_once)?;
    let options = TrainerOptions { seed: 1, train: data(), extra: None, validation: None, stop: &RUNNING };
    Trainer::new(session, recipe.clone(), options)
}

/// Weights and state after the run.
fn finished(trainer: Trainer<'_>) -> (Vec<Tensor>, TrainingState) {
    after(trainer, u32::MAX)
}

/// Weights and state after so many epochs, or the run.
fn after(mut trainer: Trainer<'_>, epochs: u32) -> (Vec<Tensor>, TrainingState) {
    while !trainer.is_done() && trainer.epochs_done() < epochs {
        trainer.epoch(|_| {}).expect("the epoch runs");
    }
    (trainer.weights().expect("they are there"), trainer.state(None).expect("it is there"))
}

/// The length of the difference of all values together.
fn apart<'a>(a: impl Iterator<Item = &'a f32>, b: impl Iterator<Item = &'a f32>) -> f64 {
    a.zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

fn values(tensors: &[Tensor]) -> impl Iterator<Item = &f32> {
    tensors.iter().flat_map(|t| &t.data)
}

/// How far the parts lead in an epoch from where the whole batch leads, as a part of how far that is from the start.
/// Later, attacks that follow the signs of gradients make much of a last bit.
fn error(device: fn() -> Device, recipe: &Recipe) -> f64 {
    let (whole, states) = after(trainer(device(), recipe, BATCH).expect("it fits"), 1);
    let (parts, found) = after(trainer(device(), recipe, PART).expect("it fits"), 1);
    let start = model().values;
    for ((name, expected), (_, found)) in states.tensors.iter().zip(&found.tensors) {
        // What is kept of each image.
        if name == "epsilon" {
            let difference = apart(found.iter(), expected.iter());
            assert!(difference < 1e-5, "{}: {name} is {difference} apart", recipe.name);
        }
    }
    assert_eq!(states.tensors.len(), found.tensors.len(), "{}", recipe.name);
    assert_eq!(states.step, found.step, "{}", recipe.name);
    apart(values(&parts), values(&whole)) / apart(values(&whole), values(&start))
}

/// Every preset whose method allows it, and what acts on whole batches, with the running statistics frozen.
#[test]
fn parts_lead_where_the_whole_batch_leads() {
    let needs_whole = ["free", "yopo", "mixup-at", "interpolated-at"];
    for preset in PRESETS {
        let recipe = recipe(preset.name, &["batchnorm.mode=frozen", "schedule.peak=0.01"]);
        if needs_whole.contains(&preset.name) {
            let Err(Error::Limit(message)) = trainer(Device::cpu(), &recipe, PART) else {
                panic!("{} cannot come in parts", preset.name);
            };
            assert!(message.contains(preset.name.trim_end_matches("-at")), "{message}");
            continue;
        }
        let error = error(Device::cpu, &recipe);
        assert!(error < 1e-4, "{}: {error} of the way", preset.name);
    }
    for settings in [
        ["optimizer.kind=adam", "schedule.peak=0.001"],
        ["optimizer.clip=0.05", "optimizer.weight_decay=0.01"],
        ["weights.awp=0.01", "weights.ema=0.9"],
    ] {
        let recipe = recipe("trades", &[&settings[..], &["batchnorm.mode=frozen"]].concat());
        let error = error(Device::cpu, &recipe);
        assert!(error < 1e-4, "{settings:?}: {error} of the way");
    }
    let guided = recipe("adamant", &["attack.guide=1", "batchnorm.mode=frozen", "schedule.peak=0.01"]);
    let error = error(Device::cpu, &guided);
    assert!(error < 1e-4, "attack.guide: {error} of the way");
}

#[test]
fn on_a_gpu_too() {
    let recipe = recipe("iaat", &["batchnorm.mode=frozen", "epsilon.warmup_epochs=0"]);
    let error = error(gpu, &recipe);
    assert!(error < 1e-4, "{error} of the way");
}

/// In training mode BatchNorm sees the parts: that is another function, and the tests above would see it.
#[test]
fn batch_statistics_are_those_of_the_parts() {
    let error = error(Device::cpu, &recipe("aft", &["batchnorm.mode=train"]));
    assert!(error > 1e-2, "{error} of the way");
}

#[test]
fn runs_in_parts_resume_bit_for_bit() {
    for (name, settings) in
        [("aft", &[][..]), ("daat", &[]), ("arrest-awp", &[]), ("dra", &["batchnorm.mode=split"])]
    {
        let recipe = recipe(name, &[&["epochs=3"], settings].concat());
        let new = || trainer(Device::cpu(), &recipe, PART).expect("it fits");
        let (expected, _) = finished(new());
        let mut first = new();
        first.epoch(|_| {}).expect("the epoch runs");
        // And one batch of the next.
        first.step().expect("it runs");
        let (weights, state) =
            (first.weights().expect("they are there"), first.state(None).expect("it is there"));
        let mut second = new();
        second.restore(&weights, &state).expect("the state fits");
        assert_eq!(finished(second).0, expected, "{name}");
    }
}

/// What is planned for a limit, and what a step then takes.
fn planned(device: Device, recipe: &Recipe, limit: u64) -> Result<Room, Error> {
    let name = format!("{}, {limit} bytes, {}", recipe.name, device.name());
    let input = [3, 32, 32];
    let model = Architecture::build("resnet20", input, CLASSES, 3).expect("the architecture builds");
    let images = recipe.data.batch;
    let (pixels, labels) = (vec![99; images * input.iter().product::<usize>()], vec![1; images]);
    let names = (0..CLASSES).map(|i| i.to_string()).collect();
    let train = Dataset::from_pixels("grey", input, names, pixels, labels).expect("the images fit");
    let mut device = device;
    device.limit_memory(limit);
    let room = room(&device, &model, recipe, &train)?;
    let session = Session::new(device, &model, room.images).expect("it was planned");
    let options = TrainerOptions { seed: 1, train, extra: None, validation: None, stop: &RUNNING };
    let mut trainer = Trainer::new(session, recipe.clone(), options).expect("it was planned");
    trainer.step().expect("it was planned");
    let device = trainer.session().device();
    let (taken, predicted) = (device.allocated_bytes(), room.bytes.expect("there is a limit"));
    let part = (predicted as f64 / taken as f64 - 1.0).abs();
    assert!(part <= 0.05, "{name}: {predicted} bytes predicted, {taken} taken");
    assert!(taken <= limit, "{name}: {taken} bytes taken");
    assert_eq!(room.recomputed, device.recomputed(), "{name}");
    Ok(room)
}

fn a_limit_is_kept(device: fn() -> Device, names: &[&str]) {
    for name in names {
        let recipe = recipe(name, &["data.batch=18", "data.augment=none", "epochs=1"]);
        let Err(Error::Limit(message)) = planned(device(), &recipe, 1 << 20) else {
            panic!("{name}: a MiB is not enough");
        };
        // What the message says is enough is enough, and far less is not.
        let mebibytes = message.split(" MiB").nth(1).and_then(|m| m.rsplit(' ').next()).expect("a number");
        let least = (mebibytes.parse::<f64>().expect("a number") * f64::from(1 << 20)) as u64;
        let smallest = planned(device(), &recipe, least).expect("the message says so");
        assert!(planned(device(), &recipe, least * 3 / 4).is_err(), "{name}: {message}");
        assert!(smallest.images >= 5, "{name}: {smallest:?}");
        // The more there is, the larger the parts, up to the whole batch.
        let mut images = 0;
        for percent in [150, 400, 1000] {
            let room = planned(device(), &recipe, least * percent / 100).expect("it is more than the least");
            assert!(room.images >= images, "{name}: {room:?} with {percent}%");
            images = room.images;
        }
        assert_eq!(images, 18, "{name}");
    }
}

/// The statistics of one image would say little: of 90, parts of at least four have five.
#[test]
fn batch_statistics_are_of_several_images() {
    for (mode, words) in [
        ("train", "on 5 images at once"),
        ("split", "on 5 images at once"),
        ("frozen", "on one image after the other"),
    ] {
        let mode = format!("batchnorm.mode={mode}");
        let recipe = recipe("trades", &["data.batch=90", "data.augment=none", "epochs=1", &mode]);
        let message = planned(Device::cpu(), &recipe, 1 << 20).expect_err("it is not enough").to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn limits_are_kept_as_predicted() {
    a_limit_is_kept(Device::cpu, &["aft", "arrest-awp"]);
}

#[test]
fn limits_are_kept_on_a_gpu() {
    a_limit_is_kept(gpu, &["aft"]);
}

#[test]
fn methods_that_need_whole_batches_say_so() {
    let recipe = recipe("free", &["data.batch=16", "data.augment=none", "epochs=1"]);
    let message = planned(Device::cpu(), &recipe, 5 << 20).expect_err("it is not enough").to_string();
    assert!(message.contains("attack.kind = free") && message.contains("takes"), "{message}");
    planned(Device::cpu(), &recipe, 1 << 30).expect("it is enough");
}
