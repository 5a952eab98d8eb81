//! Images beside what an attack made of them.

use std::collections::HashSet;

use anyhow::Result;
use maud::{Markup, html};

use crate::output::pixels;
use crate::picture::{data_uri, is_shown, png};
use crate::saved::Saved;

/// How many images are shown of those that fell, and of those that withstood.
const FELL: usize = 8;
const WITHSTOOD: usize = 4;

/// A few images of a folder that `adamant attack --save` wrote.
pub fn grid(saved: &Saved) -> Result<Markup> {
    let manifest = &saved.manifest;
    let [_, channels, height, width] = manifest.shape;
    if !is_shown(channels) {
        return Ok(html! { p { "Images of " (channels) " channels cannot be shown." } });
    }
    let right = |at: &usize| manifest.clean_correct[*at];
    let all = 0..manifest.labels.len();
    let fell = choose(all.clone().filter(right).filter(|&at| !manifest.robust[at]), &manifest.labels, FELL);
    let stood = choose(all.filter(right).filter(|&at| manifest.robust[at]), &manifest.labels, WITHSTOOD);
    let mut shown = Vec::new();
    let mut largest = 0f32;
    for at in fell.into_iter().chain(stood) {
        let (clean, found) = (saved.clean(at)?, saved.found(at)?);
        let change: Vec<f32> = found.iter().zip(&clean).map(|(a, b)| a - b).collect();
        largest = change.iter().fold(largest, |m, v| m.max(v.abs()));
        shown.push((at, clean, change, found));
    }
    let factor = if largest > 0.0 { 0.5 / largest } else { 1.0 };
    let name = |class: u32| {
        let named = manifest.class_names.get(class as usize);
        named.cloned().unwrap_or_else(|| format!("class {class}"))
    };
    let size = [channels, height, width];
    let picture = |pixels: &[f32], what: &str| -> Result<Markup> {
        let source = data_uri(&png(pixels, size)?);
        Ok(html! { img src=(source) alt=(what) width="96" height="96"; })
    };
    let mut rows = Vec::new();
    for (at, clean, change, found) in &shown {
        let magnified: Vec<f32> = change.iter().map(|v| 0.5 + v * factor).collect();
        let (label, predicted) = (name(manifest.labels[*at]), name(manifest.predicted[*at]));
        rows.push(html! {
            div.triple {
                div.three {
                    (picture(clean, &format!("{label}, as it is"))?)
                    (picture(&magnified, "what the attack adds, magnified")?)
                    (picture(found, &format!("taken for {predicted}"))?)
                }
                div.caption {
                    (label)
                    @if manifest.robust[*at] { " stays " b.good { (predicted) } }
                    @else { " becomes " b.bad { (predicted) } }
                }
            }
        });
    }
    Ok(html! {
        p {
            "Each image, what " code { (manifest.attack) } " (" (manifest.norm.to_string()) ", radius "
            (pixels(f64::from(manifest.eps))) ") adds to it, magnified " (format!("{factor:.0}"))
            " times, and the sum, which is all that the model sees."
        }
        div.grid { @for row in rows { (row) } }
    })
}

/// Up to `most` of them, of as many classes as there are.
fn choose(from: impl Iterator<Item = usize>, labels: &[u32], most: usize) -> Vec<usize> {
    let mut seen = HashSet::new();
    let (mut first, mut more) = (Vec::new(), Vec::new());
    for at in from {
        let part = if seen.insert(labels[at]) { &mut first } else { &mut more };
        part.push(at);
    }
    first.extend(more);
    first.truncate(most);
    first.sort_unstable();
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_many_classes_are_chosen() {
        let labels = [0, 0, 0, 1, 1, 2];
        assert_eq!(choose(0..6, &labels, 3), [0, 3, 5]);
        assert_eq!(choose(0..6, &labels, 4), [0, 1, 3, 5]);
        assert_eq!(choose(0..6, &labels, 9).len(), 6);
    }
}
