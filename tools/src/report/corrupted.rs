//! Accuracy under common corruptions.

use maud::{Markup, html};

use super::comparison::file_name;
use super::inputs::Measured;
use crate::corruptions::Published;
use crate::output::{count, percent};

/// The first line where there are published corrupted images alone.
pub fn claim(one: &Published) -> Markup {
    let report = &one.corruptions;
    html! {
        h1 {
            (file_name(&one.model)) " gets "
            @match report.mean_accuracy {
                Some(mean) => { strong { (percent(mean)) } " of the images of " (one.data) " right." },
                None => { "these parts of " (one.data) " right." },
            }
        }
        p.quiet {
            (count(report.images as usize, "image")) " under each corruption and severity. Nothing was attacked: this "
            "says nothing about adversarial robustness."
        }
    }
}

/// A table for each result that has corruptions.
pub fn section(measured: &[Measured], published: &[Published]) -> Markup {
    let with_clean = measured.iter().filter_map(|m| {
        let clean = m.report.clean.accuracy;
        Some((&m.report.model, Some(clean), m.full.as_ref()?.corruptions.as_ref()?))
    });
    let alone = published.iter().map(|p| (&p.model, None, &p.corruptions));
    let found: Vec<_> = with_clean.chain(alone).collect();
    let differing = |report: &adamant::CorruptionReport| -> String {
        let one = |r: &adamant::CorruptionResult| {
            Some(format!("{} ({})", r.name.replace('_', " "), r.differs.as_ref()?))
        };
        report.results.iter().filter_map(one).collect::<Vec<_>>().join("; ")
    };
    html! {
        @if !found.is_empty() { h2 { "Common corruptions" } }
        @for (model, clean, report) in found {
            h3 { (model) }
            @if let Some(mean) = report.mean_accuracy {
                p {
                    b { (percent(mean)) } " right on average over 15 corruptions and 5 severities"
                    @if let Some(clean) = clean { ", " (percent(clean)) " on the images as they are" }
                    "."
                    @if let Some(mce) = report.mce { " mCE " b { (format!("{mce:.1}")) } "." }
                }
            }
            div.scroll {
                table {
                    thead { tr {
                        th { "severity" } @for severity in 1..=5 { th.n { (severity) } } th.n { "mean" }
                    } }
                    tbody { @for result in &report.results { tr {
                        td { (result.name.replace('_', " ")) @if result.extra { " (extra)" } }
                        @for accuracy in &result.accuracy { td.n { (percent(*accuracy)) } }
                        td.n { b { (percent(result.mean_accuracy)) } }
                    } } }
                }
            }
            @if report.kind == "C-like" {
                p.quiet {
                    "C-like: made here from the same images with the published severities. Other than in the "
                    "published images, besides the random numbers: " (differing(report)) "."
                }
            } @else {
                p.quiet { "The published images, " (count(report.images as usize, "image")) " of each." }
            }
        }
    }
}
