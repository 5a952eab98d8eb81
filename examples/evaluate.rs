//! Measures a model so that the numbers can be quoted: with an interval, with the attack's settings, and with
//! the signs that a stronger attack might find more.

use std::sync::atomic::AtomicBool;

use adamant::{
    AttackSpec, Dataset, Device, DeviceChoice, EvaluateOptions, OpenOptions, ReportContext, Session, Split,
    evaluate, import, wilson,
};

fn main() -> anyhow::Result<()> {
    let model = import("examples/data/digits_resnet8.onnx".as_ref())?;
    let digits =
        Dataset::open("mnist:examples/data/digits", Split::Test, &OpenOptions::default())?.limit(200);
    let device = Device::open(&DeviceChoice::Auto)?;
    let name = device.name();
    let mut session = Session::new(device, &model, 100)?;

    // The worst of several attacks counts, image by image.
    let attacks = ["fgsm", "pgd:steps=20", "apgd-ce:steps=20"];
    let attacks = attacks.map(|text| AttackSpec::parse(text, None, Some(0.05)));
    let attacks = attacks.into_iter().collect::<adamant::Result<Vec<_>>>()?;
    let stop = AtomicBool::new(false);
    let options = EvaluateOptions { attacks: &attacks, batch: 100, seed: 0, stop: &stop };
    let outcome = evaluate(&mut session, &digits, &options, |progress| {
        eprint!("\r{:.0}% ", 100.0 * progress.fraction);
    })?;
    eprintln!();
    let context = ReportContext {
        model: "digits_resnet8.onnx",
        data: &digits.name,
        split: "test",
        seed: 0,
        device: &name,
        classes: session.classes(),
    };

    // The same report travels in a package and is what `adamant evaluate --json` writes.
    let report = outcome.report(&attacks, &context);
    let part = |correct: u64| {
        let [low, high] = wilson(correct, report.images);
        let accuracy = correct as f64 / report.images as f64;
        format!("{:.1}% (95%: {:.1}% to {:.1}%)", 100.0 * accuracy, 100.0 * low, 100.0 * high)
    };
    println!("clean: {}", part(report.clean.correct));
    for attack in &report.attacks {
        println!("{} at eps {}: {}", attack.name, attack.eps as f32, part(attack.robust_correct));
    }
    println!("all of them: {}", part(report.worst_case.robust_correct));
    for warning in &report.warnings {
        println!("{}: {}", warning.flag, warning.message);
    }
    Ok(())
}
