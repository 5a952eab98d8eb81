//! Attacks a model: how many digits does it still read when each pixel may change a little?

use std::sync::atomic::AtomicBool;

use adamant::{
    AttackSpec, Dataset, Device, DeviceChoice, EvaluateOptions, OpenOptions, Session, Split, evaluate, import,
};

fn main() -> anyhow::Result<()> {
    let model = import("examples/data/digits_resnet8.onnx".as_ref())?;
    let digits =
        Dataset::open("mnist:examples/data/digits", Split::Test, &OpenOptions::default())?.limit(200);
    let mut session = Session::new(Device::open(&DeviceChoice::Auto)?, &model, 100)?;

    for eps in [0.02, 0.05, 0.1] {
        let attacks = [AttackSpec::parse("pgd:steps=20", None, Some(eps))?];
        let stop = AtomicBool::new(false);
        let options = EvaluateOptions { attacks: &attacks, batch: 100, seed: 0, stop: &stop };
        let outcome = evaluate(&mut session, &digits, &options, |_| {})?;
        println!(
            "eps {eps}: {} of {} read clean, {} under PGD-20",
            outcome.clean_correct(),
            digits.len(),
            outcome.robust_correct(0)
        );
    }
    Ok(())
}
