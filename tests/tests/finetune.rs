//! Training runs of a small network on a few images: what recipes promise of a whole run.

use std::sync::atomic::AtomicBool;

use adamant::finetune::{EpochMetrics, On, PRESETS, Recipe, Trainer, TrainerOptions};
use adamant::op::{Copy, Op};
use adamant::package::TrainingState;
use adamant::{Batch, BatchNormMode, Dataset, Device, Images, Model, Role, Session, Tensor};
use adamant_tests::noise::{self, BATCH, CLASSES, IMAGES, SHAPE, data, model};

static RUNNING: AtomicBool = AtomicBool::new(false);

fn recipe(name: &str, settings: &[&str]) -> Recipe {
    noise::recipe(name, 4, settings)
}

fn trainer(recipe: &Recipe) -> Trainer<'static> {
    let session = Session::new(Device::cpu(), &model(), BATCH).expect("it fits");
    let options = TrainerOptions { seed: 1, train: data(), extra: None, validation: None, stop: &RUNNING };
    Trainer::new(session, recipe.clone(), options).expect("the recipe runs")
}

fn epoch(trainer: &mut Trainer<'_>) -> EpochMetrics {
    trainer.epoch(|_| {}).expect("the epoch runs")
}

fn finish(trainer: &mut Trainer<'_>) -> Vec<EpochMetrics> {
    let mut metrics = Vec::new();
    while !trainer.is_done() {
        metrics.push(epoch(trainer));
    }
    metrics
}

/// The weights after the run, and its metrics.
fn run(recipe: &Recipe) -> (Vec<Tensor>, Vec<EpochMetrics>) {
    let mut trainer = trainer(recipe);
    let metrics = finish(&mut trainer);
    (trainer.weights().expect("host memory"), metrics)
}

fn state(trainer: &mut Trainer<'_>) -> (Vec<Tensor>, TrainingState) {
    (trainer.weights().expect("host memory"), trainer.state(None).expect("host memory"))
}

/// Stops after two epochs, continues in a new trainer, and compares with a run in one go.
fn resumes_exactly(recipe: &Recipe) {
    resumes_to(recipe, &run(recipe).0);
}

/// The same, where what a run in one go leads to is known.
fn resumes_to(recipe: &Recipe, expected: &[Tensor]) {
    let mut first = trainer(recipe);
    epoch(&mut first);
    epoch(&mut first);
    let (weights, kept) = state(&mut first);
    let mut second = trainer(recipe);
    second.restore(&weights, &kept).expect("the state fits");
    finish(&mut second);
    let (found, _) = state(&mut second);
    assert_eq!(found, expected, "{}: resumed and uninterrupted weights", recipe.name);
}

#[test]
fn the_radius_follows_its_policy() {
    let hinge = recipe("aft", &["epsilon.policy=hinge", "epsilon.start=0.25", "epsilon.end=0.75"]);
    let mut trainer = trainer(&hinge);
    let eps = f64::from(8.0f32 / 255.0);
    let first = epoch(&mut trainer);
    let clean = trainer.session().buffers().images;
    let moved = |trainer: &mut Trainer<'_>| {
        // Four images are in the last batch.
        let count = IMAGES % BATCH;
        let mut images = trainer.session().device().read(clean).expect("host memory");
        images.truncate(count * SHAPE.iter().product::<usize>());
        let found = trainer.session().read_adversarial(count).expect("host memory");
        images.iter().zip(&found).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
    };
    assert_eq!((first.mean_eps, moved(&mut trainer)), (0.0, 0.0));
    let second = epoch(&mut trainer);
    // Batches of 8, 8 and 4 images at 0, 1/6 and 1/3 of the radius.
    let expected = eps * (8.0 * 0.0 + 8.0 / 6.0 + 4.0 / 3.0) / 20.0;
    assert!((second.mean_eps - expected).abs() < 1e-9, "{} is not {expected}", second.mean_eps);
    let largest = moved(&mut trainer);
    assert!(largest > 0.0 && largest <= eps / 3.0 + 1e-6, "{largest}");
    epoch(&mut trainer);
    let last = epoch(&mut trainer);
    assert!((last.mean_eps - eps).abs() < 1e-9);
    assert!(moved(&mut trainer) > eps / 2.0);
}

