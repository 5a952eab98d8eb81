//! `adamant merge`: the results of `evaluate --shard I/N` as the one that they are parts of.

use adamant::Outcome as Found;
use anyhow::{Context, Result, bail};

use crate::args::MergeArgs;
use crate::evaluation::{Evaluation, Settings};
use crate::progress::Console;
use crate::{Outcome, output};

pub fn run(args: &MergeArgs, console: &Console) -> Result<Outcome> {
    let mut parts = Vec::new();
    for path in &args.files {
        parts.push((path.display().to_string(), Evaluation::read(path)?));
    }
    let merged = merge(parts, console.command())?;
    for warning in &merged.report.warnings {
        console.warn(&format!("{} [{}]", warning.message, warning.flag));
    }
    output::result(&args.json, &merged, &merged.text())?;
    Ok(Outcome::Done)
}

/// Puts named parts together; they must be all parts of one evaluation.
fn merge(mut parts: Vec<(String, Evaluation)>, command: &[String]) -> Result<Evaluation> {
    parts.sort_by_key(|(_, part)| part.first_image);
    let mut parts = parts.into_iter();
    let (first_name, first) = parts.next().context("there is nothing to merge")?;
    let (model, data) = (first.report.model, first.report.data);
    let surrogates: Vec<String> = first.surrogates.into_iter().map(|s| s.model).collect();
    let (mut settings, mut found): (Settings, Found) = (first.settings, first.outcome);
    let mut next = settings.first_image;
    if next != settings.whole_from {
        bail!("the part with the images from {} to {next} is missing", settings.whole_from);
    }
    next += found.clean.len();
    let mut corrupted = first.corruptions;
    let mut before = first_name.clone();
    for (name, part) in parts {
        // Parts may be computed on different devices; what they differ in is what they are parts of.
        let same = Settings {
            data_blake3: settings.data_blake3.clone(),
            first_image: settings.first_image,
            device: settings.device.clone(),
            ..part.settings.clone()
        };
        let differences = settings.differences(&same);
        if !differences.is_empty() || part.report.data != data {
            let what = if differences.is_empty() { "data".to_owned() } else { differences.join(", ") };
            bail!("{name}: no part of the same evaluation as {first_name}; it differs in {what}");
        }
        match part.first_image {
            at if at < next => bail!("{name} and {before} have images in common; give each part once"),
            at if at > next => bail!("the part with the images from {next} to {at} is missing"),
            _ => {}
        }
        next += part.outcome.clean.len();
        match (&mut corrupted, &part.corruptions) {
            (None, None) => {}
            (Some(mine), Some(theirs)) => mine.append(theirs, settings.classes)?,
            _ => bail!("{name}: only some of the parts have the suite corruptions"),
        }
        found.append(&part.outcome)?;
        settings.data_blake3.extend(part.settings.data_blake3);
        if !settings.device.split(", ").any(|device| device == part.settings.device) {
            settings.device += &format!(", {}", part.settings.device);
        }
        before = name;
    }
    let end = settings.whole_from + settings.of_images;
    if next != end {
        bail!("the part with the images from {next} to {end} is missing");
    }
    let merged = Evaluation::new(found, &model, &surrogates, &data, command, settings);
    Ok(Evaluation { corruptions: corrupted, ..merged })
}

#[cfg(test)]
mod tests {
    use adamant::{AttackSpec, LossRise, Order, Signs};

    use super::*;

    /// Images `from..to` of ten, of which the odd ones withstand.
    fn part(from: usize, to: usize) -> (String, Evaluation) {
        let settings = Settings {
            adamant_version: "1".into(),
            model_blake3: "m".into(),
            mean: vec![0.0],
            std: vec![1.0],
            classes: 10,
            data_blake3: vec![format!("{from}-{to}")],
            of_images: 10,
            first_image: from,
            whole_from: 0,
            attacks: vec![AttackSpec::parse("pgd", None, None).unwrap()],
            surrogates: vec![],
            order: Order::Independent,
            seed: 0,
            split: "test".into(),
            device: "cpu".into(),
        };
        let outcome = Found {
            clean: vec![true; to - from],
            robust: vec![(from..to).map(|n| n % 2 == 1).collect()],
            seconds: vec![0.5],
            signs: Signs { loss_rise: vec![LossRise { sum: 1.0, images: to - from }], ..Signs::default() },
            ..Found::default()
        };
        (format!("part{from}.json"), Evaluation::new(outcome, "m.onnx", &[], "cifar10", &[], settings))
    }

    #[test]
    fn parts_in_any_order_make_the_whole() {
        let whole = part(0, 10).1;
        let merged = merge(vec![part(7, 10), part(0, 4), part(4, 7)], &[]).unwrap();
        assert_eq!(
            (merged.report.clean, &merged.outcome.robust),
            (whole.report.clean, &whole.outcome.robust)
        );
        assert_eq!(merged.report.worst_case, whole.report.worst_case);
        assert_eq!(merged.report.warnings, whole.report.warnings);
        assert_eq!(merged.metrics.sum, whole.metrics.sum);
    }

    #[test]
    fn what_is_no_whole_is_refused() {
        let message = |parts| merge(parts, &[]).err().expect("refused").to_string();
        assert!(message(vec![part(0, 4), part(7, 10)]).contains("from 4 to 7 is missing"));
        assert!(message(vec![part(4, 10)]).contains("from 0 to 4 is missing"));
        assert!(message(vec![part(0, 4)]).contains("from 4 to 10 is missing"));
        assert!(message(vec![part(0, 4), part(3, 10)]).contains("in common"));
        assert!(message(vec![part(0, 10), part(0, 10)]).contains("in common"));
        let mut other = part(4, 10);
        other.1.settings.seed = 1;
        assert!(message(vec![part(0, 4), other]).contains("differs in seed"));
    }
}
