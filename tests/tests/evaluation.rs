//! What an evaluation promises: the same images fall whatever the batch, a later attack meets only what
//! is left when it should, and what was handed out is what was counted.

use std::sync::atomic::{AtomicBool, Ordering};

use adamant::{
    AttackSpec, Dataset, Device, EvaluateOptions, EvaluateProgress, EvaluationState, Images, Model, Observer,
    Order, Outcome, Purpose, Session, Stream, evaluate_with, import,
};
use adamant_tests::golden;
use adamant_tests::gpu::gpu;

const IMAGES: usize = 37;
const SHAPE: [usize; 3] = [3, 9, 11];
const LEN: usize = 3 * 9 * 11;

fn tiny_resnet() -> Model {
    import(&golden::folder().join("tiny_resnet.onnx")).expect("the golden network imports")
}

/// Random images; all but every fifth with the label that the model gives them.
fn data(session: &mut Session) -> Dataset {
    let stream = Stream::new(5, Purpose::Probe, 0, 0);
    let pixels: Vec<u8> = (0..(IMAGES * LEN) as u32).map(|i| stream.below(0, i, 256) as u8).collect();
    let mut labels = vec![0; IMAGES];
    for (n, image) in pixels.chunks_exact(LEN).enumerate() {
        let image: Vec<f32> = image.iter().map(|&p| f32::from(p) / 255.0).collect();
        session.load(&image, &[0], &[0]).unwrap();
        let logits = session.logits(1, Images::Clean).unwrap();
        let best = (0..5).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        labels[n] = if n % 5 == 4 { (best as u32 + 1) % 5 } else { best as u32 };
    }
    let names = (0..5).map(|c| c.to_string()).collect();
    Dataset::from_pixels("random", SHAPE, names, pixels, labels).unwrap()
}

fn specs(texts: &[&str]) -> Vec<AttackSpec> {
    texts.iter().map(|text| AttackSpec::parse(text, None, None).unwrap()).collect()
}

/// The outcome, what was kept of each attack and image, and the fractions that were told.
fn run(
    data: &Dataset,
    attacks: &[AttackSpec],
    batch: usize,
    order: Order,
) -> (Outcome, Vec<Vec<Vec<f32>>>, Vec<f64>) {
    run_on(Device::cpu(), data, attacks, batch, order)
}

fn run_on(
    device: Device,
    data: &Dataset,
    attacks: &[AttackSpec],
    batch: usize,
    order: Order,
) -> (Outcome, Vec<Vec<Vec<f32>>>, Vec<f64>) {
    let mut session = Session::new(device, &tiny_resnet(), batch).unwrap();
    let stop = AtomicBool::new(false);
    let options = EvaluateOptions { attacks, batch, seed: 0, stop: &stop };
    let mut seen = Seen {
        kept: vec![vec![Vec::new(); data.len()]; attacks.len()],
        fractions: Vec::new(),
        states: Vec::new(),
        stop: None,
    };
    let outcome = evaluate_with(&mut session, data, &options, order, None, &mut seen).unwrap();
    (outcome, seen.kept, seen.fractions)
}

/// All that an evaluation tells.
struct Seen<'a> {
    kept: Vec<Vec<Vec<f32>>>,
    fractions: Vec<f64>,
    states: Vec<EvaluationState>,
    /// Set after so many states.
    stop: Option<(usize, &'a AtomicBool)>,
}