#[test]
fn a_hinge_at_the_start_is_the_fixed_radius_bit_for_bit() {
    let hinge = recipe("aft", &["epsilon.policy=hinge", "epsilon.start=0", "epsilon.end=0"]);
    assert_eq!(run(&hinge).0, run(&recipe("aft", &[])).0);
    let other = recipe("aft", &["epsilon.policy=hinge"]);
    assert_ne!(run(&other).0, run(&recipe("aft", &[])).0);
}

#[test]
fn resumed_runs_are_bit_equal() {
    resumes_exactly(&recipe("aft", &["epsilon.policy=hinge"]));
    // The head is divided once, and not again where a run goes on.
    resumes_exactly(&recipe("aft", &["head.temperature=3", "guide.kind=features"]));
    resumes_exactly(&recipe("madry", &["epsilon.policy=linear", "epsilon.last=1/255", "epsilon.end=0.75"]));
}

/// All batches of an epoch done, and nothing of its end: what comes of it is the same.
#[test]
fn runs_resume_before_the_end_of_an_epoch() {
    for settings in [&["weights.swa=0.25"][..], &["batchnorm.recalibrate=0.5"], &["epsilon.policy=iaat"]] {
        let recipe = recipe("madry", settings);
        let mut straight = trainer(&recipe);
        epoch(&mut straight);
        while straight.step().map(|at| at.batch < at.batches).expect("it trains") {}
        let (weights, kept) = state(&mut straight);
        let mut resumed = trainer(&recipe);
        resumed.restore(&weights, &kept).expect("the state fits");
        assert!(resumed.step().is_err_and(|e| e.to_string().contains("the epoch is over")));
        let (expected, found) = (epoch(&mut straight), epoch(&mut resumed));
        let of = |m: &EpochMetrics| (m.epoch, m.loss, m.train_accuracy, m.lr, m.mean_eps);
        assert_eq!(of(&found), of(&expected), "{settings:?}");
        assert_eq!(state(&mut resumed).0, state(&mut straight).0, "{settings:?}");
    }
}

/// After the last update comes no loss that would tell.
#[test]
fn a_last_update_that_breaks_the_network_is_an_error() {
    let recipe = recipe("madry", &["data.batch=20", "schedule.peak=1e30", "schedule.milestones=[]"]);
    let session = Session::new(Device::cpu(), &model(), IMAGES).expect("it fits");
    let options = TrainerOptions { seed: 1, train: data(), extra: None, validation: None, stop: &RUNNING };
    let mut trainer = Trainer::new(session, recipe, options).expect("the recipe runs");
    let message = trainer.epoch(|_| {}).expect_err("it is broken").to_string();
    assert!(message.contains("logits are no longer finite after epoch 1"), "{message}");
}

/// The ImageNet protocol: targets drawn at random, and probes of fewer steps than the attack that is trained on.
#[test]
fn iaat_probes_as_on_imagenet() {
    let of = |settings: &[&str]| {
        let common = ["data.batch=8", "epochs=3", "attack.steps=4", "epsilon.warmup_epochs=1"];
        let settings: Vec<String> = common.iter().chain(settings).map(|s| (*s).to_owned()).collect();
        Recipe::load_on("iaat", &[On::Imagenet], &settings).expect("the recipe parses")
    };
    let recipe = of(&["epsilon.probe_steps=1"]);
    resumes_exactly(&recipe);
    let radii = |recipe: &Recipe| {
        let mut trainer = trainer(recipe);
        finish(&mut trainer);
        radii(&mut trainer)
    };
    let (weak, strong) = (radii(&recipe), radii(&of(&["epsilon.probe_steps=4"])));
    assert_ne!(weak, strong);
    let smallest = 4.0 / 255.0;
    for rule in ["paper", "code", "line-search"] {
        let found = radii(&of(&[&format!("epsilon.rule={rule}"), "epsilon.probe_steps=1"]));
        assert!(found.iter().all(|r| *r >= smallest), "{rule}: {found:?}");
    }
}

