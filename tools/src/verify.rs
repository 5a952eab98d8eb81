//! `adamant verify`: is a package as it was written, and what does it claim?

use adamant::package::{Precision, Provenance, Signature, Verification, verify};
use adamant::{AttackResult, AttackSpec, EvaluationReport, Split, wilson};
use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::Outcome;
use crate::args::{BatchSize, VerifyArgs};
use crate::measure::{Measurement, describe, open_device};
use crate::model::Loaded;
use crate::output::{self, bytes, count, percent, wrap};
use crate::progress::Console;

/// What `--json` writes.
#[derive(Serialize)]
struct Verified<'a> {
    schema: u32,
    file: String,
    sound: bool,
    format: String,
    precision: Precision,
    tensors: usize,
    corrupt: Vec<&'a str>,
    signature: &'a Signature,
    checkpoint: bool,
    provenance: &'a Provenance,
    report: &'a Option<EvaluationReport>,
    /// What --rerun found.
    #[serde(skip_serializing_if = "Option::is_none")]
    again: &'a Option<Vec<Remeasured>>,
}

/// Correct images of a claim, and as measured now.
#[derive(Serialize)]
struct Remeasured {
    what: String,
    claimed: u64,
    measured: u64,
    agrees: bool,
}

pub fn run(args: &VerifyArgs, console: &Console) -> Result<Outcome> {
    let found = verify(&args.file)?;
    let name = args.file.display().to_string();
    if let Some(key) = &args.key {
        check_maker(&name, &found.signature, &read_key(key)?)?;
    }
    let mut corrupt: Vec<&str> = found.tensors.iter().filter(|t| !t.sound).map(|t| t.name.as_str()).collect();
    if !found.skeleton_sound {
        corrupt.push("the ONNX skeleton");
    }
    let mut text = String::new();
    if console.verbose() {
        for tensor in &found.tensors {
            let state = if tensor.sound { "ok" } else { "CORRUPT" };
            let shape = format!("{:?}", tensor.shape);
            text += &format!("{state:<8}{:<40} {shape:<20} {}\n", tensor.name, bytes(tensor.bytes));
        }
    }
    if found.is_sound() {
        text += &(wrap(&summary(&name, &found), 14) + "\n");
    }
    let again = match &args.data {
        Some(data) if corrupt.is_empty() => Some(rerun(args, data, &found, console)?),
        _ => None,
    };
    if let (Some(again), Some(claim)) = (&again, &found.report) {
        text += &comparison(again, claim.images);
    }
    let value = Verified {
        schema: 1,
        file: name.clone(),
        sound: found.is_sound(),
        format: format!("{}.{}", found.format.0, found.format.1),
        precision: found.precision,
        tensors: found.tensors.len(),
        corrupt: corrupt.clone(),
        signature: &found.signature,
        checkpoint: found.is_checkpoint,
        provenance: &found.provenance,
        report: &found.report,
        again: &again,
    };
    output::result(&args.json, &value, &text)?;
    if !corrupt.is_empty() {
        bail!("{name}: corrupt: {}; write or fetch the file again", corrupt.join(", "));
    }
    match again {
        Some(again) if !again.iter().all(|m| m.agrees) => Ok(Outcome::TargetMissed),
        _ => Ok(Outcome::Done),
    }
}

/// Measures a package's claims again, with the same images, attacks and seed.
fn rerun(args: &VerifyArgs, data: &str, found: &Verification, console: &Console) -> Result<Vec<Remeasured>> {
    let Some(claim) = &found.report else {
        bail!(
            "{}: claims nothing to measure again; `adamant package --data` adds claims",
            args.file.display()
        )
    };
    let loaded = Loaded::read(&args.file)?;
    let split = match claim.split.as_str() {
        "train" => Split::Train,
        _ => Split::Test,
    };
    let data = crate::data::open(data, split, Some(claim.images as usize), &loaded.model, console)?;
    if data.len() as u64 != claim.images {
        bail!(
            "{}: has {}; the claims are about {}",
            args.data.as_deref().unwrap_or_default(),
            count(data.len(), "image"),
            count(claim.images as usize, "image")
        );
    }
    let text = |a: &AttackResult| {
        let AttackResult { name, norm, eps, step, steps, restarts, .. } = a;
        // The claim holds doubles of what was measured with floats.
        let (eps, step) = (*eps as f32, *step as f32);
        format!("{name}:norm={norm},eps={eps},step={step},steps={steps},restarts={restarts}")
    };
    let attacks = claim.attacks.iter().map(|a| AttackSpec::parse(&text(a), None, None));
    let attacks = attacks.collect::<adamant::Result<Vec<_>>>()?;
    let device = open_device(&args.device, console)?;
    let batch = BatchSize::Auto.within(args.device.memory_limit, &loaded.model, &device)?;
    let order = adamant::Order::Independent;
    let measurement = Measurement {
        data: &data,
        split: &claim.split,
        attacks: &attacks,
        order,
        batch,
        seed: claim.seed,
        surrogates: &[],
        whole: (data.len(), data.offset()),
    };
    let again = measurement.run(&loaded, device, console, |_, _, _| Ok(()))?.report;
    // Another device rounds differently, and may decide an image or two otherwise.
    let slack = 1 + claim.images / 500;
    let clean = ("clean".to_owned(), claim.clean.correct, again.clean.correct);
    let attacked = claim.attacks.iter().zip(&again.attacks);
    let attacked = attacked.map(|(a, b)| (describe(a), a.robust_correct, b.robust_correct));
    let compared = std::iter::once(clean).chain(attacked);
    Ok(compared
        .map(|(what, claimed, measured)| Remeasured {
            what,
            claimed,
            measured,
            agrees: claimed.abs_diff(measured) <= slack,
        })
        .collect())
}

