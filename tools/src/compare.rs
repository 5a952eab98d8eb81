//! `adamant compare`: several methods from the same start, on the same images, with the same seed.

use adamant::finetune::{EpochMetrics, On, RunDirectory, mean_cosine};
use adamant::{Dataset, Error, Order, Session, Tradeoff};
use anyhow::Result;
use serde::Serialize;

use crate::args::{BallArgs, BatchSize, CompareArgs, FinetuneArgs, ImagesArgs, SplitName, Suite};
use crate::measure::{Measurement, open_device, parse_attacks};
use crate::model::Loaded;
use crate::output::{self, duration, percent};
use crate::progress::Console;
use crate::settings;
use crate::{Outcome, data, finetune};

#[derive(Serialize)]
struct Comparison {
    schema: u32,
    model: String,
    data: String,
    /// Test images that everything is measured on.
    images: u64,
    seed: u64,
    rows: Vec<Row>,
    command: Vec<String>,
}

/// A method, or the model before any.
#[derive(Default, Serialize)]
struct Row {
    recipe: String,
    /// Absent where training diverged.
    #[serde(flatten)]
    measured: Option<Measured>,
    /// Why nothing is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    diverged: Option<String>,
    /// Of training.
    seconds: f64,
    epochs: usize,
}

#[derive(Serialize)]
struct Measured {
    /// Accuracies, 0 to 1.
    clean: f64,
    pgd20: f64,
    /// With --autoattack.
    #[serde(skip_serializing_if = "Option::is_none")]
    autoattack: Option<f64>,
    /// Clean and robust accuracy, of the strongest attack measured.
    sum: f64,
    /// Distance from the published trade-off, in points; it is defined for AutoAttack, on CIFAR.
    #[serde(skip_serializing_if = "Option::is_none")]
    ardist: Option<f64>,
    /// Mean cosine between what the last, linear layer sees of a clean image and what it saw before, -1 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    cosine: Option<f64>,
}

pub fn run(args: &CompareArgs, console: &Console) -> Result<Outcome> {
    // What was typed wrong should not cost hours.
    for name in &args.recipes {
        settings::recipe(name, &[], &args.run)?;
    }
    let start = Loaded::open(&args.model, &args.run.preprocessing, console)?;
    let images =
        data::open(&args.run.data, SplitName::Test.split(), Some(args.images), &start.model, console)?;
    let on = On::of(&images.name, &start.model.network);
    let mut radius = None;
    for name in &args.recipes {
        let eps = settings::recipe(name, &on, &args.run)?.attack.radius();
        radius = radius.or(Some(eps).filter(|&eps| eps > 0.0));
    }
    let eps = args.measure_eps.or(radius).unwrap_or(8.0 / 255.0);
    let before = features(args, &start, &images, console)?;
    let measured = Some(measure(args, eps, &start, &images, console)?);
    let mut rows = vec![Row { recipe: "before".to_owned(), measured, ..Row::default() }];
    for name in &args.recipes {
        let mut run = args.run.clone();
        run.out = args.run.out.join(name.replace(['/', '.'], "-"));
        run.json.json = None;
        run.resume = RunDirectory::open(&run.out).is_ok_and(|d| d.checkpoint().exists());
        console.line(&format!("\n{name}"));
        let finetune = FinetuneArgs { model: args.model.clone(), recipe: Some(name.clone()), run };
        let trained = finetune::train(&finetune, console);
        if let Some(why) = divergence(&trained) {
            console.warn(&format!("{name}: {why}"));
            rows.push(Row { recipe: name.clone(), diverged: Some(why), ..Row::default() });
            continue;
        }
        trained?;
        let hardened = Loaded::read(&finetune.run.out)?;
        let metrics = RunDirectory::open(&finetune.run.out)?.read_metrics()?;
        let epochs = metrics.lines().map(serde_json::from_str).collect::<Result<Vec<EpochMetrics>, _>>()?;
        let mut measured = measure(args, eps, &hardened, &images, console)?;
        if let Some(before) = &before {
            let now = features(args, &hardened, &images, console)?;
            measured.cosine = now.map(|now| mean_cosine(&now, before, images.len()));
        }
        rows.push(Row {
            recipe: name.clone(),
            measured: Some(measured),
            seconds: epochs.iter().map(|e| e.seconds).sum(),
            epochs: epochs.len(),
            ..Row::default()
        });
    }
    let found = Comparison {
        schema: 1,
        model: start.name,
        data: args.run.data.clone(),
        images: images.len() as u64,
        seed: args.run.seed.unwrap_or(0),
        rows,
        command: console.command().to_vec(),
    };
    output::result(&args.run.json, &found, &text(&found, eps))?;
    Ok(Outcome::Done)
}

/// What a run says whose loss left the range of f32: a result like others, where methods are compared.
fn divergence(trained: &Result<()>) -> Option<String> {
    match trained.as_ref().err()?.downcast_ref()? {
        Error::NonFinite(why) => Some(why.clone()),
        _ => None,
    }
}

