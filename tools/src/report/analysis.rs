//! What `adamant analyse` found of a run.

use std::path::Path;

use anyhow::{Context, Result};
use maud::{Markup, html};

use super::chart::{Spot, scatter};
use crate::analyse::{Analysis, Embedding, Extreme, FOLDER};
use crate::output::{count, percent, pixels};
use crate::picture::data_uri;

/// The whole of it, in the order of the papers.
pub fn section(found: &Analysis, run: &str) -> Result<Markup> {
    let folder = Path::new(run).join(FOLDER);
    let picture = |name: &str, what: &str| -> Result<Markup> {
        let path = folder.join(format!("{name}.png"));
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(html! { img src=(data_uri(&bytes)) alt=(what) width="96" height="96"; })
    };
    let class = |label: u32| {
        let named = found.class_names.get(label as usize);
        named.cloned().unwrap_or_else(|| format!("class {label}"))
    };
    let mut rows = Vec::new();
    for (name, title, images) in [
        ("smallest", "The smallest radii", &found.smallest),
        ("largest", "The largest radii", &found.largest),
    ] {
        let mut row = Vec::new();
        for (i, &Extreme { index, label, eps }) in images.iter().enumerate() {
            let what = format!("{}, image {index}", class(label));
            row.push(html! {
                div.one {
                    (picture(&format!("{name}-{i}"), &what)?)
                    div.caption { (class(label)) ", " (format!("{:.1}/255", 255.0 * eps)) }
                }
            });
        }
        rows.push((title, row));
    }
    let noise = &found.noise;
    let attack = format!("{} {}", found.norm, pixels(found.eps));
    let five = [
        ("image", class(noise.label)),
        ("dra-noise", format!("DRA adds, to {} of its values", percent(noise.changed[0]))),
        ("dra", "the sum".to_owned()),
        ("pgd-noise", format!("PGD adds, to {} of its values", percent(noise.changed[1]))),
        ("pgd", "the sum".to_owned()),
    ];
    let mut shown = Vec::new();
    for (name, text) in &five {
        shown.push(html! { div.one { (picture(name, text)?) div.caption { (text) } } });
    }
    Ok(html! {
        @if let Some(embedding) = &found.embedding { (view(embedding, found, &attack)) }
        h4 { "What DRA and PGD add to an image" }
        div.row { @for one in &shown { (one) } }
        p.quiet {
            "Image " (noise.index) " of " (found.data) ", and what each attack adds at radius " (pixels(found.eps))
            @if noise.magnified > 1.5 { ", magnified " (format!("{:.0}", noise.magnified)) " times" }
            ". DRA changes fewer values, each by more."
        }
        @for (title, row) in &rows {
            @if !row.is_empty() {
                h4 { (title) " among the training images" }
                div.row { @for one in row { (one) } }
            }
        }
    })
}

/// Clean and attacked features, in one frame.
fn view(embedding: &Embedding, found: &Analysis, attack: &str) -> Markup {
    let spots = |points: &[[f64; 2]]| -> Vec<Spot> {
        let labels = embedding.labels.iter();
        labels.zip(points).map(|(&label, &at)| Spot { class: label as usize, at }).collect()
    };
    let bounds = [0, 1].map(|k| {
        let all =
            embedding.clean.iter().chain(&embedding.adversarial).map(|p| p[k]).filter(|v| v.is_finite());
        all.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)])
    });
    html! {
        h4 { "Features in two dimensions" }
        div.charts {
            (scatter("Clean images", &spots(&embedding.clean), &found.class_names, bounds))
            (scatter(&format!("The same, attacked ({attack})"), &spots(&embedding.adversarial), &found.class_names, bounds))
        }
        p.quiet {
            "What the last layer sees of " (count(embedding.labels.len(), "image")) " (" (found.split) " half of "
            (found.data) "), in the two directions in which the classes of the clean images differ most: linear "
            "discriminant analysis, then principal component analysis. A point is an image, a colour its class."
        }
    }
}