/// Every preset trains, changes the weights, and continues bit for bit.
#[test]
fn presets_train_and_resume() {
    for preset in PRESETS {
        let recipe = recipe(preset.name, &[]);
        let (weights, metrics) = run(&recipe);
        assert_ne!(weights, model().values, "{}", preset.name);
        assert!(metrics.iter().all(|m| m.loss.is_finite() && m.loss > 0.0), "{}: {metrics:?}", preset.name);
        resumes_to(&recipe, &weights);
    }
}

#[test]
fn recipes_with_different_losses_differ() {
    let presets = ["madry", "mixed", "trades", "mart", "alp"];
    let same = ["attack.eps=8/255", "attack.step=2/255", "attack.start=random", "optimizer.weight_decay=0"];
    let weights: Vec<Vec<Tensor>> = presets.iter().map(|name| run(&recipe(name, &same)).0).collect();
    for (i, a) in weights.iter().enumerate() {
        for (b, name) in weights.iter().zip(presets).skip(i + 1) {
            assert_ne!(a, b, "{} and {name}", presets[i]);
        }
    }
    // With no weight on what is adversarial, the gradient is that of clean images, bit for bit.
    let clean = recipe("madry", &["attack.kind=none", "loss.kind=clean"]);
    assert_eq!(run(&recipe("mixed", &["loss.beta=0"])).0[0], run(&clean).0[0]);
}

/// What is switched off by its number is off, bit for bit.
#[test]
fn neutral_settings_change_nothing() {
    let plain = run(&recipe("madry", &[])).0;
    let frozen = run(&recipe("madry", &["batchnorm.mode=frozen"])).0;
    for settings in [
        &["weights.ema=0"][..],
        &["weights.awp=0"],
        &["weights.awp=0.01", "weights.awp_warmup_epochs=4"],
        // A tolerated doubt of 1 leaves every ball at its largest.
        &["epsilon.policy=daat", "epsilon.rho=[1.0]"],
        &["guide.kind=representation", "guide.weight=0"],
        // No two vectors are further apart than 90 degrees, for |u v| is positive.
        &["replay.kind=noisy", "replay.angle=90"],
        &["replay.kind=noisy", "replay.angle=0", "replay.until_epoch=0"],
        &["optimizer.clip=1e9"],
        // An image that may take all steps after it is misclassified takes all.
        &["attack.kind=friendly", "attack.tau=[2]"],
        &["selection.guard=1"],
        // An average of the last epoch alone.
        &["weights.swa=1", "batchnorm.mode=frozen"],
    ] {
        let plain = if settings.contains(&"batchnorm.mode=frozen") { &frozen } else { &plain };
        assert_eq!(run(&recipe("madry", settings)).0, *plain, "{settings:?}");
    }
    for settings in [
        &["weights.ema=0.9"][..],
        &["weights.awp=0.01"],
        &["epsilon.policy=daat"],
        &["guide.kind=representation"],
        // Squared distances of logits times 50 would diverge.
        &["guide.kind=logit", "guide.distance=mse", "guide.weight=0.1"],
        &["guide.kind=attention"],
        &["replay.kind=noisy", "replay.angle=0"],
        &["optimizer.clip=0.1"],
        &["attack.kind=friendly", "attack.tau=[0]"],
        &["replay.kind=clean"],
        &["replay.kind=clean", "batchnorm.mode=split"],
        &["attack.objective=margin"],
        &["attack.kind=fgsm-rs"],
        &["attack.kind=n-fgsm"],
        &["attack.kind=atta"],
        &["weights.swa=0.5"],
        &["batchnorm.recalibrate=0"],
        &["loss.kind=mixup"],
        &["loss.kind=interpolated"],
        &["loss.kind=lbgat"],
        &["loss.kind=mma", "epsilon.policy=mma"],
    ] {
        assert_ne!(run(&recipe("madry", settings)).0, plain, "{settings:?}");
    }
}

#[test]
fn averages_and_perturbations_resume_exactly() {
    resumes_exactly(&recipe("madry", &["weights.ema=0.9"]));
    resumes_exactly(&recipe("madry", &["weights.swa=0.25"]));
    resumes_exactly(&recipe("madry", &["batchnorm.recalibrate=0.5"]));
    resumes_exactly(&recipe("awp", &["weights.awp_warmup_epochs=1", "weights.ema=0.5"]));
}