/// Claims beside what was measured now.
fn comparison(again: &[Remeasured], images: u64) -> String {
    let mut text = format!("\nmeasured again on {images} images\n");
    for Remeasured { what, claimed, measured, agrees } in again {
        let verdict = if *agrees { "as claimed".to_owned() } else { format!("NOT the {claimed} claimed") };
        text += &format!("{what:<46} {measured:>6}  {verdict}\n");
    }
    text
}

/// The public key that the user requires: 64 digits, or a file that holds them.
fn read_key(given: &str) -> Result<String> {
    let is_key = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_key(given) {
        return Ok(given.to_lowercase());
    }
    let text = std::fs::read_to_string(given).with_context(|| given.to_owned())?;
    if !is_key(text.trim()) {
        bail!("{given}: not a public key; it holds 64 hexadecimal digits, as `adamant keygen` writes them");
    }
    Ok(text.trim().to_lowercase())
}

fn check_maker(name: &str, signature: &Signature, key: &str) -> Result<()> {
    match signature {
        Signature::Valid(signer) if signer == key => Ok(()),
        Signature::None => bail!("{name}: not signed; its maker can sign it: `adamant package --sign KEY`"),
        Signature::Valid(signer) | Signature::Invalid(signer) | Signature::Unchecked(signer) => {
            bail!("{name}: signed by {signer}, not by {key}; fetch it from its maker")
        }
    }
}

/// What a sound package is, in words.
fn summary(name: &str, found: &Verification) -> String {
    let total: u64 = found.tensors.iter().map(|t| t.bytes).sum();
    let kind = if found.is_checkpoint { "checkpoint" } else { "package" };
    let mut lines = vec![
        format!("{name}: sound"),
        format!(
            "{kind}:{:width$}format {}.{}, {}, {} of {}",
            "",
            found.format.0,
            found.format.1,
            found.precision.name(),
            count(found.tensors.len(), "tensor"),
            bytes(total),
            width = 13 - kind.len()
        ),
    ];
    if let Signature::Valid(key) = &found.signature {
        lines.push(format!("signed by:    {key}"));
    }
    let from = &found.provenance;
    if !from.source_name.is_empty() {
        lines.push(format!("made from:    {}", from.source_name));
        lines.push(format!("  its BLAKE3  {}", from.source_blake3));
    }
    if !from.recipe.is_empty() {
        let recipe = from.recipe.lines().find_map(|l| l.strip_prefix("name = ")).unwrap_or("a recipe");
        lines.push(format!("trained:      {} on {}", recipe.trim_matches('"'), from.data));
    }
    lines.push(format!("packed by:    Adamant {}", from.adamant_version));
    lines.extend(match &found.report {
        Some(report) => claims(report),
        None => vec!["claims:       none; `adamant package --data` adds some".to_owned()],
    });
    lines.join("\n")
}

fn claims(report: &EvaluationReport) -> Vec<String> {
    let images = count(report.images as usize, "image");
    let share = |accuracy: f64, correct: u64| {
        let [low, high] = wilson(correct, report.images);
        format!("{} (95% confidence: {} to {})", percent(accuracy), percent(low), percent(high))
    };
    let mut lines = vec![format!(
        "claims:       {} of {images} of {} {} are classified correctly",
        share(report.clean.accuracy, report.clean.correct),
        report.data,
        report.split
    )];
    lines.extend(report.attacks.iter().map(|attack| {
        let share = share(attack.robust_accuracy, attack.robust_correct);
        format!("              {share} withstand {}", describe(attack))
    }));
    lines.push(format!("              measured on {}, seed {}", report.device, report.seed));
    lines.extend(report.warnings.iter().map(|warning| format!("warning:      {}", warning.message)));
    lines
}

#[cfg(test)]
mod tests {
    use adamant::{CleanResult, Warning, WorstCase};

    use super::*;

    #[test]
    fn claims_say_how_sure_they_are_and_what_speaks_against_them() {
        let report = EvaluationReport {
            schema: 1,
            model: "x".into(),
            data: "cifar10".into(),
            split: "test".into(),
            images: 60,
            seed: 3,
            device: "cpu".into(),
            clean: CleanResult { correct: 56, accuracy: 56.0 / 60.0 },
            attacks: Vec::new(),
            worst_case: WorstCase { robust_correct: 56, robust_accuracy: 56.0 / 60.0 },
            warnings: vec![Warning { flag: "zero-gradient".into(), message: "gradients vanish".into() }],
        };
        let text = claims(&report).join("\n");
        assert!(
            text.contains("93.3% (95% confidence: 84.1% to 97.4%) of 60 images of cifar10 test"),
            "{text}"
        );
        assert!(text.contains("seed 3"), "{text}");
        assert!(text.contains("warning:      gradients vanish"), "{text}");
    }
}
