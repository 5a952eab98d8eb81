//! Methods from one start beside each other: the table of `compare`.

use maud::{Markup, html};

use super::chart::{Series, plot};
use super::comparison::{file_name, percent_axis};
use crate::compare::{COLUMNS, Comparison, Measured, Trained, cells};
use crate::output::{count, pixels};

/// The first line of a page that has nothing else to claim.
pub fn claim(found: &Comparison) -> Markup {
    let methods = count(found.rows.iter().filter(|row| row.is_method()).count(), "method");
    html! { h1 { (methods) " from " (file_name(&found.model)) } }
}

pub fn section(found: &Comparison) -> Markup {
    let shown = found.shown();
    let line = |name: Markup, trained: &Trained| {
        html! { tr {
            td { (name) @if let Some(why) = &trained.diverged { div.quiet { (why) } } }
            @for (cell, _) in cells(trained).iter().zip(&shown).filter(|(_, shown)| **shown) {
                td.n { (cell.as_deref().unwrap_or("–")) }
            }
        } }
    };
    let half = 196.0 * (0.25 / found.images.max(1) as f64).sqrt();
    html! {
        h2 { "Methods side by side" }
        p.quiet {
            "Each from " (found.model) ", measured on the first " (count(found.images as usize, "test image")) " of "
            (found.data) " within linf " (pixels(f64::from(found.eps))) ". With 95% confidence an accuracy is known to "
            (format!("{half:.1}")) " points at most either way."
        }
        div.scroll { table {
            thead { tr {
                th { "method" }
                @for ((title, _), _) in COLUMNS.iter().zip(&shown).filter(|(_, shown)| **shown) { th.n { (title) } }
            } }
            tbody { @for row in &found.rows {
                (line(html! { (row.recipe) }, &row.mean))
                @for seed in &row.seeds { (line(html! { span.seed { "seed " (seed.seed) } }, seed)) }
            } }
        } }
        (tradeoff(found))
    }
}

/// Clean and robust accuracy, in percent.
fn point(measured: &Measured) -> (f64, f64) {
    (100.0 * measured.clean, 100.0 * measured.robust())
}

fn tradeoff(found: &Comparison) -> Markup {
    let measured = || found.rows.iter().filter_map(|row| Some((row, row.mean.measured.as_ref()?)));
    let mut series = vec![Series {
        labels: measured().map(|(row, _)| row.recipe.clone()).collect(),
        line: false,
        ..Series::line("methods", measured().map(|(_, m)| point(m)).collect())
    }];
    let seeds = found.rows.iter().flat_map(|row| &row.seeds).filter_map(|seed| seed.measured.as_ref());
    let seeds: Vec<(f64, f64)> = seeds.map(point).collect();
    if !seeds.is_empty() {
        series.push(Series { line: false, ..Series::line("single seeds", seeds) });
    }
    let attack = if measured().any(|(_, m)| m.autoattack.is_some()) { "AutoAttack" } else { "PGD-20" };
    let all = || series.iter().flat_map(|s| &s.points);
    let x = percent_axis("clean accuracy", all().map(|p| p.0));
    let y = percent_axis(&format!("accuracy under {attack}"), all().map(|p| p.1));
    html! {
        (plot("Clean accuracy and accuracy under attack", &x, &y, &series))
        p.quiet { "Up and to the right is better." }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_drawn_as_it_was_printed() {
        let found: Comparison = serde_json::from_str(
            r#"{"schema": 1, "model": "a/m.onnx", "data": "mnist:d", "images": 100, "eps": 0.1, "command": [], "rows": [
                {"recipe": "before", "seed": 0, "clean": 0.9, "pgd20": 0.1, "sum": 1.0, "seconds": 0, "epochs": 0},
                {"recipe": "wild", "seed": 0, "diverged": "it is <too> fast", "seconds": 0, "epochs": 0},
                {"recipe": "aft", "seed": 0, "clean": 0.8, "pgd20": 0.5, "sum": 1.3, "seconds": 60, "epochs": 2,
                 "seeds": [
                    {"seed": 0, "clean": 0.81, "pgd20": 0.4, "sum": 1.21, "seconds": 50, "epochs": 2},
                    {"seed": 1, "clean": 0.79, "pgd20": 0.6, "sum": 1.39, "seconds": 70, "epochs": 2}
                 ]}
            ]}"#,
        )
        .expect("a table");
        let page = claim(&found).into_string() + &section(&found).into_string();
        for part in [
            "2 methods from m.onnx",
            "50.0%",
            "79.0%",
            "seed 1",
            "1m10s",
            "it is &lt;too&gt; fast",
            "9.8 points",
        ] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        // Nobody measured these.
        assert!(!page.contains("AutoAttack") && !page.contains("ARDist"), "{page}");
    }
}
