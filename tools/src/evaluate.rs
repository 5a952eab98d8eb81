//! `adamant evaluate`: clean and robust accuracy.

use adamant::Order;
use anyhow::Result;

use crate::args::{EvaluateArgs, Suite};
use crate::measure::{Measurement, Printed, open_device, parse_attacks, table};
use crate::model::Loaded;
use crate::output::{self, percent};
use crate::progress::Console;
use crate::{Outcome, data};

impl Suite {
    const fn attacks(self) -> &'static [&'static str] {
        match self {
            Self::Quick => &["fgsm", "pgd:steps=20"],
            Self::Standard => &["fgsm", "pgd:steps=20", "apgd-ce", "apgd-t"],
        }
    }
}

pub fn run(args: &EvaluateArgs, console: &Console) -> Result<Outcome> {
    // What was typed wrong should not cost the time of reading model and data.
    let mut attacks = parse_attacks(&args.attacks, &args.ball)?;
    let suite = args.suite.or_else(|| attacks.is_empty().then_some(Suite::Quick));
    attacks.extend(parse_attacks(suite.map_or(&[], Suite::attacks), &args.ball)?);

    let order = if args.in_turn { Order::InTurn } else { Order::Independent };

    let loaded = Loaded::open(&args.model, &args.preprocessing, console)?;
    let images = &args.images;
    let data = data::open(&args.data, images.split.split(), images.limit, &loaded.model, console)?;
    let device = open_device(&args.device.device, console)?;
    let measurement = Measurement {
        data: &data,
        split: images.split.name(),
        attacks: &attacks,
        order,
        batch: images.batch.resolve(data.shape),
        seed: images.seed,
    };
    let report = measurement.run(&loaded, device, console, |_, _, _| Ok(()))?;
    output::result(&args.json, &Printed::new(&report, order, data.offset()), &table(&report))?;

    let targets = [
        ("--require-accuracy", args.require_accuracy, "clean accuracy", report.clean.accuracy),
        ("--require-robust", args.require_robust, "robust accuracy", report.worst_case.robust_accuracy),
    ];
    let mut outcome = Outcome::Done;
    for (flag, target, what, found) in targets {
        if let Some(target) = target.filter(|&target| found < target) {
            console.warn(&format!(
                "{flag} not met: the {what} is {}, {} was asked for",
                percent(found),
                percent(target)
            ));
            outcome = Outcome::TargetMissed;
        }
    }
    Ok(outcome)
}
