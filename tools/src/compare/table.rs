//! The table: a row for each method.

use serde::{Deserialize, Serialize};

use super::measured::Measured;
use crate::output::{self, duration, percent};

#[derive(Serialize, Deserialize)]
pub struct Comparison {
    pub schema: u32,
    pub model: String,
    pub data: String,
    /// Test images that everything is measured on.
    pub images: u64,
    /// Radius that it is measured at.
    pub eps: f32,
    pub rows: Vec<Row>,
    pub command: Vec<String>,
}

/// A method, or the model before any.
#[derive(Serialize, Deserialize)]
pub struct Row {
    pub recipe: String,
    /// Of its trainings the mean.
    #[serde(flatten)]
    pub mean: Trained,
    /// Each of them, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<Trained>,
}

#[derive(Default, Serialize, Deserialize)]
pub struct Trained {
    /// The first, of several.
    pub seed: u64,
    /// Absent where training diverged.
    #[serde(flatten)]
    pub measured: Option<Measured>,
    /// Why nothing is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
    /// Of training.
    pub seconds: f64,
    pub epochs: usize,
}

/// The row of the model before any method.
const BEFORE: &str = "before";

impl Row {
    pub fn is_method(&self) -> bool {
        self.recipe != BEFORE
    }

    pub fn before(measured: Measured) -> Self {
        let mean = Trained { measured: Some(measured), ..Trained::default() };
        Self { recipe: BEFORE.to_owned(), mean, seeds: Vec::new() }
    }

    /// The method `recipe`, trained at least once.
    pub fn of(recipe: &str, mut trained: Vec<Trained>) -> Self {
        let recipe = recipe.to_owned();
        if trained.len() == 1 {
            return Self { recipe, mean: trained.remove(0), seeds: Vec::new() };
        }
        // A mean without the one that diverged would flatter.
        let all: Option<Vec<&Measured>> = trained.iter().map(|t| t.measured.as_ref()).collect();
        let mean = Trained {
            seed: trained[0].seed,
            measured: all.as_deref().map(mean),
            diverged: trained
                .iter()
                .find_map(|t| t.diverged.as_ref().map(|why| format!("seed {}: {why}", t.seed))),
            seconds: trained.iter().map(|t| t.seconds).sum::<f64>() / trained.len() as f64,
            epochs: trained[0].epochs,
        };
        Self { recipe, mean, seeds: trained }
    }
}

fn mean(all: &[&Measured]) -> Measured {
    let part = |sum: f64| sum / all.len() as f64;
    let mean = |number: fn(&Measured) -> f64| part(all.iter().map(|m| number(m)).sum());
    let known =
        |number: fn(&Measured) -> Option<f64>| all.iter().map(|m| number(m)).sum::<Option<f64>>().map(part);
    Measured {
        clean: mean(|m| m.clean),
        pgd20: mean(|m| m.pgd20),
        autoattack: known(|m| m.autoattack),
        sum: mean(|m| m.sum),
        ardist: known(|m| m.ardist),
        cosine: known(|m| m.cosine),
    }
}

/// Titles of the columns, and how wide they are.
pub const COLUMNS: [(&str, usize); 7] =
    [("clean", 8), ("PGD-20", 8), ("AutoAttack", 12), ("sum", 7), ("ARDist", 8), ("cosine", 8), ("time", 9)];

/// What a row says in them.
pub fn cells(trained: &Trained) -> [Option<String>; 7] {
    let measured = trained.measured.as_ref();
    [
        Some(measured.map_or_else(|| "diverged".to_owned(), |m| percent(m.clean))),
        measured.map(|m| percent(m.pgd20)),
        measured.and_then(|m| m.autoattack).map(percent),
        measured.map(|m| format!("{:.1}", 100.0 * m.sum)),
        measured.and_then(|m| m.ardist).map(|d| format!("{d:.2}")),
        measured.and_then(|m| m.cosine).map(|c| format!("{c:.3}")),
        (trained.epochs > 0).then(|| duration(trained.seconds)),
    ]
}

impl Comparison {
    /// Which columns say something of any row.
    pub fn shown(&self) -> [bool; COLUMNS.len()] {
        let mut shown = [false; COLUMNS.len()];
        for trained in self.rows.iter().flat_map(|row| std::iter::once(&row.mean).chain(&row.seeds)) {
            for (shown, cell) in shown.iter_mut().zip(cells(trained)) {
                *shown |= cell.is_some();
            }
        }
        shown
    }

    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for Row { recipe, mean, seeds } in &self.rows {
            lines.push((recipe.clone(), cells(mean)));
            lines.extend(seeds.iter().map(|trained| (format!("  seed {}", trained.seed), cells(trained))));
        }
        let width = lines.iter().map(|(name, _)| name.chars().count() + 1).max().unwrap_or(0).max(18);
        let shown = self.shown();
        let line = |name: &str, cells: [Option<String>; 7]| {
            let mut line = format!("{name:<width$}");
            for (column, (cell, (_, width))) in cells.into_iter().zip(COLUMNS).enumerate() {
                if shown[column] {
                    line += &format!("{:>width$}", cell.as_deref().unwrap_or("-"));
                }
            }
            line + "\n"
        };
        let radius = output::pixels(f64::from(self.eps));
        let head = format!("{} on {} test images, eps {radius}", self.model, self.images);
        let mut text = output::wrap(&head, 2) + "\n\n";
        text += &line("", COLUMNS.map(|(title, _)| Some(title.to_owned())));
        for (name, cells) in &lines {
            text += &line(name, cells.clone());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained(seed: u64, clean: f64) -> Trained {
        let measured = Measured {
            clean,
            pgd20: 1.0,
            autoattack: Some(1.0),
            sum: 2.0,
            ardist: Some(-12.34),
            cosine: Some(-0.123),
        };
        Trained { seed, measured: Some(measured), diverged: None, seconds: 359_999.0, epochs: 1 }
    }

    fn diverged(seed: u64) -> Trained {
        Trained { seed, diverged: Some("it is too fast".to_owned()), ..Trained::default() }
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let found = Comparison {
            schema: 1,
            model: "m.onnx".into(),
            data: "cifar10:data".into(),
            images: 10_000,
            eps: 8.0 / 255.0,
            rows: vec![
                Row::before(Measured::default()),
                Row::of("interpolated-at", vec![diverged(0)]),
                Row::of("arrest", vec![trained(0, 1.0), trained(1, 1.0)]),
            ],
            command: Vec::new(),
        };
        let text = found.text();
        assert!(text.lines().all(|line| line.chars().count() <= output::WIDTH), "{text}");
    }

    #[test]
    fn several_seeds_have_a_mean() {
        let row = Row::of("aft", vec![trained(3, 0.5), trained(4, 0.7), trained(5, 0.9)]);
        let mean = row.mean.measured.expect("all are measured");
        assert!((mean.clean - 0.7).abs() < 1e-12 && (mean.sum - 2.0).abs() < 1e-12);
        assert_eq!((row.mean.seed, row.seeds.len()), (3, 3));
        let row = Row::of("aft", vec![trained(3, 0.5), diverged(4)]);
        assert!(row.mean.measured.is_none());
        assert_eq!(row.mean.diverged.as_deref(), Some("seed 4: it is too fast"));
    }
}
