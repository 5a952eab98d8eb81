//! Models beside each other, and among published ones.

use adamant::{AttackResult, EvaluationReport, Order, Tradeoff};
use maud::{Markup, html};

use super::chart::{Axis, Series, plot};
use super::inputs::Measured;
use super::published;
use crate::evaluation::is_autoattack;
use crate::measure::describe;
use crate::output::{count, percent, pixels};

pub fn side_by_side(measured: &[Measured]) -> Markup {
    html! {
        h2 { "Side by side" }
        div.scroll {
            table {
                thead { tr {
                    th { "model" } th.n { "clean" } th.n { "attacked" } th.n { "sum" } th.n.wide { "images" }
                } }
                tbody { @for one in measured { @let report = &one.report; tr {
                    td { (report.model) div.quiet { (attacks_in_short(report)) } }
                    td.n { (percent(report.clean.accuracy)) }
                    td.n { (attacked(report, |r| percent(r.worst_case.robust_accuracy))) }
                    td.n { (attacked(report, |r| format!("{:.1}", 100.0 * (r.clean.accuracy + r.worst_case.robust_accuracy)))) }
                    td.n.wide { (report.images) }
                } } }
            }
        }
        p.quiet {
            "Attacked: right without an attack and under every one of the attacks that were run. Only results of the "
            "same attacks can be compared."
        }
    }
}

/// `AutoAttack, linf 8/255`, or the attacks by their names where they are few.
fn attacks_in_short(report: &EvaluationReport) -> String {
    let Some(first) = report.attacks.first() else { return "not attacked".into() };
    let mut names: Vec<&str> = report.attacks.iter().map(|a| a.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut text = match names.len() {
        _ if is_autoattack(&report.attacks) && names.len() == 4 => "AutoAttack".to_owned(),
        1..=3 => names.join(", "),
        many => count(many, "attack"),
    };
    if report.attacks.iter().all(|a| a.norm == first.norm) {
        let most = report.attacks.iter().map(|a| a.eps).fold(0.0, f64::max);
        let up_to = if report.attacks.iter().all(|a| a.eps == most) { "" } else { " up to" };
        text += &format!(", {}{up_to} {}", first.norm, pixels(most));
    }
    text
}

/// A dash where nothing was attacked.
fn attacked(report: &EvaluationReport, text: impl Fn(&EvaluationReport) -> String) -> String {
    if report.attacks.is_empty() { "–".into() } else { text(report) }
}

/// A number that is in percent already.
fn of_hundred(value: f64) -> String {
    format!("{}%", (value * 10.0).round() / 10.0)
}

/// An axis around numbers in percent: never closer than a point to any, never below 0.
pub fn percent_axis(label: &str, values: impl Iterator<Item = f64>) -> Axis {
    let wide = values.flat_map(|v| [(v - 1.0).max(0.0), v + 1.0]);
    let mut axis = Axis::around(label, wide, of_hundred);
    if axis.from < 0.0 {
        axis.from = 0.0;
        axis.ticks.retain(|(value, _)| *value >= 0.0);
    }
    axis
}

/// The ball of the published results.
const PUBLISHED_EPS: f64 = 8.0 / 255.0;

/// Clean accuracy, and that under all attacks inside the ball of the published results, in percent; none where
/// nothing was attacked there.
fn at_published_ball(measured: &Measured) -> Option<(f64, f64)> {
    let report = &measured.report;
    let inside = |a: &AttackResult| a.norm == "linf" && a.eps <= PUBLISHED_EPS + 1e-6;
    let there = report.attacks.iter().any(|a| inside(a) && a.eps >= PUBLISHED_EPS - 1e-6);
    let robust = match &measured.full {
        _ if !there => return None,
        _ if report.attacks.iter().all(inside) => report.worst_case.robust_accuracy,
        Some(full) if full.order == Order::Independent => {
            let flags = report.attacks.iter().zip(&full.outcome.robust).filter(|(a, _)| inside(a));
            let flags: Vec<&Vec<bool>> = flags.map(|(_, flags)| flags).collect();
            let withstood = (0..full.outcome.clean.len()).filter(|&n| flags.iter().all(|f| f[n])).count();
            withstood as f64 / report.images.max(1) as f64
        }
        _ => return None,
    };
    Some((100.0 * report.clean.accuracy, 100.0 * robust))
}

/// The models between accuracy and robustness, among published ones where they can be compared.
pub fn tradeoff(measured: &[Measured]) -> Markup {
    let attacked = || measured.iter().filter(|m| !m.report.attacks.is_empty());
    let Some(last) = attacked().next_back().map(|m| &m.report) else { return html! {} };
    let curve = Tradeoff::of(&last.data);
    let settings = |r: &EvaluationReport| -> Vec<String> { r.attacks.iter().map(describe).collect() };
    let here = || attacked().filter(|m| m.report.data == last.data);
    let point = |m: &Measured| {
        let r = &m.report;
        (100.0 * r.clean.accuracy, 100.0 * r.worst_case.robust_accuracy)
    };
    type Own<'a> = Vec<(&'a str, (f64, f64))>;
    let published: Own =
        here().filter_map(|m| Some((m.report.model.as_str(), at_published_ball(m)?))).collect();
    let comparable = curve.filter(|_| !published.is_empty());
    let own: Own = match comparable {
        Some(_) => published,
        // Among themselves: under the same attacks.
        None => here()
            .filter(|m| settings(&m.report) == settings(last))
            .map(|m| (m.report.model.as_str(), point(m)))
            .collect(),
    };
    if comparable.is_none() && own.len() < 2 {
        return match curve {
            Some(_) => html! {
                h2 { "Accuracy against robustness" }
                p {
                    "Published results for " (last.data) " are at linf 8/255; this evaluation is of other attacks, "
                    "so it is not drawn among them."
                }
            },
            None => html! {},
        };
    }
    let mut series = vec![Series {
        labels: own.iter().map(|(model, _)| short(model)).collect(),
        line: false,
        ..Series::line("this report", own.iter().map(|(_, point)| *point).collect())
    }];
    if let Some(curve) = comparable {
        for network in ["WRN-34-10", "ResNet-18"] {
            let of = || published::results(curve).iter().filter(|p| p.network == network);
            if of().next().is_some() {
                series.push(Series {
                    labels: of().map(|p| p.name.to_owned()).collect(),
                    line: false,
                    ..Series::line(
                        format!("{network}, published"),
                        of().map(|p| (p.clean, p.robust)).collect(),
                    )
                });
            }
        }
    }
    let all = || series.iter().flat_map(|s| &s.points);
    let x = percent_axis("clean accuracy", all().map(|p| p.0));
    let y = percent_axis("robust accuracy", all().map(|p| p.1));
    html! {
        h2 { "Accuracy against robustness" }
        (plot("Clean accuracy and accuracy under attack", &x, &y, &series))
        @if comparable.is_some() {
            p.quiet {
                "Up and to the right is better; all at linf 8/255. Published: AutoAttack, 10,000 test images, without "
                "extra data (" (published::SOURCES) "). Other attacks, or fewer images, make no comparison."
            }
        }
    }
}

