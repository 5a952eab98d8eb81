//! The page itself. It needs nothing but itself: no network, no scripts.

use adamant::{EvaluationReport, Order, wilson};
use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{Axis, Series, histogram, plot};
use super::comparison::file_name;
use super::inputs::{Inputs, Measured, Run};
use super::{analysis, comparison, corrupted, methods, pictures, warnings};
use crate::evaluation::is_autoattack;
use crate::measure::{describe, first_of};
use crate::output::{count, duration, percent, pixels, shell};

const STYLE: &str = include_str!("style.css");

pub fn page(inputs: &Inputs, command: &[String]) -> Result<String> {
    // The last result that was given is what the report is about.
    let subject = inputs.measured.last().map(|m| &m.report);
    let title = subject.map_or("Adamant report", |r| file_name(&r.model));
    let mut runs = Vec::new();
    for run in &inputs.runs {
        runs.push(html! {
            (training(run))
            @if let Some(found) = &run.analysis { (analysis::section(found, &run.path)?) }
        });
    }
    let mut grids = Vec::new();
    for saved in &inputs.pictures {
        grids.push(pictures::grid(saved)?);
    }
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content=(concat!("adamant ", env!("CARGO_PKG_VERSION")));
                title { (title) " · Adamant" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                @if let Some(report) = subject { (claim(report)) }
                @else if let Some(one) = inputs.published.last() { (corrupted::claim(one)) }
                @else if let Some(one) = inputs.compared.last() { (methods::claim(one)) }
                @else { h1 { "What training did" } }
                @for measured in &inputs.measured { (doubts(&measured.report, inputs.measured.len() > 1)) }
                @if inputs.measured.len() > 1 { (comparison::side_by_side(&inputs.measured)) }
                @if !inputs.measured.is_empty() {
                    h2 { "Accuracy" }
                    @for measured in &inputs.measured { (accuracies(measured)) }
                }
                (curves(&inputs.measured))
                (comparison::tradeoff(&inputs.measured))
                @for one in &inputs.compared { (methods::section(one)) }
                (corrupted::section(&inputs.measured, &inputs.published))
                @if !grids.is_empty() {
                    h2 { "What an attack does to an image" }
                    @for grid in grids { (grid) }
                }
                @if !inputs.runs.is_empty() {
                    h2 { "Training" }
                    @for run in &runs { (run) }
                }
                (repeat(inputs, command))
            }
        }
    };
    Ok(markup.into_string())
}

/// What an attacker may do, in words.
fn power(report: &EvaluationReport) -> String {
    let radius = report.attacks.iter().map(|a| a.eps).fold(0.0, f64::max);
    let norms: Vec<&str> = report.attacks.iter().map(|a| a.norm.as_str()).collect();
    match norms.first() {
        Some(&"linf") if norms.iter().all(|&n| n == "linf") => {
            format!("when every pixel may change by up to {}", pixels(radius))
        }
        Some(&"l2") if norms.iter().all(|&n| n == "l2") => {
            format!("when the image may change by up to {} in l2 distance", pixels(radius))
        }
        _ => "under all of the attacks below".to_owned(),
    }
}

/// The first line: what the model can do, and how far that is to be trusted.
fn claim(report: &EvaluationReport) -> Markup {
    let images = report.images;
    let part = |accuracy: f64| percent(accuracy);
    let interval = |correct| {
        let [low, high] = wilson(correct, images);
        format!("{} to {}", percent(low), percent(high))
    };
    let auto = is_autoattack(&report.attacks);
    html! {
        h1 {
            (file_name(&report.model)) " gets " strong { (part(report.clean.accuracy)) } " of "
            (count(images as usize, "image")) " right"
            @if !report.attacks.is_empty() {
                ", and " strong { (part(report.worst_case.robust_accuracy)) } " " (power(report))
            }
            "."
        }
        p.quiet {
            "Images: the " (report.split) " half of " (report.data) ". With 95% confidence the accuracy on all such "
            "images is " (interval(report.clean.correct))
            @if !report.attacks.is_empty() { ", and " (interval(report.worst_case.robust_correct)) " under attack" }
            ". "
            @if report.attacks.is_empty() { "Nothing was attacked: this says nothing about robustness." }
            @else if auto {
                "Measured with the four attacks of AutoAttack. What withstands them is still an upper bound: a "
                "stronger attack may find more."
            }
            @else {
                "This is an upper bound: a stronger attack finds more. Run " code { "evaluate --suite autoattack" }
                " before you publish it."
            }
        }
    }
}

