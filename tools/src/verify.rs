//! `adamant verify`: is a package as it was written, and what does it claim?

use adamant::EvaluationReport;
use adamant::package::{Provenance, Verification, verify};
use anyhow::{Result, bail};
use serde::Serialize;

use crate::Outcome;
use crate::args::VerifyArgs;
use crate::measure::describe;
use crate::output::{self, bytes, count, percent, wrap};
use crate::progress::Console;

/// What `--json` writes.
#[derive(Serialize)]
struct Verified<'a> {
    schema: u32,
    file: String,
    sound: bool,
    format: String,
    tensors: usize,
    corrupt: Vec<&'a str>,
    checkpoint: bool,
    provenance: &'a Provenance,
    report: &'a Option<EvaluationReport>,
}

pub fn run(args: &VerifyArgs, console: &Console) -> Result<Outcome> {
    let found = verify(&args.file)?;
    let name = args.file.display().to_string();
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
    let value = Verified {
        schema: 1,
        file: name.clone(),
        sound: found.is_sound(),
        format: format!("{}.{}", found.format.0, found.format.1),
        tensors: found.tensors.len(),
        corrupt: corrupt.clone(),
        checkpoint: found.is_checkpoint,
        provenance: &found.provenance,
        report: &found.report,
    };
    output::result(&args.json, &value, &text)?;
    if !corrupt.is_empty() {
        bail!("{name}: corrupt: {}; write or fetch the file again", corrupt.join(", "));
    }
    Ok(Outcome::Done)
}

/// What a sound package is, in words.
fn summary(name: &str, found: &Verification) -> String {
    let total: u64 = found.tensors.iter().map(|t| t.bytes).sum();
    let kind = if found.is_checkpoint { "checkpoint" } else { "package" };
    let mut lines = vec![
        format!("{name}: sound"),
        format!(
            "{kind}:{:width$}format {}.{}, {} of {}",
            "",
            found.format.0,
            found.format.1,
            count(found.tensors.len(), "tensor"),
            bytes(total),
            width = 13 - kind.len()
        ),
    ];
    let from = &found.provenance;
    if !from.source_name.is_empty() {
        lines.push(format!("made from:    {}", from.source_name));
        lines.push(format!("  its BLAKE3  {}", from.source_blake3));
    }
    if !from.recipe.is_empty() {
        let recipe = from.recipe.lines().find_map(|l| l.strip_prefix("name = ")).unwrap_or("a recipe");
        lines.push(format!("trained:      {} on {}", recipe.trim_matches('"'), from.data));
    }
    lines.extend(match &found.report {
        Some(report) => claims(report),
        None => vec!["claims:       none; `adamant package --data` adds some".to_owned()],
    });
    lines.join("\n")
}

fn claims(report: &EvaluationReport) -> Vec<String> {
    let images = count(report.images as usize, "image");
    let mut lines = vec![format!(
        "claims:       {} of {images} of {} {} are classified correctly",
        percent(report.clean.accuracy),
        report.data,
        report.split
    )];
    lines.extend(report.attacks.iter().map(|attack| {
        format!("              {} withstand {}", percent(attack.robust_accuracy), describe(attack))
    }));
    lines.push(format!("              measured on {}, seed {}", report.device, report.seed));
    lines
}
