//! What an evaluation promises: the same images fall whatever the batch, a later attack meets only what
//! is left when it should, and what was handed out is what was counted.

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

use adamant::{
    AttackSpec, Dataset, Device, EvaluateOptions, Images, Model, Order, Outcome, Purpose, Session, Stream,
    evaluate_and_keep, import,
};
use adamant_tests::golden;

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
    let mut session = Session::new(Device::cpu(), &tiny_resnet(), batch).unwrap();
    let stop = AtomicBool::new(false);
    let options = EvaluateOptions { attacks, batch, seed: 0, stop: &stop };
    let kept = RefCell::new(vec![vec![Vec::new(); data.len()]; attacks.len()]);
    let mut fractions = Vec::new();
    let outcome = evaluate_and_keep(
        &mut session,
        data,
        &options,
        order,
        |progress| fractions.push(progress.fraction),
        |attack, image, pixels| {
            kept.borrow_mut()[attack][image] = pixels.to_vec();
            Ok(())
        },
    )
    .unwrap();
    (outcome, kept.into_inner(), fractions)
}

#[test]
fn batches_do_not_matter() {
    let data = data(&mut Session::new(Device::cpu(), &tiny_resnet(), 1).unwrap());
    let attacks =
        specs(&["pgd:eps=0.4,steps=8,restarts=3", "apgd-t:eps=0.4,steps=8", "square:eps=0.4,queries=60"]);
    for order in [Order::Independent, Order::InTurn] {
        let (expected, _, _) = run(&data, &attacks, 37, order);
        let fell = expected.clean_correct() - expected.worst_case();
        assert!(fell > 0 && expected.worst_case() > 0, "some fall and some withstand: {fell}");
        for batch in [1, 5, 16] {
            let (found, _, _) = run(&data, &attacks, batch, order);
            assert_eq!((&found.clean, &found.robust), (&expected.clean, &expected.robust), "batch {batch}");
        }
    }
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