fn doubts(report: &EvaluationReport, several: bool) -> Markup {
    html! {
        @for warning in &report.warnings {
            div.warning {
                p {
                    b { (warning.flag) }
                    @if several { " (" (report.model) ")" }
                    ": " (warning.message) "."
                }
                @if let Some(known) = warnings::explain(&warning.flag) {
                    p { "What it means: " (known.means) "." }
                    p { "What to do: " (known.remedy) "." }
                }
            }
        }
    }
}

fn accuracies(measured: &Measured) -> Markup {
    let report = &measured.report;
    let surrogates = measured.full.as_ref().map_or(&[][..], |full| &full.surrogates);
    let row = |name: &str, class: &str, correct: u64, accuracy: f64, seconds: Option<f64>| {
        let [low, high] = wilson(correct, report.images);
        html! {
            tr class=(class) {
                td { (name) }
                td.n { (percent(accuracy)) }
                td.n { (percent(low)) "–" (percent(high)) }
                td.n.wide { (correct) "/" (report.images) }
                td.n.wide { @if let Some(seconds) = seconds { (duration(seconds)) } }
            }
        }
    };
    html! {
        h3 { (report.model) }
        div.scroll {
            table {
                thead { tr {
                    th { "" } th.n { "right" } th.n { "95% interval" } th.n.wide { "images" } th.n.wide { "time" }
                } }
                tbody {
                    (row("clean", "", report.clean.correct, report.clean.accuracy, None))
                    @for (i, attack) in report.attacks.iter().enumerate() {
                        @if let Some(surrogate) = first_of(i, report.attacks.len(), surrogates) {
                            tr { td.quiet colspan="5" { (surrogate) ":" } }
                        }
                        (row(&describe(attack), "", attack.robust_correct, attack.robust_accuracy, Some(attack.seconds)))
                    }
                    @if report.attacks.len() > 1 {
                        @let worst = &report.worst_case;
                        (row("worst of these for each image", "worst", worst.robust_correct, worst.robust_accuracy, None))
                    }
                }
            }
        }
        @if let Some(missing) = &measured.missing { p.quiet { "Not all is shown: " (missing) "." } }
        @if let Some(full) = &measured.full {
            @for (attack, distance) in report.attacks.iter().zip(&full.metrics.distances) {
                @if let Some(adamant::Distance { found, mean, median }) = distance {
                    p.quiet {
                        (attack.name) " found " (count(*found, "image")) " at distances (" (attack.norm) ") of "
                        (format!("{median:.4} (median) and {mean:.4} (mean)")) "."
                    }
                }
            }
            @if full.order == Order::InTurn {
                p.quiet { "Each attack met only the images that withstood those above it." }
            }
            @if let Some(sum) = full.metrics.sum {
                p.quiet {
                    "Sum of clean and attacked: " (format!("{sum:.1}")) ". "
                    @if let Some(ardist) = full.metrics.ardist { (distance(&ardist, full.metrics.ardist_attacks)) }
                }
            }
        }
    }
}

fn distance(ardist: &adamant::Ardist, comparable: bool) -> String {
    let [low, high] = ardist.curve.range();
    match (ardist.in_range, comparable) {
        (true, true) => format!("ARDist, the distance from published trade-offs: {:+.3}.", ardist.distance),
        (false, _) => {
            format!("ARDist is not meaningful here: its curve is of clean accuracies from {low}% to {high}%.")
        }
        (true, false) => format!(
            "ARDist would be {:+.3}, but its curve is of AutoAttack at linf 8/255, which this is not.",
            ardist.distance
        ),
    }
}

fn curves(measured: &[Measured]) -> Markup {
    let mut charts = Vec::new();
    for norm in ["linf", "l2"] {
        let found: Vec<_> = measured
            .iter()
            .filter_map(|m| Some((m, m.full.as_ref()?.metrics.curves.iter().find(|c| c.norm == norm)?)))
            .collect();
        if found.is_empty() {
            continue;
        }
        let most = found.iter().flat_map(|(_, c)| &c.points).map(|p| p.eps).fold(0.0, f64::max);
        let mut ticks: Vec<(f64, String)> =
            found.iter().flat_map(|(_, c)| &c.points).map(|p| (p.eps, pixels(p.eps))).collect();
        ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
        ticks.dedup_by(|a, b| (a.0 - b.0).abs() < 1e-9);
        let x = Axis { label: format!("radius of the attack, {norm}"), from: 0.0, to: most, ticks };
        let series: Vec<Series> = found
            .iter()
            .map(|(m, curve)| Series {
                bands: curve.points.iter().map(|p| (p.interval[0], p.interval[1])).collect(),
                ..Series::line(
                    m.report.model.clone(),
                    curve.points.iter().map(|p| (p.eps, p.robust_accuracy)).collect(),
                )
            })
            .collect();
        let expected: Vec<String> = found
            .iter()
            .map(|(m, curve)| format!("{}: {}", m.report.model, percent(curve.expected)))
            .collect();
        charts.push(html! {
            (plot(&format!("Robust accuracy by radius, {norm}"), &x, &Axis::percent("robust accuracy"), &series))
            p.quiet {
                "Expected robustness, the mean over all radii from 0 to " (pixels(most)) ": " (expected.join("; "))
                ". Shaded: 95% confidence."
            }
        });
    }
    html! {
        @if !charts.is_empty() {
            h2 { "How robustness falls with the radius" }
            @for chart in charts { (chart) }
        }
    }
}

