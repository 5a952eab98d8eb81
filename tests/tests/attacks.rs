//! Attacks against PyTorch, from the same random numbers, on both executors; and what holds for every
//! attack: it stays in its ball and its box, and does the same to an image in any company.

use std::sync::atomic::{AtomicBool, Ordering};

use adamant::op::Norm;
use adamant::{AttackSpec, Device, Model, Objective, Passes, Purpose, Session, import};
use adamant_tests::compare::{Tolerance, assert_close};
use adamant_tests::golden::{self, Golden};
use adamant_tests::gpu::gpu;
use adamant_tests::{Failures, compare};

fn tiny_resnet() -> Model {
    import(&golden::folder().join("tiny_resnet.onnx")).expect("the golden network imports")
}

/// Images with their labels; the data set index of an image is its place in the golden batch.
struct Batch {
    images: Vec<f32>,
    labels: Vec<u32>,
    indices: Vec<u32>,
}

impl Batch {
    fn golden() -> Self {
        Self::labelled("labels")
    }

    /// The golden images with the labels of this name.
    fn labelled(name: &str) -> Self {
        let golden = Golden::open("searches.safetensors");
        let labels: Vec<u32> = golden.integers(name).1.iter().map(|&l| l as u32).collect();
        let indices = (0..labels.len() as u32).collect();
        Self { images: golden.real("x").1, labels, indices }
    }

    /// The images at `places`, in that order.
    fn part(&self, places: &[usize]) -> Self {
        let len = self.images.len() / self.labels.len();
        Self {
            images: places.iter().flat_map(|&p| self.images[p * len..][..len].to_vec()).collect(),
            labels: places.iter().map(|&p| self.labels[p]).collect(),
            indices: places.iter().map(|&p| self.indices[p]).collect(),
        }
    }

    fn load(&self, session: &mut Session) {
        session.load(&self.images, &self.labels, &self.indices).expect("the batch fits");
    }
}

/// What an attack returns for a batch.
fn attack(session: &mut Session, batch: &Batch, spec: &AttackSpec) -> Vec<f32> {
    batch.load(session);
    let count = batch.labels.len();
    let mut objective = Objective::new(session, count, 0, Purpose::AttackStart, 0);
    spec.build().perturb(&mut objective).expect("the attack runs");
    session.read_adversarial(count).expect("the device answers")
}

fn spec(text: &str) -> AttackSpec {
    AttackSpec::parse(text, None, None).expect("a valid attack")
}

/// Attacks whose result and last loss the golden file has; `attempt` is the one that it followed.
fn searches() -> Vec<(String, AttackSpec, u32, Tolerance)> {
    let mut all = Vec::new();
    for (golden, kind, attempt) in [
        ("apgd_ce", "apgd-ce", 0),
        ("apgd_dlr", "apgd-dlr", 0),
        ("apgd_t0", "apgd-t", 0),
        ("apgd_t1", "apgd-t", 1),
    ] {
        for (norm, eps) in [("linf", "8/255"), ("l2", "0.3")] {
            let spec = spec(&format!("{kind}:norm={norm},eps={eps},steps=20"));
            // Twenty steps add up the roundings of twenty gradients.
            all.push((format!("{golden}_{norm}"), spec, attempt, Tolerance::Loose));
        }
    }
    for (golden, text) in [
        ("mi_fgsm", "mi-fgsm"),
        ("cw", "cw:steps=10"),
        ("pgd_t", "pgd-t:step=2/255,steps=10"),
        ("square", "square:queries=120"),
        ("square_l2", "square:norm=l2,eps=0.5,queries=120"),
        ("fab_linf", "fab-t:norm=linf,eps=1,steps=15"),
        ("fab_l2", "fab-t:norm=l2,eps=20,steps=15"),
        ("fab_any_linf", "fab:norm=linf,eps=1,steps=15"),
        ("fab_any_l2", "fab:norm=l2,eps=20,steps=15"),
        ("fab_again_linf", "fab:norm=linf,eps=1,steps=15,restarts=2"),
        ("fab_again_l2", "fab:norm=l2,eps=20,steps=15,restarts=2"),
        ("cw_l2", "cw-l2:eps=20,steps=40,searches=5,c=0.03,step=0.05"),
        ("cw_l2_t", "cw-l2-t:eps=20,steps=40,searches=5,c=0.03,step=0.05"),
        ("deepfool_linf", "deepfool:norm=linf,eps=1,steps=10"),
        ("deepfool_l2", "deepfool:norm=l2,eps=20,steps=10"),
    ] {
        // Steps onto a boundary amplify what rounding does to a gradient.
        let spec = spec(text);
        let tolerance = if spec.minimises() { Tolerance::Loose } else { Tolerance::Approximate };
        // The second restart.
        let attempt = u32::from(golden.starts_with("fab_again"));
        all.push((golden.to_owned(), spec, attempt, tolerance));
    }
    all
}