impl Observer for Seen<'_> {
    fn progress(&mut self, progress: EvaluateProgress<'_>) {
        self.fractions.push(progress.fraction);
    }

    fn keep(&mut self, attack: usize, image: usize, pixels: &[f32]) -> adamant::Result<()> {
        self.kept[attack][image] = pixels.to_vec();
        Ok(())
    }

    fn state(&mut self, state: &EvaluationState) -> adamant::Result<()> {
        self.states.push(state.clone());
        if let Some((after, stop)) = self.stop {
            stop.store(self.states.len() >= after, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The times are the one thing that differs from run to run.
fn timeless(outcome: Outcome) -> Outcome {
    Outcome { seconds: vec![0.0; outcome.seconds.len()], ..outcome }
}

#[test]
fn an_evaluation_goes_on_wherever_it_stopped() {
    goes_on(Device::cpu, &[Order::Independent, Order::InTurn]);
}

#[test]
fn an_evaluation_on_an_adapter_goes_on_wherever_it_stopped() {
    goes_on(gpu, &[Order::InTurn]);
}

fn goes_on(open: impl Fn() -> Device, orders: &[Order]) {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    let attacks = specs(&["fgsm:eps=0.4", "pgd:eps=0.4,steps=4,restarts=3", "square:eps=0.4,queries=20"]);
    for &order in orders {
        let never = AtomicBool::new(false);
        let options = EvaluateOptions { attacks: &attacks, batch: 16, seed: 0, stop: &never };
        let mut session = Session::new(open(), &tiny_resnet(), 16).unwrap();
        let mut all = Seen { kept: vec![vec![vec![]; 37]; 3], fractions: vec![], states: vec![], stop: None };
        let expected = evaluate_with(&mut session, &data, &options, order, None, &mut all).unwrap();
        assert!(all.states.len() >= 8, "{} states", all.states.len());
        for after in 1..=all.states.len() {
            let stop = AtomicBool::new(false);
            let stopping = EvaluateOptions { stop: &stop, ..options };
            let mut first = Seen { states: vec![], stop: Some((after, &stop)), ..copy(&all) };
            let stopped = evaluate_with(&mut session, &data, &stopping, order, None, &mut first);
            if after < all.states.len() {
                assert!(matches!(stopped, Err(adamant::Error::Interrupted)), "after {after}");
            }
            // As a file would bring it back.
            let text = serde_json::to_string(first.states.last().unwrap()).unwrap();
            let state = serde_json::from_str(&text).unwrap();
            let mut rest = Seen { states: vec![], ..copy(&all) };
            let found = evaluate_with(&mut session, &data, &options, order, Some(state), &mut rest).unwrap();
            assert_eq!(timeless(found), timeless(expected.clone()), "stopped after {after}");
            assert_eq!(rest.states.len(), all.states.len() - after, "nothing is done twice");
        }
    }
}

/// An observer with room for the same images.
fn copy(seen: &Seen<'_>) -> Seen<'static> {
    Seen { kept: seen.kept.clone(), fractions: vec![], states: vec![], stop: None }
}

#[test]
fn the_state_of_another_evaluation_is_refused() {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    let attacks = specs(&["fgsm:eps=0.4"]);
    let never = AtomicBool::new(false);
    let options = EvaluateOptions { attacks: &attacks, batch: 16, seed: 0, stop: &never };
    let mut session = Session::new(Device::cpu(), &tiny_resnet(), 16).unwrap();
    let mut seen = Seen { kept: vec![vec![vec![]; 37]; 1], fractions: vec![], states: vec![], stop: None };
    evaluate_with(&mut session, &data, &options, Order::Independent, None, &mut seen).unwrap();
    let good = seen.states[0].clone();
    let mut go_on = |state: EvaluationState, images: usize| {
        let data = data.limit(images);
        evaluate_with(&mut session, &data, &options, Order::Independent, Some(state), &mut copy(&seen))
            .is_ok()
    };
    assert!(go_on(good.clone(), 37));
    assert!(!go_on(good.clone(), 36), "other images");
    let mut other = good.clone();
    other.outcome.clean[0] ^= true;
    assert!(!go_on(other, 37), "another model");
    let mut other = good.clone();
    other.outcome.robust[0].pop();
    assert!(!go_on(other, 37), "damaged");
    let mut other = good;
    other.next = 38;
    assert!(!go_on(other, 37), "damaged");
}

#[test]
fn a_long_attack_hears_that_it_should_stop() {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    for text in ["square:eps=0.001,queries=2000000000", "pgd:eps=0.001,steps=2000000000"] {
        let attacks = specs(&[text]);
        let stop = AtomicBool::new(false);
        let mut session = Session::new(Device::cpu(), &tiny_resnet(), 37).unwrap();
        let options = EvaluateOptions { attacks: &attacks, batch: 37, seed: 0, stop: &stop };
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(300));
                stop.store(true, Ordering::Relaxed);
            });
            adamant::evaluate(&mut session, &data, &options, |_| {})
        });
        assert!(matches!(found, Err(adamant::Error::Interrupted)), "{text}: {found:?}");
    }
}

