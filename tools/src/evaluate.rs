//! `adamant evaluate`: clean and robust accuracy.

use adamant::Order;
use anyhow::{Result, bail};

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
            Self::Autoattack => &["apgd-ce", "apgd-t", "fab-t", "square"],
        }
    }
}

pub fn run(args: &EvaluateArgs, console: &Console) -> Result<Outcome> {
    // What was typed wrong should not cost the time of reading model and data.
    let mut attacks = parse_attacks(&args.attacks, &args.ball)?;
    let suite = args.suite.or_else(|| attacks.is_empty().then_some(Suite::Quick));
    attacks.extend(parse_attacks(suite.map_or(&[], Suite::attacks), &args.ball)?);

    let in_turn = args.in_turn || suite == Some(Suite::Autoattack);
    let order = if in_turn { Order::InTurn } else { Order::Independent };

    let loaded = Loaded::open(&args.model, &args.preprocessing, console)?;
    let images = &args.images;
    let data = data::open(&args.data, images.split.split(), images.limit, &loaded.model, console)?;
    let data = match args.shard {
        Some(shard) => data.subset(shard.range(data.len())),
        None => data,
    };
    if data.is_empty() {
        bail!("--shard: this part has no images; use fewer parts");
    }
    if !args.surrogates.is_empty() && order == Order::InTurn {
        bail!(
            "--surrogate: attacks in turn are those of MODEL alone; leave out --in-turn and the suite autoattack"
        );
    }
    let mut surrogates = Vec::new();
    for path in &args.surrogates {
        surrogates.push(Loaded::open(path, &args.preprocessing, console)?);
    }
    let device = open_device(&args.device, console)?;
    let measurement = Measurement {
        data: &data,
        split: images.split.name(),
        attacks: &attacks,
        order,
        batch: images.batch.within(args.device.memory_limit, &loaded.model, device.is_cpu())?,
        seed: images.seed,
    };
    let open = || open_device(&args.device, console);
    let report = measurement.run_with(&loaded, device, console, |_, _, _| Ok(()), &surrogates, open)?;
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