fn training(run: &Run) -> Markup {
    let at = |value: &dyn Fn(&adamant::finetune::EpochMetrics) -> Option<f64>| -> Vec<(f64, f64)> {
        run.epochs.iter().filter_map(|m| Some((f64::from(m.epoch), value(m)?))).collect()
    };
    let last = run.epochs.last().map_or(1, |m| m.epoch);
    let every = last.div_ceil(10).max(1);
    let ticks =
        || (1..=last).filter(|e| e % every == 0 || *e == 1).map(|e| (f64::from(e), e.to_string())).collect();
    let epochs = || Axis { label: "epoch".into(), from: 1.0, to: f64::from(last.max(2)), ticks: ticks() };
    let accuracies = [
        ("validation, clean", at(&|m| m.clean_accuracy)),
        ("validation, attacked", at(&|m| m.robust_accuracy)),
        ("training images", at(&|m| Some(m.train_accuracy))),
    ];
    let series: Vec<Series> = accuracies
        .into_iter()
        .filter(|(_, points)| !points.is_empty())
        .map(|(name, points)| Series::line(name, points))
        .collect();
    let losses = at(&|m| Some(m.loss));
    let rates = at(&|m| Some(m.lr));
    let radii = at(&|m| Some(m.mean_eps * 255.0));
    let cosines = [
        ("clean images", at(&|m| Some(m.cosine?.clean))),
        ("attacked images", at(&|m| Some(m.cosine?.adversarial))),
    ];
    let quartile = |k: usize| at(&|m| Some(f64::from(m.eps_quartiles?[k]) * 255.0));
    let small = |v: f64| {
        if v.abs() < 1e-3 && v != 0.0 { format!("{v:.0e}") } else { format!("{}", (v * 1e4).round() / 1e4) }
    };
    let round = |v: f64| format!("{}", (v * 1000.0).round() / 1000.0);
    let one = |title: &str, points: Vec<(f64, f64)>, text: &dyn Fn(f64) -> String| {
        let y = Axis::around("", points.iter().map(|p| p.1), text);
        plot(title, &epochs(), &y, &[Series::line(title, points)])
    };
    let recipe = &run.settings.recipe;
    let changes = radii.windows(2).any(|w| w[0].1 != w[1].1);
    html! {
        h3 { (run.path) }
        p.quiet {
            (run.settings.run.command) " of " (run.settings.run.model) " by recipe " b { (recipe.name) } " on "
            (run.settings.run.data) ", " (count(run.epochs.len(), "epoch")) ", "
            (duration(run.epochs.iter().map(|m| m.seconds).sum())) "."
            @for undone in run.epochs.iter().filter(|m| m.rolled_back) {
                " In epoch " (undone.epoch) " robustness collapsed: the guard undid it, and the run of "
                (count(recipe.epochs as usize, "epoch")) " ended there."
            }
        }
        @if !run.epochs.is_empty() {
            div.charts {
                (plot("Accuracy after each epoch", &epochs(), &Axis::percent("accuracy"), &series))
                (one("Training loss", losses, &round))
                (one("Learning rate", rates, &small))
                @if changes { (one("Mean radius that images were attacked in, in 255ths", radii, &round)) }
                @if !quartile(2).is_empty() {
                    @let all = || [0, 4].into_iter().flat_map(quartile).map(|p| p.1);
                    @let band = quartile(1).iter().zip(quartile(3)).map(|(a, b)| (a.1, b.1)).collect();
                    (plot(
                        "Radii kept of the training images, in 255ths",
                        &epochs(),
                        &Axis::around("", all(), round),
                        &[
                            Series { bands: band, ..Series::line("median, and the half around it", quartile(2)) },
                            Series::line("largest", quartile(4)),
                            Series::line("smallest", quartile(0)),
                        ],
                    ))
                }
                @if !cosines[0].1.is_empty() {
                    @let all = cosines.iter().flat_map(|c| &c.1).map(|p| p.1);
                    (plot(
                        "Cosine to the features of the start",
                        &epochs(),
                        &Axis::around("", all.chain([1.0]), round).up_to(1.0),
                        &cosines.iter().map(|(n, p)| Series::line(*n, p.clone())).collect::<Vec<_>>(),
                    ))
                }
                @if !run.radii.is_empty() {
                    (histogram("Radius of each training image, in 255ths", "radius", &run.radii, |v| {
                        format!("{:.1}", 255.0 * v)
                    }))
                }
            }
            @if changes && !quartile(2).is_empty() {
                p.quiet {
                    "An image may be attacked in another radius than is kept of it: iaat leaves misclassified ones as \
                     they are, which counts as 0, and daat keeps that of the next epoch."
                }
            }
        }
    }
}