#[test]
fn batches_do_not_matter() {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    let attacks = specs(&[
        "pgd:eps=0.4,steps=8,restarts=3",
        "apgd-t:eps=0.4,steps=8",
        "fab-t:eps=0.4,steps=4",
        "square:eps=0.4,queries=60",
        "pgd:eps=0.3,step=0.002,steps=120",
    ]);
    // Programs for every size of batch take an adapter's driver a while to compile.
    let cases = [
        (Device::cpu as fn() -> Device, Order::Independent, &[1, 5, 16][..]),
        (Device::cpu, Order::InTurn, &[1, 5, 16]),
        (gpu, Order::InTurn, &[5]),
    ];
    for (open, order, batches) in cases {
        let (expected, ..) = run_on(open(), &data, &attacks, 37, order);
        let fell = expected.clean_correct() - expected.worst_case();
        assert!(fell > 0 && expected.worst_case() > 0, "some fall and some withstand: {fell}");
        for &batch in batches {
            let (found, ..) = run_on(open(), &data, &attacks, batch, order);
            assert_eq!((&found.clean, &found.robust), (&expected.clean, &expected.robust), "batch {batch}");
        }
    }
}

/// Each image meets the same attacks wherever it is among the others.
#[test]
fn the_order_of_the_images_does_not_matter() {
    let whole = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    let attacks = specs(&["pgd:eps=0.4,steps=8", "apgd-t:eps=0.4,steps=8", "square:eps=0.4,queries=60"]);
    for open in [Device::cpu, gpu] {
        let (expected, ..) = run_on(open(), &whole, &attacks, 8, Order::InTurn);
        // The last images first, as the shards of an evaluation may be measured.
        let mut found = vec![Vec::new(); attacks.len()];
        for range in [20..37, 0..20] {
            let (part, ..) = run_on(open(), &whole.subset(range), &attacks, 8, Order::InTurn);
            for (all, part) in found.iter_mut().zip(part.robust) {
                all.splice(0..0, part);
            }
        }
        assert_eq!(found, expected.robust);
    }
}

/// A long attack is for those that withstand it: every 50 steps the others leave, and stay as they are.
#[test]
fn images_that_fell_leave_a_long_attack() {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    let long = specs(&["pgd:eps=0.4,step=0.01,steps=170"]);
    let pieces = specs(&["pgd:eps=0.4,step=0.01,steps=50", "pgd:eps=0.4,step=0.01,steps=170"]);
    let (found, kept, fractions) = run(&data, &long, 16, Order::Independent);
    let (alone, first, _) = run(&data, &pieces, 16, Order::InTurn);
    // Who falls within 50 steps has taken 50, and is what those 50 steps made of it.
    let (right, left) = (found.clean_correct(), alone.robust_correct(0));
    assert!(left > 0 && left < right, "some fall and some withstand: {left} of {right}");
    for n in (0..IMAGES).filter(|&n| alone.clean[n] && !alone.robust[0][n]) {
        assert!(!found.robust[0][n] && kept[0][n] == first[0][n], "image {n}");
    }
    assert_eq!(found.robust[0], alone.robust[1], "the rest goes on as if it had been alone");
    let steps = found.passes[0].gradients;
    assert!(steps >= 50 * (right - left) + 100 * left && steps <= 50 * right + 120 * left, "{steps} steps");
    assert!(fractions.is_sorted() && fractions.last() == Some(&1.0), "{fractions:?}");
}

#[test]
fn attacks_in_turn_meet_what_is_left() {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    let attacks = specs(&["pgd:eps=0.4,steps=8", "apgd-ce:eps=0.4,steps=8", "pgd:eps=0.001,steps=1"]);
    let (alone, ..) = run(&data, &attacks, 16, Order::Independent);
    let (in_turn, ..) = run(&data, &attacks, 16, Order::InTurn);
    let mut left = alone.clean.clone();
    for (i, robust) in alone.robust.iter().enumerate() {
        left.iter_mut().zip(robust).for_each(|(left, robust)| *left &= robust);
        assert_eq!(in_turn.robust[i], left, "after attack {i}");
    }
    assert_eq!(in_turn.worst_case(), alone.worst_case());
    // The last attack fools fewer than those before it: alone, it leaves more.
    assert!(alone.robust_correct(2) > in_turn.robust_correct(2));
}