/// BatchNorms of their own for clean images are gone on with, and are not those that a run ends with.
#[test]
fn split_norms_resume_exactly() {
    let split = |settings: &[&str]| recipe("trades", &[&["batchnorm.mode=split"], settings].concat());
    for settings in
        [&[][..], &["optimizer.kind=adam", "schedule.peak=0.001"], &["weights.swa=0.25"], &["layers=last:1"]]
    {
        resumes_exactly(&split(settings));
    }
    let mut trainer = trainer(&split(&["layers=last:1"]));
    finish(&mut trainer);
    let state = trainer.state(None).expect("host memory");
    let second: Vec<&str> =
        state.tensors.iter().filter_map(|(name, _)| name.strip_prefix("clean.")).collect();
    let (norms, rest): (Vec<&str>, Vec<&str>) =
        second.iter().partition(|name| !name.starts_with("optimizer."));
    // Four of each of the two BatchNorms of the last block, of which scale and shift have a momentum.
    assert_eq!((norms.len(), rest.len()), (8, 4), "{second:?}");
    let network = model().network;
    for (parameter, own) in network.parameters.iter().zip(trainer.weights().expect("host memory")) {
        let name = format!("clean.{}", parameter.name);
        if let Some((_, second)) = state.tensors.iter().find(|(n, _)| *n == name) {
            assert_ne!(*second, own.data, "{name}");
        }
    }
}

/// Where nothing could be split, or nothing is trained on beside attacked images, that is said.
#[test]
fn what_cannot_be_split_is_refused() {
    let refused = |model: &Model, settings: &[&str]| {
        let session = Session::new(Device::cpu(), model, BATCH).expect("it fits");
        let options =
            TrainerOptions { seed: 1, train: data(), extra: None, validation: None, stop: &RUNNING };
        let settings = [&["batchnorm.mode=split"], settings].concat();
        Trainer::new(session, recipe("trades", &settings), options).err().expect("it is refused").to_string()
    };
    assert!(refused(&model().folded(), &[]).contains("no BatchNorm of this network trains"));
    assert!(refused(&model(), &["layers=last:0"]).contains("no BatchNorm of this network trains"));
}

/// Statistics that were estimated anew are those of the images: with them the network sees clean images as it does in
/// a batch of all of them. Nothing else changes, and training goes on as if nothing had been estimated.
#[test]
fn statistics_are_estimated_anew() {
    let whole = |settings: &[&str]| {
        let recipe = recipe("madry", &[&["data.batch=20", "data.augment=none"], settings].concat());
        let session = Session::new(Device::cpu(), &model(), IMAGES).expect("it fits");
        let options =
            TrainerOptions { seed: 1, train: data(), extra: None, validation: None, stop: &RUNNING };
        let mut trainer = Trainer::new(session, recipe, options).expect("the recipe runs");
        finish(&mut trainer);
        (trainer.weights().expect("host memory"), trainer)
    };
    let (plain, _) = whole(&[]);
    let (clean, mut trainer) = whole(&["batchnorm.recalibrate=0"]);
    let (attacked, _) = whole(&["batchnorm.recalibrate=1"]);
    let live = trainer.session().read_parameters().expect("host memory");
    assert_eq!(live, plain, "the run went on with other weights");
    let network = model().network;
    for (at, parameter) in network.parameters.iter().enumerate() {
        let estimated = matches!(parameter.role, Role::RunningMean | Role::RunningVariance);
        assert_eq!(clean[at] != plain[at], estimated, "{}", parameter.name);
        assert_eq!(clean[at] != attacked[at], estimated, "{}", parameter.name);
    }
    let session = trainer.session();
    let batch = Batch::gather(&data(), &(0..IMAGES as u32).collect::<Vec<_>>());
    session.load(&batch.images, &batch.labels, &batch.indices).expect("they fit");
    let target = session.device().variable(IMAGES * CLASSES).expect("host memory");
    session
        .run("logits of the batch", IMAGES, |m| {
            let logits = m.logits(Images::Clean, BatchNormMode::Batch)?;
            let target = m.graph.variable(target, m.graph.shape(logits));
            m.graph.update(Op::Copy(Copy), &[logits], &[target])
        })
        .expect("it runs");
    let expected = session.device().read(target).expect("host memory");
    let mut logits = |weights: &[Tensor]| {
        session.write_parameters(weights).expect("they fit");
        session.logits(IMAGES, Images::Clean).expect("it runs")
    };
    let apart = |found: Vec<f32>| found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // The unbiased variance of a batch is a little larger than that by which it is normalised.
    let found = apart(logits(&clean));
    let before = apart(logits(&plain));
    assert!(found < 0.1 && before > 0.3, "{found} apart, {before} with the statistics of training");

    let message = |settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        Recipe::load("madry", &settings).expect_err("it is refused").to_string()
    };
    assert!(message(&["batchnorm.recalibrate=2"]).contains("between 0 and 1"));
    assert!(message(&["batchnorm.recalibrate=1", "batchnorm.mode=frozen"]).contains("leave one out"));
    let folded = model().folded();
    let session = Session::new(Device::cpu(), &folded, BATCH).expect("it fits");
    let options = TrainerOptions { seed: 1, train: data(), extra: None, validation: None, stop: &RUNNING };
    let refused = Trainer::new(session, recipe("madry", &["batchnorm.recalibrate=1"]), options);
    assert!(refused.err().is_some_and(|e| e.to_string().contains("BatchNorm")));
}

