//! `adamant evaluate`: clean and robust accuracy.

use adamant::{Corrupted, EvaluationState, Order, PublishedCorruptions};
use anyhow::{Result, bail};

use crate::args::{EvaluateArgs, Suite};
use crate::measure::{Measurement, attacks_of_curve, open_device, parse_attacks};
use crate::model::{Loaded, PreprocessingArgs};
use crate::output::{self, percent};
use crate::progress::Console;
use crate::resume::{self, StateFile};
use crate::{Outcome, corruptions, data};

impl Suite {
    pub const fn attacks(self) -> &'static [&'static str] {
        match self {
            Self::Quick => &["fgsm", "pgd:steps=20"],
            Self::Standard => &["fgsm", "pgd:steps=20", "apgd-ce", "apgd-t"],
            Self::Autoattack => &["apgd-ce", "apgd-t", "fab-t", "square"],
            // In the order of the authors' code, with its restarts.
            Self::AutoattackPlus => {
                &["apgd-ce:restarts=5", "apgd-dlr:restarts=5", "fab:restarts=5", "square", "apgd-t", "fab-t"]
            }
            Self::AutoattackRand => &["apgd-ce", "apgd-dlr"],
            Self::Corruptions => &[],
        }
    }
}

pub fn run(args: &EvaluateArgs, console: &Console) -> Result<Outcome> {
    // What was typed wrong should not cost the time of reading model and data.
    let suite = args.suite.or_else(|| args.attacks.is_empty().then_some(Suite::Quick));
    let mut texts: Vec<&str> = args.attacks.iter().map(String::as_str).collect();
    texts.extend(suite.map_or(&[][..], Suite::attacks));
    let attacks = match args.curve.is_empty() {
        true => parse_attacks(&texts, &args.ball)?,
        false => attacks_of_curve(&texts, &args.ball, &args.curve)?,
    };

    let in_turn = args.in_turn
        || matches!(suite, Some(Suite::Autoattack | Suite::AutoattackPlus | Suite::AutoattackRand));
    let order = if in_turn { Order::InTurn } else { Order::Independent };

    output::check(&args.json)?;
    let loaded = Loaded::open(&args.model, &args.preprocessing, console)?;
    let images = &args.images;
    if let Some(files) = PublishedCorruptions::open(&args.data) {
        let only = args.suite.is_none_or(|suite| suite == Suite::Corruptions) && args.attacks.is_empty();
        if !only || args.shard.is_some() || args.resume {
            bail!("{}: the published images are measured whole, and without attacks", args.data);
        }
        return corruptions::run_published(args, &loaded, &files?, console);
    }
    let all = data::open(&args.data, images.split.split(), images.limit, &loaded.model, console)?;
    let data = match args.shard {
        Some(shard) => all.subset(shard.range(all.len())),
        None => all.clone(),
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
    let own = PreprocessingArgs { mean: args.surrogate_mean.clone(), std: args.surrogate_std.clone() };
    for path in &args.surrogates {
        surrogates.push(Loaded::open_surrogate(path, &own, &args.preprocessing, console)?);
    }
    let device = open_device(&args.device, console)?;
    let batch = images.batch.within(args.device.memory_limit, &loaded.model, &device)?;
    let measurement = Measurement {
        surrogates: &surrogates,
        whole: (all.len(), all.offset()),
        ..Measurement::of(&data, &attacks, images, order, batch)
    };
    let settings = measurement.settings(&loaded, &device)?;
    let (mut file, resume) = StateFile::open(&args.json, args.resume, &settings)?;
    match (&resume, &file) {
        (Some(_), Some(file)) => console.line(&format!("going on from {}", file.path().display())),
        (None, Some(_)) if args.resume => console.note("--resume: nothing was left to go on from"),
        _ => {}
    }
    let path = file.as_ref().map(|file| file.path().to_owned());
    let open = || open_device(&args.device, console);
    let keep = |_: usize, _: usize, _: &[f32]| Ok(());
    let (state, measured) = resume.map_or((None, Vec::new()), |r| (Some(r.state), r.corruptions));
    let mut found =
        measurement.run_from(&loaded, device, console, keep, settings, (&mut file, state), open)?;
    if suite == Some(Suite::Corruptions) {
        if let Some(file) = &mut file {
            file.put(&EvaluationState { outcome: found.outcome.clone(), attempt: u32::MAX, next: 0 })?;
        }
        let made = Corrupted::Made(&data, images.seed);
        let batch = measurement.batch;
        let report = corruptions::measure(&loaded, &made, open()?, batch, console, measured, file.as_mut())?;
        found.corruptions = Some(report);
    }
    let report = &found.report;
    output::result(&args.json, &found, &found.text())?;
    // The result is safe now.
    if let Some(path) = path {
        resume::remove(&path)?;
    }

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
