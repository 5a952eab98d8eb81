//! Models and data that nobody means to evaluate: they are refused or doubted, never believed.

use std::sync::atomic::AtomicBool;

use adamant::op::Norm;
use adamant::{
    AttackSpec, Dataset, Device, EvaluateOptions, EvaluationReport, Images, Model, Outcome, Purpose,
    ReportContext, Session, Stream, evaluate, import,
};
use adamant_tests::golden;

const CLASSES: usize = 5;

fn model() -> Model {
    import(&golden::folder().join("tiny_resnet.onnx")).expect("the golden network imports")
}

/// Random images, each with the class that `model` gives it.
fn data(model: &Model, images: usize) -> Dataset {
    let stream = Stream::new(9, Purpose::Probe, 0, 0);
    let shape = model.network.input;
    let len: usize = shape.iter().product();
    let pixels: Vec<u8> = (0..(images * len) as u32).map(|i| stream.below(0, i, 256) as u8).collect();
    let mut session = Session::new(Device::cpu(), model, 1).unwrap();
    let label = |image: &[u8]| {
        let image: Vec<f32> = image.iter().map(|&p| f32::from(p) / 255.0).collect();
        session.load(&image, &[0], &[0]).unwrap();
        let logits = session.logits(1, Images::Clean).unwrap();
        (0..CLASSES).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
    };
    let labels = pixels.chunks_exact(len).map(label).collect();
    let names = (0..CLASSES).map(|c| c.to_string()).collect();
    Dataset::from_pixels("random", shape, names, pixels, labels).unwrap()
}

fn specs(texts: &[&str]) -> Vec<AttackSpec> {
    texts.iter().map(|text| AttackSpec::parse(text, None, None).unwrap()).collect()
}

fn run(model: &Model, data: &Dataset, attacks: &[AttackSpec]) -> (Outcome, EvaluationReport) {
    let stop = AtomicBool::new(false);
    let mut session = Session::new(Device::cpu(), model, 16).unwrap();
    let options = EvaluateOptions { attacks, batch: 16, seed: 0, stop: &stop };
    let outcome = evaluate(&mut session, data, &options, |_| {}).unwrap();
    let context =
        ReportContext { model: "m", data: "d", split: "test", seed: 0, device: "cpu", classes: CLASSES };
    let report = outcome.report(attacks, &context);
    (outcome, report)
}

fn flags(report: &EvaluationReport) -> Vec<&str> {
    report.warnings.iter().map(|w| w.flag.as_str()).collect()
}

/// Sets the weights and the biases of the last layer.
fn with_head(weight: impl Fn(f32) -> f32, bias: &[f32]) -> Model {
    let mut model = model();
    let head = model.network.head().expect("a last layer");
    model.values[head.weight].data.iter_mut().for_each(|w| *w = weight(*w));
    model.values[head.bias].data.copy_from_slice(bias);
    model
}

const ALL: [&str; 11] = [
    "fgsm",
    "bim",
    "pgd",
    "mi-fgsm",
    "cw",
    "apgd-ce:steps=5",
    "apgd-t:steps=3",
    "fab:steps=3",
    "fab-t:steps=3",
    "cw-l2:steps=5,searches=2",
    "square:queries=20",
];

#[test]
fn not_a_number_is_never_robust() {
    let sound = model();
    let data = data(&sound, 20);
    let (outcome, report) = run(&with_head(|_| f32::NAN, &[0.0; CLASSES]), &data, &specs(&ALL));
    assert_eq!((outcome.clean_correct(), outcome.worst_case()), (0, 0));
    assert!(flags(&report).contains(&"non-finite-logits"), "{:?}", flags(&report));
}