/// Weights expect the edges of the crops that they were trained on: statistics without them cost accuracy.
#[test]
fn statistics_are_those_of_images_as_training_crops_them() {
    let of = |augment: &str| {
        let augment = format!("data.augment={augment}");
        run(&recipe("madry", &["schedule.peak=0", "batchnorm.recalibrate=0", &augment])).0
    };
    let (whole, cropped) = (of("none"), of("crop"));
    for (at, parameter) in model().network.parameters.iter().enumerate() {
        let estimated = matches!(parameter.role, Role::RunningMean | Role::RunningVariance);
        assert_eq!(whole[at] != cropped[at], estimated, "{}", parameter.name);
    }
}

/// With a rate of 0 nothing remains of the perturbation, and the average is the start.
#[test]
fn perturbed_weights_come_back() {
    let settings = ["schedule.peak=0", "batchnorm.mode=frozen"];
    let start = model().values;
    for name in ["awp", "madry"] {
        let settings = [&settings[..], &["weights.ema=0.9"]].concat();
        for (found, start) in run(&recipe(name, &settings)).0.iter().zip(&start) {
            let far = found.data.iter().zip(&start.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-6, "{name}: {far}");
        }
    }
}

/// Clean replay is the mean of both kinds of images, and where the radius is 0, clean images alone.
#[test]
fn clean_images_are_replayed() {
    let dra = |settings: &[&str]| run(&recipe("dra", &[&["epsilon.end=0.5"], settings].concat()));
    let (weights, metrics) = dra(&[]);
    let eps: Vec<f64> = metrics.iter().map(|m| m.mean_eps * 255.0).collect();
    assert!((eps[0] - 2.0).abs() < 1e-5 && (eps[1] - 0.5).abs() < 1e-5 && eps[2..] == [0.0, 0.0], "{eps:?}");
    for (epoch, m) in metrics.iter().enumerate() {
        let sum: f64 = m.terms.values().sum();
        assert!((sum - m.loss).abs() < 1e-5 * m.loss, "{m:?}");
        let adversarial = m.terms.get("adversarial").copied().unwrap_or(0.0);
        assert_eq!(adversarial > 0.0, epoch < 2, "{m:?}");
    }
    let mixed = ["replay.kind=none", "loss.kind=mixed"];
    let same = ["replay.kind=clean"];
    assert_eq!(run(&recipe("madry", &same)).0, run(&recipe("madry", &mixed)).0);
    assert_ne!(weights, dra(&["replay.kind=none"]).0);
}

/// What the losses of recipes are made of is in their metrics.
#[test]
fn losses_are_told_by_term() {
    for (preset, names) in [
        ("madry", &["adversarial"][..]),
        ("standard", &["clean"]),
        ("trades", &["clean", "divergence"]),
        ("mart", &["boosted", "divergence"]),
        ("alp", &["adversarial", "clean", "pairing"]),
        ("arrest", &["adversarial", "guide"]),
    ] {
        let mut trainer = trainer(&recipe(preset, &[]));
        let metrics = epoch(&mut trainer);
        assert_eq!(metrics.terms.keys().collect::<Vec<_>>(), names, "{preset}");
        let sum: f64 = metrics.terms.values().sum();
        assert!((sum - metrics.loss).abs() < 1e-5 * metrics.loss, "{preset}: {metrics:?}");
    }
}