fn repeat(inputs: &Inputs, command: &[String]) -> Markup {
    let trained = |run: &Run| {
        let settings = &run.settings.run;
        let mut words = vec!["adamant".to_owned(), settings.command.clone()];
        match settings.command.as_str() {
            "train" => words.extend(["--arch".into(), settings.model.clone()]),
            _ => words.push(settings.model.clone()),
        }
        let numbers = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
        for (flag, value) in [
            ("--recipe", format!("{}/config.toml", run.path.trim_end_matches('/'))),
            ("--data", settings.data.clone()),
            ("--split", settings.split.clone()),
            ("--validate", settings.validate.clone()),
            ("--seed", settings.seed.to_string()),
            ("--mean", numbers(&settings.mean)),
            ("--std", numbers(&settings.std)),
        ] {
            words.extend([flag.to_owned(), value]);
        }
        if let Some(limit) = settings.limit {
            words.extend(["--limit".to_owned(), limit.to_string()]);
        }
        if let Some(extra) = &settings.extra {
            words.extend(["--extra".to_owned(), extra.clone()]);
        }
        if settings.pseudo_labels.is_some() {
            words.push("--pseudo-labels".to_owned());
        }
        words.extend(["--out".to_owned(), "repeated".to_owned()]);
        shell(&words)
    };
    html! {
        h2 { "How to repeat it" }
        @for run in &inputs.runs { pre { (trained(run)) } }
        @for one in &inputs.measured {
            @if let Some(full) = &one.full { pre { (shell(&full.command)) } }
        }
        @for one in &inputs.published { pre { (shell(&one.command)) } }
        @for one in &inputs.compared { pre { (shell(&one.command)) } }
        pre { (shell(command)) }
        @for one in &inputs.measured {
            h3 { (one.report.model) }
            dl {
                dt { "device" } dd { (one.report.device) }
                dt { "seed" } dd { (one.report.seed) }
                @if let Some(full) = &one.full {
                    dt { "adamant" } dd { (full.settings.adamant_version) }
                    dt { "model, BLAKE3" } dd { code { (full.settings.model_blake3) } }
                    @for hash in &full.settings.data_blake3 { dt { "images, BLAKE3" } dd { code { (hash) } } }
                }
            }
        }
        p.quiet {
            "The same device and seed give the same numbers, bit for bit; another device gives the same up to rounding."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::comparison::tests::measured;
    use super::*;

    fn text(measured: Vec<Measured>) -> String {
        page(&Inputs { measured, ..Inputs::default() }, &[]).expect("a page")
    }

    #[test]
    fn the_first_line_names_the_file_alone() {
        let page = text(vec![measured("/some/where/model.onnx", &[("pgd", 0.1)])]);
        assert!(page.contains("<h1>model.onnx gets <strong>85.0%"), "{page}");
    }

    /// What `evaluate --data cifar10c:DIR --json` writes.
    #[test]
    fn published_corruptions_are_reported() {
        let result = serde_json::json!({
            "schema": 1, "model": "m.onnx", "data": "cifar10c", "images": 20, "device": "cpu",
            "command": ["adamant", "evaluate", "m.onnx"],
            "corruptions": {
                "kind": "published", "images": 20, "mean_accuracy": 0.75, "mean_accuracy_all": null, "mce": null,
                "results": [{
                    "name": "fog", "group": "weather", "extra": false, "differs": null,
                    "correct": [20, 10, 5, 0, 0], "accuracy": [1.0, 0.5, 0.25, 0.0, 0.0], "mean_accuracy": 0.35
                }]
            }
        });
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("c.json");
        std::fs::write(&path, result.to_string()).expect("a file");
        let inputs = Inputs::read(&[path]).expect("a result");
        let found = page(&inputs, &[]).expect("a page");
        assert!(
            found.contains("<h1>m.onnx gets <strong>75.0%</strong> of the images of cifar10c right."),
            "{found}"
        );
        assert!(
            found.contains("fog") && found.contains("The published images, 20 images of each"),
            "{found}"
        );
        assert!(found.contains("adamant evaluate m.onnx"));
    }
}