#[test]
fn searches_follow_pytorch() {
    let (golden, model) = (Golden::open("searches.safetensors"), tiny_resnet());
    // Some images are misclassified from the start; attacks that look for near ones need others.
    let (mixed, right) = (Batch::golden(), Batch::labelled("right"));
    let mut failures = Failures::new();
    for device in [Device::cpu(), gpu()] {
        let kind = if device.is_cpu() { "cpu" } else { "gpu" };
        let count = mixed.labels.len();
        let mut session = Session::new(device, &model, count).unwrap();
        for (name, spec, attempt, tolerance) in searches() {
            let near = spec.minimises();
            let batch = if near { &right } else { &mixed };
            batch.load(&mut session);
            let mut objective = Objective::new(&mut session, count, 0, Purpose::AttackStart, 0);
            spec.build().attempt(&mut objective, attempt).unwrap();
            let found = session.read_adversarial(count).unwrap();
            let expected = golden.real(&format!("{name}.x")).1;
            let checked = match near {
                true => all_but_one(&found, &expected, &golden.real("x").1, &spec, tolerance),
                false => compare(&found, &expected, tolerance),
            };
            failures.check(&format!("{kind}, {name}"), checked);
            if name.starts_with("apgd") {
                let buffers = *session.buffers();
                for (what, buffer) in
                    [("loss", buffers.loss), ("last_step", buffers.step), ("grad", buffers.gradient)]
                {
                    let found = session.device().read(buffer).unwrap();
                    let expected = golden.real(&format!("{name}.{what}")).1;
                    failures.check(&format!("{kind}, {name}.{what}"), compare(&found, &expected, tolerance));
                }
            }
        }
    }
    failures.report();
}

/// The attacks by plain steps, in both norms; with restarts, what they take in the end.
#[test]
fn plain_steps_follow_pytorch() {
    let (golden, model) = (Golden::open("plain_attacks.safetensors"), tiny_resnet());
    let labels: Vec<u32> = golden.integers("labels").1.iter().map(|&l| l as u32).collect();
    let indices = (0..labels.len() as u32).collect();
    let batch = Batch { images: golden.real("x").1, labels, indices };
    let count = batch.labels.len();
    let mut failures = Failures::new();
    let mut compared = 0;
    for device in [Device::cpu(), gpu()] {
        let kind = if device.is_cpu() { "cpu" } else { "gpu" };
        let mut session = Session::new(device, &model, count).unwrap();
        for (norm, eps, step) in [("linf", "8/255", "2/255"), ("l2", "0.4", "0.1")] {
            for (name, text) in [
                ("fgsm", "fgsm:"),
                ("bim", "bim:steps=5"),
                ("pgd", "pgd:steps=5"),
                ("pgd_normal", "pgd:steps=5,start=normal"),
                ("pgd_t", "pgd-t:steps=5"),
                ("pgd_random_target", "pgd-random-target:steps=5"),
                ("cw", "cw:steps=5"),
                ("mi_fgsm", "mi-fgsm:steps=5"),
                ("pgd_restarts", "pgd:steps=2,restarts=3"),
            ] {
                let step = if name == "fgsm" { String::new() } else { format!(",step={step}") };
                let attack = spec(&format!("{text}{step},norm={norm},eps={eps}")).build();
                batch.load(&mut session);
                let mut objective = Objective::new(&mut session, count, 0, Purpose::AttackStart, 0);
                match name {
                    "pgd_restarts" => attack.perturb(&mut objective).unwrap(),
                    _ => attack.attempt(&mut objective, 0).unwrap(),
                }
                let found = session.read_adversarial(count).unwrap();
                let expected = golden.real(&format!("{name}_{norm}")).1;
                let checked = compare(&found, &expected, Tolerance::Approximate);
                failures.check(&format!("{kind}, {name}, {norm}"), checked);
                compared += 1;
            }
        }
    }
    // Nothing that the file holds goes unchecked: all but the images and their labels.
    assert_eq!(compared, 2 * (golden.names().len() - 2));
    failures.report();
}