/// A run whose robustness collapses within an epoch goes back to the start of that epoch and ends.
#[test]
fn the_guard_undoes_an_epoch() {
    let recipe = recipe("fast", &["selection.guard=0.2", "schedule.peak=0", "optimizer.weight_decay=0"]);
    let names = (0..CLASSES).map(|i| i.to_string()).collect();
    let pixels = (0..IMAGES * SHAPE.iter().product::<usize>()).map(|i| (i % 251) as u8).collect();
    let train = Dataset::from_pixels("one class", SHAPE, names, pixels, vec![0; IMAGES]).expect("they fit");
    let begin = || {
        let session = Session::new(Device::cpu(), &model(), BATCH).expect("it fits");
        let options =
            TrainerOptions { seed: 1, train: train.clone(), extra: None, validation: None, stop: &RUNNING };
        Trainer::new(session, recipe.clone(), options).expect("the recipe runs")
    };
    // A network that gives one answer, whatever it sees.
    let answer = |trainer: &mut Trainer<'_>, label: usize| {
        let session = trainer.session();
        let mut weights = session.read_parameters().expect("host memory");
        let last = weights.iter_mut().rfind(|w| w.data.len() == CLASSES).expect("the last bias");
        last.data.fill(0.0);
        last.data[label] = 1e6;
        session.write_parameters(&weights).expect("they fit");
    };
    let mut trainer = begin();
    answer(&mut trainer, 1);
    assert!(!epoch(&mut trainer).rolled_back, "there is nothing to fall from");
    answer(&mut trainer, 0);
    assert!(!epoch(&mut trainer).rolled_back, "it rises");
    answer(&mut trainer, 2);
    let (before, _) = state(&mut trainer);
    let last = epoch(&mut trainer);
    assert!(last.rolled_back && last.epoch == 3, "{last:?}");
    assert!(trainer.is_done());
    assert_eq!(trainer.epochs_done(), 2);
    let (weights, kept) = state(&mut trainer);
    // Running statistics, too, are those of before the epoch.
    assert_eq!(weights, before);
    let mut resumed = begin();
    resumed.restore(&weights, &kept).expect("the state fits");
    assert!(resumed.is_done(), "an ended run stays ended");
}

/// The radii of all images, in their order in the data set.
fn radii(trainer: &mut Trainer<'_>) -> Vec<f32> {
    let (_, state) = state(trainer);
    let (_, values) = state.tensors.into_iter().find(|(name, _)| name == "epsilon").expect("it has a memory");
    values
}

#[test]
fn every_image_has_a_radius_of_its_own() {
    let eps = 8.0 / 255.0;
    let mut iaat = trainer(&recipe("iaat", &["epsilon.warmup_epochs=1"]));
    epoch(&mut iaat);
    assert_eq!(radii(&mut iaat), [eps; IMAGES], "nothing changes in the warm-up");
    let metrics = epoch(&mut iaat);
    let found = radii(&mut iaat);
    let step = 0.19 / 255.0 + 1e-7;
    assert!(found.iter().all(|r| (r - eps).abs() <= step) && found.iter().any(|r| *r != eps), "{found:?}");
    // Images that are misclassified as they are count as 0.
    let mean = found.iter().map(|&r| f64::from(r)).sum::<f64>() / IMAGES as f64;
    assert!(metrics.mean_eps <= mean + 1e-9, "{} and {mean}", metrics.mean_eps);

    let mut daat =
        trainer(&recipe("daat", &["attack.eps=8/255", "epsilon.rho=[0.05]", "epsilon.rho_stages=[]"]));
    let metrics = epoch(&mut daat);
    assert!((metrics.mean_eps - f64::from(eps)).abs() < 1e-9, "the first epoch is at eps");
    let found = radii(&mut daat);
    assert!(
        found.iter().all(|r| (1e-4 * eps..=eps).contains(r)) && found.iter().any(|r| *r < eps),
        "{found:?}"
    );
    let mean = found.iter().map(|&r| f64::from(r)).sum::<f64>() / IMAGES as f64;
    let next = epoch(&mut daat).mean_eps;
    assert!((next - mean).abs() < 1e-8, "{next} is not the mean of what the memory held, {mean}");
}