#[test]
fn a_model_that_does_not_look_is_doubted() {
    let sound = model();
    let data = data(&sound, 20);
    let (_, report) = run(&with_head(|_| 0.0, &[3.0, 1.0, 0.0, 0.0, 0.0]), &data, &specs(&["pgd"]));
    for flag in ["constant-logits", "zero-gradient"] {
        assert!(flags(&report).contains(&flag), "{flag}: {:?}", flags(&report));
    }
    // The same with logits that are probabilities.
    let (_, report) = run(&with_head(|_| 0.0, &[0.5, 0.2, 0.1, 0.1, 0.1]), &data, &specs(&["pgd"]));
    assert!(flags(&report).contains(&"softmax-output"), "{:?}", flags(&report));
    // And a sound one is not doubted for any of this.
    let (_, report) = run(&sound, &data, &specs(&["pgd"]));
    assert_eq!(flags(&report), Vec::<&str>::new());
}

/// So sure of itself that the gradient of its cross-entropy is exactly zero.
#[test]
fn saturated_logits_are_doubted() {
    let sound = model();
    let data = data(&sound, 20);
    let head = sound.network.head().unwrap();
    let bias: Vec<f32> = sound.values[head.bias].data.iter().map(|b| b * 1e5).collect();
    let (outcome, report) = run(&with_head(|w| w * 1e5, &bias), &data, &specs(&["pgd"]));
    assert!(outcome.zero_gradients > 10, "{}", outcome.zero_gradients);
    assert!(flags(&report).contains(&"zero-gradient"), "{:?}", flags(&report));
}

#[test]
fn a_radius_of_nothing_changes_nothing() {
    let model = model();
    let data = data(&model, 10);
    for norm in [Norm::Linf, Norm::L2] {
        let attacks: Vec<AttackSpec> =
            ALL.iter().map(|text| AttackSpec::parse(text, Some(norm), Some(0.0)).unwrap()).collect();
        let (outcome, _) = run(&model, &data, &attacks);
        for (robust, name) in outcome.robust.iter().zip(ALL) {
            assert_eq!(robust, &outcome.clean, "{name} in {norm}");
        }
    }
}

#[test]
fn radii_beyond_a_pixel_are_refused() {
    for text in ["pgd:eps=8", "square:eps=1.01", "fgsm:eps=-0.1", "pgd:eps=nan"] {
        assert!(AttackSpec::parse(text, None, None).is_err(), "{text} was taken");
    }
    // In l2 a radius may be larger than a pixel's range; then any image is inside.
    let model = model();
    let data = data(&model, 4);
    let (outcome, _) = run(&model, &data, &specs(&["pgd:norm=l2,eps=100", "pgd:eps=1"]));
    assert!(outcome.worst_case() < outcome.clean_correct());
}

#[test]
fn one_image_and_none() {
    let model = model();
    let data = data(&model, 2);
    let (outcome, report) = run(&model, &data.limit(1), &specs(&ALL));
    assert_eq!((outcome.clean.len(), report.images), (1, 1));
    assert!(!flags(&report).contains(&"constant-logits"), "one image is no sign");
    let (outcome, report) = run(&model, &data.limit(0), &specs(&ALL));
    assert_eq!((outcome.worst_case(), report.clean.accuracy, report.images), (0, 0.0, 0));
}

#[test]
fn classes_without_images_are_told() {
    let model = model();
    let data = data(&model, 120);
    let absent = (0..CLASSES as u32).filter(|c| !data.labels().contains(c)).count();
    assert!(absent > 0, "random images are of few classes");
    let (outcome, report) = run(&model, &data, &[]);
    assert_eq!(outcome.absent_classes.len(), absent);
    assert!(flags(&report).contains(&"absent-class"), "{:?}", flags(&report));
}

#[test]
fn one_class_is_no_classifier() {
    let mut model = model();
    let head = model.network.head().unwrap();
    let shape = &mut model.network.parameters[head.bias].shape;
    *shape = adamant::Shape::vector(1);
    model.values[head.bias] = adamant::Tensor::new(*shape, vec![0.0]);
    assert!(Session::new(Device::cpu(), &model, 1).is_err());
    assert!(adamant::Architecture::build("resnet8", [3, 32, 32], 1, 0).is_err());
}