/// Attacks that walk along the boundary choose at every step, by what rounding decides where an image
/// lies on it: one image may take another way than the reference's, if what it finds, in as many steps,
/// is no farther away.
fn all_but_one(
    found: &[f32],
    expected: &[f32],
    clean: &[f32],
    spec: &AttackSpec,
    tolerance: Tolerance,
) -> Result<(), String> {
    /// A longer way than the reference's that still is one of the shortest.
    const LONGER: f64 = 1.1;
    if found.len() != expected.len() || clean.len() != expected.len() {
        return Err(format!("{} values, {} expected, {} clean", found.len(), expected.len(), clean.len()));
    }
    let len = found.len() / Batch::golden().labels.len();
    let distance = |x: &[f32], clean: &[f32]| {
        let moved = x.iter().zip(clean).map(|(x, c)| f64::from((x - c).abs()));
        match spec.ball.norm {
            Norm::Linf => moved.fold(0.0, f64::max),
            Norm::L2 => moved.map(|d| d * d).sum::<f64>().sqrt(),
        }
    };
    let mut apart = Vec::new();
    for (n, ((found, expected), clean)) in
        found.chunks(len).zip(expected.chunks(len)).zip(clean.chunks(len)).enumerate()
    {
        let Err(message) = compare(found, expected, tolerance) else { continue };
        let (found, expected) = (distance(found, clean), distance(expected, clean));
        // Not a number is not near. The clean image, at no distance, says that the steps did not suffice.
        let as_near = found <= LONGER * expected;
        apart.push(format!("image {n}: {message}; at {found}, the reference's at {expected}"));
        if !as_near || apart.len() > 1 {
            return Err(apart.join("; "));
        }
    }
    Ok(())
}

/// Every attack at few steps.
fn every_attack() -> Vec<AttackSpec> {
    let mut specs = Vec::new();
    for name in AttackSpec::names() {
        for norm in [Norm::Linf, Norm::L2] {
            let settings = match (name, norm) {
                ("fgsm", _) => "",
                ("square", _) => "queries=30,restarts=2",
                ("bim" | "mi-fgsm" | "dra", _) => "steps=4",
                // They find something in a few steps in a large ball only.
                ("cw-l2" | "cw-l2-t", _) => "steps=30,searches=3,c=0.1,step=0.05,eps=20",
                ("fab" | "fab-t", Norm::Linf) => "steps=6,eps=0.9,restarts=2",
                ("fab" | "fab-t", Norm::L2) => "steps=6,eps=20,restarts=2",
                ("deepfool", Norm::Linf) => "steps=6,eps=0.9",
                ("deepfool", Norm::L2) => "steps=6,eps=20",
                _ => "steps=6,restarts=2",
            };
            specs.push(AttackSpec::parse(&format!("{name}:{settings}"), Some(norm), None).unwrap());
        }
    }
    specs
}

fn distance(a: &[f32], b: &[f32], norm: Norm) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| f64::from(a - b).abs());
    match norm {
        Norm::Linf => differences.fold(0.0, f64::max),
        Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
    }
}

#[test]
fn every_attack_stays_in_its_ball_and_box() {
    let (batch, model) = (Batch::golden(), tiny_resnet());
    for device in [Device::cpu(), gpu()] {
        let mut session = Session::new(device, &model, 6).unwrap();
        let len = batch.images.len() / batch.labels.len();
        for spec in every_attack() {
            let found = attack(&mut session, &batch, &spec);
            let mut moved = false;
            for (x, y) in batch.images.chunks_exact(len).zip(found.chunks_exact(len)) {
                assert!(y.iter().all(|v| (0.0..=1.0).contains(v)), "{} leaves the box", spec.kind);
                let ball = spec.build().ball();
                let away = distance(x, y, ball.norm);
                let eps = f64::from(ball.eps);
                assert!(away <= eps * (1.0 + 1e-5) + 1e-7, "{}: {away} of {eps}", spec.kind);
                moved |= away > 0.0;
            }
            assert!(moved, "{} does nothing", spec.kind);
        }
    }
}