/// The memory is of the image, not of its place in a batch: other batches leave other numbers only
/// through the weights.
#[test]
fn memory_is_keyed_by_image() {
    let settings = ["schedule.peak=0", "batchnorm.mode=frozen", "epsilon.warmup_epochs=0"];
    let after = |batch: &str| {
        let settings = [&settings[..], &[batch]].concat();
        let mut trainer = trainer(&recipe("iaat", &settings));
        let losses: Vec<f64> = finish(&mut trainer).iter().map(|metrics| metrics.loss).collect();
        (radii(&mut trainer), losses)
    };
    let (eights, fives) = (after("data.batch=8"), after("data.batch=5"));
    assert_eq!(eights.0, fives.0);
    assert!(eights.0.iter().any(|r| *r != eights.0[0]), "{eights:?}");
    // So are the images that it is trained on.
    for (a, b) in eights.1.iter().zip(&fives.1) {
        assert!((a - b).abs() < 1e-5 * a.abs(), "{a} {b}");
    }
}

/// What an image is left with does not depend on the batch that it was in.
#[test]
fn carried_perturbations_and_margins_are_of_the_image() {
    let settings = ["schedule.peak=0", "batchnorm.mode=frozen", "attack.eps=8/255"];
    for (preset, name) in [("atta", "atta.moves"), ("mma", "epsilon")] {
        let after = |batch: &str| {
            let mut trainer = trainer(&recipe(preset, &[&settings[..], &[batch]].concat()));
            // Sure enough of one class that its images have a margin.
            let mut weights = trainer.session().read_parameters().expect("host memory");
            weights.iter_mut().rfind(|w| w.data.len() == CLASSES).expect("the last bias").data[0] += 2.0;
            trainer.session().write_parameters(&weights).expect("they fit");
            epoch(&mut trainer);
            epoch(&mut trainer);
            let (_, state) = state(&mut trainer);
            let found = state.tensors.into_iter().find(|(n, _)| n == name);
            found.unwrap_or_else(|| panic!("{preset} keeps no {name}")).1
        };
        let (eights, fives) = (after("data.batch=8"), after("data.batch=5"));
        assert_eq!(eights, fives, "{preset}");
        // In the ball, or as far beyond it as mma looks.
        let largest = eights.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        let eps = 8.0 / 255.0 * if preset == "mma" { 1.05 } else { 1.0 };
        assert!(largest > 0.1 * eps && largest <= eps + 1e-6, "{preset}: {largest}");
    }
}

/// The rules of IAAT: the paper's, that of the authors' code, and a search.
#[test]
fn radii_follow_the_rule_of_iaat() {
    let after = |rule: &str, more: &[&str]| {
        let settings = [
            "schedule.peak=0",
            "batchnorm.mode=frozen",
            "data.augment=none",
            "epsilon.warmup_epochs=1",
            rule,
        ];
        let mut trainer = trainer(&recipe("iaat", &[&settings[..], more].concat()));
        let warm = epoch(&mut trainer);
        let first = radii(&mut trainer);
        epoch(&mut trainer);
        (warm.mean_eps, first, radii(&mut trainer))
    };
    let eps = 8.0 / 255.0;
    let (warm, first, paper) = after("epsilon.rule=paper", &[]);
    let (warm_code, first_code, code) = after("epsilon.rule=code", &[]);
    // In the warm-up both attack the same images; what the code keeps of the others is 0.
    assert!((warm - warm_code).abs() < 1e-9, "{warm} {warm_code}");
    assert_eq!(first, [eps; IMAGES]);
    assert!(first_code.iter().all(|r| *r == eps || *r == 0.0), "{first_code:?}");
    assert!(first_code.contains(&0.0) && first_code.contains(&eps), "{first_code:?}");
    for i in 0..IMAGES {
        // Right as it is, wrong as it is.
        let expected = if first_code[i] == eps { paper[i] } else { 0.0 };
        assert_eq!(code[i], expected, "image {i}");
    }
    let more = ["epsilon.gamma=2/255", "epsilon.largest=16/255"];
    let (_, _, search) = after("epsilon.rule=line-search", &more);
    for r in &search {
        let steps = r * 255.0 / 2.0;
        assert!((steps - steps.round()).abs() < 1e-4 && (0.0..=8.01).contains(&steps), "{search:?}");
    }
    assert!(search.iter().any(|r| *r > 0.0), "{search:?}");
    resumes_exactly(&recipe("iaat", &["epsilon.rule=code", "epsilon.warmup_epochs=1"]));
}