#[test]
fn what_is_kept_is_what_was_counted() {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    let attacks = specs(&["pgd:eps=0.4,steps=8,restarts=2", "square:eps=0.4,queries=60"]);
    let (outcome, kept, fractions) = run(&data, &attacks, 16, Order::Independent);
    let mut session = Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap();
    for (attack, images) in kept.iter().enumerate() {
        for (n, image) in images.iter().enumerate() {
            session.load(image, &[0], &[0]).unwrap();
            let logits = session.logits(1, Images::Clean).unwrap();
            let label = data.labels()[n] as usize;
            let right = (0..5).all(|k| logits[k] < logits[label] || k == label);
            assert_eq!(right, outcome.robust[attack][n], "attack {attack}, image {n}");
        }
    }
    assert!(fractions.is_sorted() && fractions.iter().all(|f| (0.0..=1.0).contains(f)), "{fractions:?}");
}

/// An image that never falls takes the passes of the algorithms, and no more. With ten classes, for which
/// there are nine targets, and AutoAttack's numbers of steps that is 1,910 gradients and some 5,900 forward
/// passes.
#[test]
fn attacks_cost_what_their_arithmetic_says() {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    // In a ball without extent nothing falls.
    let attacks = specs(&[
        "apgd-ce:eps=0,steps=20",
        "apgd-t:eps=0,steps=20",
        "fab-t:eps=0,steps=10",
        "square:eps=0,queries=50",
        "fab:eps=0,steps=10,restarts=2",
        "pgd:eps=0,steps=7,restarts=3",
        "cw-l2:eps=0,steps=10,searches=3",
    ]);
    for batch in [37, 4] {
        let (outcome, ..) = run(&data, &attacks, batch, Order::InTurn);
        let images = outcome.clean_correct();
        assert_eq!(outcome.worst_case(), images);
        // Five classes: four targets. Each attempt is classified once more in the end; a target, or the
        // order of the targets, takes a forward pass on the clean image.
        let expected = [
            (1, 21),
            (4 * 2, 4 * 21),
            (4 * (10 + 2), 4 * 10),
            (50 + 1 + 1, 0),
            (2 * (10 + 1), 2 * 10 * 4),
            (3, 3 * 7),
        ];
        for (i, (forwards, gradients)) in expected.into_iter().enumerate() {
            let found = outcome.passes[i];
            let name = &attacks[i].kind;
            assert_eq!((found.forwards, found.gradients), (forwards * images, gradients * images), "{name}");
        }
        // A search of CW-L2 may end early, and takes at least its first look.
        let cw = outcome.passes[expected.len()];
        assert!((3 * images..=30 * images).contains(&cw.gradients), "{cw:?}");
    }
}

/// What is told about distances is about the images that were handed out.
#[test]
fn distances_are_those_of_the_images_found() {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    let attacks =
        specs(&["deepfool:norm=l2,eps=20,steps=20", "pgd:eps=0.4,steps=4", "fab-t:eps=0.9,steps=6"]);
    let (outcome, kept, _) = run(&data, &attacks, 16, Order::Independent);
    for i in [0, 2] {
        let mut expected = Vec::new();
        for (n, found) in kept[i].iter().enumerate() {
            if outcome.clean[n] && !outcome.robust[i][n] {
                let mut clean = vec![0.0; LEN];
                data.image(n, &mut clean);
                let moved = clean.iter().zip(found).map(|(a, b)| f64::from((a - b).abs()));
                expected.push(if i == 0 {
                    moved.map(|d| d * d).sum::<f64>().sqrt()
                } else {
                    moved.fold(0.0, f64::max)
                });
            }
        }
        expected.sort_by(f64::total_cmp);
        let found = &outcome.distances[i];
        assert!(found.len() > 1 && found.len() == expected.len(), "{} of {}", found.len(), expected.len());
        assert!(found.iter().zip(&expected).all(|(f, e)| (f64::from(*f) - e).abs() < 1e-6));
        let distance = outcome.distance(i).expect("some were found");
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        assert!((distance.mean - mean).abs() < 1e-6 && distance.found == expected.len());
    }
    // Attacks that go as far as they may have no distance to tell.
    assert!(outcome.distances[1].is_empty() && outcome.distance(1).is_none());
}