/// The last part of a path.
pub fn file_name(path: &str) -> &str {
    path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(path)
}

/// As much of it as a chart has room for.
fn short(path: &str) -> String {
    file_name(path).chars().take(24).collect()
}

#[cfg(test)]
pub mod tests {
    use adamant::{CleanResult, WorstCase};

    use super::*;

    /// An evaluation of attacks in linf, of which half of the right images withstand each.
    pub fn measured(model: &str, attacks: &[(&str, f64)]) -> Measured {
        let of = |(name, eps): &(&str, f64)| AttackResult {
            name: (*name).into(),
            norm: "linf".into(),
            eps: *eps,
            step: 0.0,
            steps: 5000,
            restarts: 1,
            robust_correct: 40,
            robust_accuracy: 0.4,
            seconds: 1.0,
        };
        let report = EvaluationReport {
            schema: 1,
            model: model.into(),
            data: "cifar10".into(),
            split: "test".into(),
            images: 100,
            seed: 0,
            device: "cpu".into(),
            clean: CleanResult { correct: 85, accuracy: 0.85 },
            attacks: attacks.iter().map(of).collect(),
            worst_case: WorstCase { robust_correct: 40, robust_accuracy: 0.4 },
            warnings: Vec::new(),
        };
        Measured { report, full: None, missing: None }
    }

    /// Results in another ball are not drawn among those at 8/255.
    #[test]
    fn only_what_can_be_compared_is_drawn_together() {
        let eps = PUBLISHED_EPS;
        let all = vec![
            measured("a/small.onnx", &[("pgd", eps / 4.0)]),
            measured("a/large.onnx", &[("pgd", eps), ("pgd", 2.0 * eps)]),
            measured("a/same.onnx", &[("pgd", eps / 4.0), ("pgd", eps)]),
        ];
        let found: Vec<bool> = all.iter().map(|m| at_published_ball(m).is_some()).collect();
        // Without the result of each image, what withstood the one ball and not the other is not known.
        assert_eq!(found, [false, false, true]);
        let drawn = tradeoff(&all).into_string();
        assert!(drawn.contains("same.onnx") && drawn.contains("ARREST"), "{drawn}");
        assert!(!drawn.contains("small.onnx") && !drawn.contains("large.onnx"), "{drawn}");
        assert!(!drawn.contains("<polyline"), "no line joins models");
    }

    #[test]
    fn attacks_are_named_in_short() {
        let short = |attacks: &[(&str, f64)]| attacks_in_short(&measured("m", attacks).report);
        let auto = ["apgd-ce", "apgd-t", "fab-t", "square"].map(|name| (name, 8.0 / 255.0));
        assert_eq!(short(&auto), "AutoAttack, linf 8/255");
        assert_eq!(short(&[("pgd", 0.1), ("pgd", 0.2)]), "pgd, linf up to 0.2");
        assert_eq!(short(&[]), "not attacked");
        assert_eq!(short(&[("a", 0.1), ("b", 0.1), ("c", 0.1), ("d", 0.1)]), "4 attacks, linf 0.1");
    }
}