/// Replayed images are uniform noise around the clean ones, which PGD's, at the rim of the ball, are not.
#[test]
fn replayed_images_are_noise() {
    let rim = |angle: &str| {
        let mut trainer = trainer(&recipe("madry", &["replay.kind=noisy", "replay.until_epoch=2", angle]));
        [(); 3].map(|()| {
            epoch(&mut trainer);
            share_at_the_rim(&mut trainer)
        })
    };
    let noise = rim("replay.angle=0");
    let attack = rim("replay.angle=90");
    // A tenth of uniform noise is there; two steps of an attack take more of the image to the rim.
    assert!(noise[1] < 0.15 && attack[1] > 0.2, "{noise:?} {attack:?}");
    assert!(noise[2] > 0.2, "replay has ended: {noise:?}");
}

/// The share of elements of the last batch that are nearly eps from the clean image.
fn share_at_the_rim(trainer: &mut Trainer<'_>) -> f64 {
    let eps = 8.0 / 255.0;
    let count = IMAGES % BATCH;
    let clean = trainer.session().buffers().images;
    let clean = trainer.session().device().read(clean).expect("host memory");
    let found = trainer.session().read_adversarial(count).expect("host memory");
    let moved: Vec<f32> = found.iter().zip(&clean).map(|(a, b)| (a - b).abs()).collect();
    assert!(moved.iter().all(|d| *d <= eps + 1e-6));
    moved.iter().filter(|d| **d > 0.9 * eps).count() as f64 / moved.len() as f64
}

/// Nothing is trained: the features are those of the start. Much is: they are not, and a run that goes on still knows
/// what they were.
#[test]
fn features_are_compared_with_those_of_the_start() {
    let validated = |recipe: &Recipe, batch: usize| {
        let session = Session::new(Device::cpu(), &model(), batch).expect("it fits");
        let validation = Some(data().subset(3..18));
        let options = TrainerOptions { seed: 1, train: data(), extra: None, validation, stop: &RUNNING };
        Trainer::new(session, recipe.clone(), options).expect("the recipe runs")
    };
    let cosines = |metrics: &EpochMetrics| metrics.cosine.expect("images are attacked after each epoch");
    let still = recipe(
        "aft",
        &["schedule.start=0", "schedule.peak=1e-20", "batchnorm.mode=frozen", "attack.eps=0.1"],
    );
    let found = cosines(&epoch(&mut validated(&still, BATCH)));
    assert!((found.clean - 1.0).abs() < 1e-6, "{found:?}");
    assert!(found.adversarial < 0.9999, "{found:?}");

    let moving = recipe("iaat", &["schedule.peak=0.05", "epsilon.warmup_epochs=1"]);
    let mut straight = validated(&moving, BATCH);
    let metrics = finish(&mut straight);
    let last = cosines(&metrics[3]);
    assert!(last.clean < 0.999 && last.adversarial <= 1.0, "{last:?}");
    let mut first = validated(&moving, BATCH);
    epoch(&mut first);
    let (weights, kept) = state(&mut first);
    let mut second = validated(&moving, BATCH);
    second.restore(&weights, &kept).expect("the state fits");
    assert_eq!(finish(&mut second).last().map(cosines), Some(last));

    // The radii of the epoch, in order; those of a schedule are not the images' own.
    let radii = metrics[3].eps_quartiles.expect("each image has its own");
    assert!(radii.is_sorted() && radii[0] < radii[4], "{radii:?}");
    assert!(epoch(&mut validated(&still, BATCH)).eps_quartiles.is_none());
}