/// What the last layer sees of the images, row by row; nothing where it is not linear.
fn features(
    args: &CompareArgs,
    loaded: &Loaded,
    data: &Dataset,
    console: &Console,
) -> Result<Option<Vec<f32>>> {
    let model = &loaded.model;
    if model.network.head().is_none() {
        return Ok(None);
    }
    let device = open_device(&args.run.device, console)?;
    let batch = args.run.batch.unwrap_or(BatchSize::Auto);
    let batch = batch.within(args.run.device.memory_limit, model, &device)?;
    let mut session = Session::new(device, model, batch.min(data.len()).max(1))?;
    Ok(Some(adamant::finetune::features(&mut session, data, None)?))
}

fn measure(
    args: &CompareArgs,
    eps: f32,
    loaded: &Loaded,
    data: &Dataset,
    console: &Console,
) -> Result<Measured> {
    let ball = BallArgs { norm: None, eps: Some(eps) };
    let images = ImagesArgs {
        split: SplitName::Test,
        limit: Some(args.images),
        batch: args.run.batch.unwrap_or(BatchSize::Auto),
        seed: args.run.seed.unwrap_or(0),
    };
    let robust = |attacks: &[&str], order| -> Result<[f64; 2]> {
        let attacks = parse_attacks(attacks, &ball)?;
        let device = open_device(&args.run.device, console)?;
        let batch = images.batch.within(args.run.device.memory_limit, &loaded.model, &device)?;
        let measurement = Measurement::of(data, &attacks, &images, order, batch);
        let report = measurement.run(loaded, device, console, |_, _, _| Ok(()))?.report;
        Ok([report.clean.accuracy, report.worst_case.robust_accuracy])
    };
    let [clean, pgd20] = robust(&["pgd:steps=20"], Order::Independent)?;
    let autoattack = match args.autoattack {
        true => Some(robust(Suite::Autoattack.attacks(), Order::InTurn)?[1]),
        false => None,
    };
    let tradeoff = Tradeoff::of(&data.name);
    let distance = |robust: f64| tradeoff.map(|t| t.distance(100.0 * clean, 100.0 * robust).distance);
    Ok(Measured {
        clean,
        pgd20,
        autoattack,
        sum: clean + autoattack.unwrap_or(pgd20),
        ardist: autoattack.and_then(distance),
        cosine: None,
    })
}

/// Titles of the columns, and how wide they are.
const COLUMNS: [(&str, usize); 7] =
    [("clean", 8), ("PGD-20", 8), ("AutoAttack", 12), ("sum", 7), ("ARDist", 8), ("cosine", 8), ("time", 9)];

fn cells(row: &Row) -> [Option<String>; 7] {
    let measured = row.measured.as_ref();
    [
        Some(measured.map_or_else(|| "diverged".to_owned(), |m| percent(m.clean))),
        measured.map(|m| percent(m.pgd20)),
        measured.and_then(|m| m.autoattack).map(percent),
        measured.map(|m| format!("{:.1}", 100.0 * m.sum)),
        measured.and_then(|m| m.ardist).map(|d| format!("{d:.2}")),
        measured.and_then(|m| m.cosine).map(|c| format!("{c:.3}")),
        (row.epochs > 0).then(|| duration(row.seconds)),
    ]
}

fn text(found: &Comparison, eps: f32) -> String {
    let width = found.rows.iter().map(|row| row.recipe.len() + 1).max().unwrap_or(0).max(18);
    let rows: Vec<_> = found.rows.iter().map(|row| (row.recipe.as_str(), cells(row))).collect();
    // A column that says nothing of any row is left out.
    let is_shown = |column: usize| rows.iter().any(|(_, cells)| cells[column].is_some());
    let line = |name: &str, cells: [Option<String>; 7]| {
        let mut line = format!("{name:<width$}");
        for (column, (cell, (_, width))) in cells.into_iter().zip(COLUMNS).enumerate() {
            if is_shown(column) {
                line += &format!("{:>width$}", cell.as_deref().unwrap_or("-"));
            }
        }
        line + "\n"
    };
    let mut text = format!(
        "{} on {} test images, eps {}\n\n",
        found.model,
        found.images,
        output::pixels(f64::from(eps))
    );
    text += &line("", COLUMNS.map(|(title, _)| Some(title.to_owned())));
    for (name, cells) in &rows {
        text += &line(name, cells.clone());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_a_terminal() {
        let measured = || Measured {
            clean: 1.0,
            pgd20: 1.0,
            autoattack: Some(1.0),
            sum: 2.0,
            ardist: Some(-12.34),
            cosine: Some(-0.123),
        };
        let row = |recipe: &str, measured: Option<Measured>| Row {
            recipe: recipe.to_owned(),
            measured,
            seconds: 359_999.0,
            epochs: 1,
            ..Row::default()
        };
        let found = Comparison {
            schema: 1,
            model: "m.onnx".into(),
            data: "cifar10:data".into(),
            images: 10_000,
            seed: 0,
            rows: vec![row("before", Some(measured())), row("interpolated-at", None)],
            command: Vec::new(),
        };
        let text = text(&found, 8.0 / 255.0);
        assert!(text.lines().all(|line| line.chars().count() <= output::WIDTH), "{text}");
    }
}