#[test]
fn no_attack_minds_the_company() {
    let (batch, model) = (Batch::golden(), tiny_resnet());
    for device in [Device::cpu(), gpu()] {
        let mut session = Session::new(device, &model, 6).unwrap();
        let len = batch.images.len() / batch.labels.len();
        for spec in every_attack() {
            let together = attack(&mut session, &batch, &spec);
            assert_eq!(together, attack(&mut session, &batch, &spec), "{} differs when repeated", spec.kind);
            for places in [&[4][..], &[5, 0, 2]] {
                let apart = attack(&mut session, &batch.part(places), &spec);
                for (found, &place) in apart.chunks_exact(len).zip(places) {
                    let name = format!("{}, image {place} of {places:?}", spec.kind);
                    assert_close(&name, found, &together[place * len..][..len], Tolerance::Approximate);
                }
            }
        }
    }
}

/// What a search keeps as the best so far, after each of its passes: it never gets worse.
#[test]
fn the_best_so_far_never_gets_worse() {
    let (mixed, right, model) = (Batch::golden(), Batch::labelled("right"), tiny_resnet());
    let count = mixed.labels.len();
    for device in [Device::cpu(), gpu()] {
        let mut session = Session::new(device, &model, count).unwrap();
        for (text, kept) in [
            ("apgd-ce:steps=24", "apgd best loss"),
            ("apgd-dlr:norm=l2,eps=0.3,steps=24", "apgd best loss"),
            ("apgd-t:steps=24", "apgd best loss"),
            ("square:queries=40", "square best loss"),
            ("square:norm=l2,queries=40", "square best loss"),
            ("fab:norm=l2,eps=20,steps=4", "closeness"),
            ("fab-t:eps=1,steps=8", "closeness"),
            ("deepfool:eps=1,steps=5", "closeness"),
            ("cw-l2:eps=20,steps=20,searches=2,c=0.3,step=0.05", "closeness"),
        ] {
            let spec = spec(text);
            let batch = if spec.minimises() { &right } else { &mixed };
            let (mut before, mut rose, mut passes) = (vec![f32::MIN; count], 0, 2);
            loop {
                // The same search again, stopped one pass later.
                batch.load(&mut session);
                let stop = AtomicBool::new(false);
                let mut listener =
                    |p: Passes| stop.store(p.forwards + p.gradients > passes, Ordering::Relaxed);
                let mut objective = Objective::new(&mut session, count, 0, Purpose::AttackStart, 0)
                    .with_stop(&stop)
                    .with_listener(&mut listener);
                let ended = spec.build().attempt(&mut objective, 0).is_ok();
                let buffer = session.extra(kept).expect("the attack keeps it");
                let now = session.device().read(buffer).unwrap();
                for (n, (now, before)) in now.iter().zip(&before).enumerate() {
                    // The largest number stands for nothing found yet.
                    let nothing = [now, before].map(|v| kept == "closeness" && *v == f32::MAX);
                    assert!(
                        !nothing[0] || nothing[1] || *before == f32::MIN,
                        "{text}: image {n} is lost again"
                    );
                    assert!(
                        nothing[0] || nothing[1] || now >= before,
                        "{text}: {now} after {before}, image {n}"
                    );
                    rose += usize::from(now > before && *before > f32::MIN);
                }
                before = now;
                passes += 1;
                if ended {
                    break;
                }
            }
            assert!(rose > 0 || kept == "closeness", "{text}: nothing ever rises");
            assert!(passes > 10, "{text}: {passes} passes");
        }
    }
}

#[test]
fn another_seed_is_another_start() {
    let (batch, model) = (Batch::golden(), tiny_resnet());
    let mut session = Session::new(Device::cpu(), &model, 6).unwrap();
    for name in ["pgd:steps=1", "apgd-ce:steps=1", "square:queries=1"] {
        batch.load(&mut session);
        let mut found = Vec::new();
        for seed in [0, 1] {
            let mut objective = Objective::new(&mut session, 6, seed, Purpose::AttackStart, 0);
            spec(name).build().perturb(&mut objective).unwrap();
            found.push(session.read_adversarial(6).unwrap());
        }
        assert_ne!(found[0], found[1], "{name}");
    }
}
