//! What `evaluate --json` writes, `merge` puts together and `report` shows.

use std::fmt;
use std::path::Path;

use adamant::{
    Ardist, AttackResult, AttackSpec, CorruptionReport, Curve, Distance, EvaluationReport, Order, Outcome,
    Passes, ReportContext, Tradeoff, wilson,
};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::corruptions;
use crate::measure::table;
use crate::output::{percent, pixels};

/// Everything that decides the numbers: two evaluations with the same settings find the same.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub adamant_version: String,
    pub model_blake3: String,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    pub classes: usize,
    /// Hashes of the images and labels, of each part that was measured.
    pub data_blake3: Vec<String>,
    /// Images of the whole, of which a shard measures a part.
    pub of_images: usize,
    /// Position in the split of the first image of this part.
    pub first_image: usize,
    /// Position of the first image of the whole.
    pub whole_from: usize,
    pub attacks: Vec<AttackSpec>,
    /// Hashes of the models that images are made against, too.
    pub surrogates: Vec<String>,
    pub order: Order,
    pub seed: u64,
    pub split: String,
    pub device: String,
}

impl Settings {
    /// The names of the settings in which two evaluations differ.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (Ok(serde_json::Value::Object(mine)), Ok(serde_json::Value::Object(theirs))) =
            (serde_json::to_value(self), serde_json::to_value(other))
        else {
            return vec!["all".into()];
        };
        mine.iter()
            .filter(|(key, value)| theirs.get(*key) != Some(value))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The attacks, and those whose images came from a surrogate.
    pub fn all_attacks(&self) -> Vec<AttackSpec> {
        let transferred = self.attacks.iter().map(AttackSpec::transferred);
        let mut all = self.attacks.clone();
        for _ in &self.surrogates {
            all.extend(transferred.clone());
        }
        all
    }
}

/// An evaluation with all that can be said about it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Evaluation {
    #[serde(flatten)]
    pub report: EvaluationReport,
    /// `independent`, or `in-turn`: then an attack's `robust_correct` counts the images that withstood
    /// it and all before it.
    pub order: Order,
    /// Position in the split of the first image.
    pub first_image: usize,
    pub intervals: Intervals,
    pub metrics: Metrics,
    /// Of the suite of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corruptions: Option<CorruptionReport>,
    /// Models that images were made against, too: the attacks named `transfer-`, of one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub surrogates: Vec<Surrogate>,
    /// The command that made it, as it was typed.
    pub command: Vec<String>,
    pub settings: Settings,
    /// Image by image.
    pub outcome: Outcome,
}

/// A model that images were made against.
#[derive(Clone, Serialize, Deserialize)]
pub struct Surrogate {
    /// As the user named it.
    pub model: String,
    /// What part it gets right of the images that the attacked model gets right.
    pub accuracy: Option<f64>,
}

impl fmt::Display for Surrogate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "made against {}", self.model)?;
        match self.accuracy {
            Some(accuracy) => write!(f, ", which gets {} of these right", percent(accuracy)),
            None => Ok(()),
        }
    }
}

/// Wilson's intervals, 95%, of every accuracy: how far the numbers can be trusted for images that were
/// not among these.
#[derive(Clone, Serialize, Deserialize)]
pub struct Intervals {
    pub confidence: f64,
    pub clean: [f64; 2],
    pub attacks: Vec<[f64; 2]>,
    pub worst_case: [f64; 2],
}

/// Numbers made of accuracies.
#[derive(Clone, Serialize, Deserialize)]
pub struct Metrics {
    /// Clean and worst-case accuracy together, in percent points; absent without attacks.
    pub sum: Option<f64>,
    /// For data that has published results to compare with.
    pub ardist: Option<Ardist>,
    /// Whether the attacks are those of the results that ARDist compares with: AutoAttack at linf 8/255.
    pub ardist_attacks: bool,
    pub curves: Vec<Curve>,
    /// For each attack: how far away the misclassified images are that it found, where it looks for the
    /// nearest.
    #[serde(default)]
    pub distances: Vec<Option<Distance>>,
    /// For each attack: passes through the network, on average over the images that were classified
    /// correctly.
    #[serde(default)]
    pub cost: Vec<Cost>,
}

/// What an attack spent on an image on average.
#[derive(Clone, Serialize, Deserialize)]
pub struct Cost {
    /// Forward passes alone.
    pub forwards: f64,
    /// Forward passes with one back to the pixels.
    pub gradients: f64,
}

impl Evaluation {
    /// `surrogates` are their names.
    pub fn new(
        outcome: Outcome,
        model: &str,
        surrogates: &[String],
        data: &str,
        command: &[String],
        settings: Settings,
    ) -> Self {
        let attacks = settings.all_attacks();
        let report = outcome.report(
            &attacks,
            &ReportContext {
                model,
                data,
                split: &settings.split,
                seed: settings.seed,
                device: &settings.device,
                classes: settings.classes,
            },
        );
        let of = |correct| wilson(correct, report.images);
        let right =
            |n: usize| Some(*outcome.surrogate_correct.get(n)? as f64 / report.clean.correct.max(1) as f64);
        let name = |(n, model): (usize, &String)| Surrogate { model: model.clone(), accuracy: right(n) };
        Self {
            order: outcome.order,
            first_image: settings.first_image,
            intervals: Intervals {
                confidence: 0.95,
                clean: of(report.clean.correct),
                attacks: report.attacks.iter().map(|a| of(a.robust_correct)).collect(),
                worst_case: of(report.worst_case.robust_correct),
            },
            metrics: Metrics::new(&report, &outcome, &attacks),
            corruptions: None,
            surrogates: surrogates.iter().enumerate().map(name).collect(),
            command: command.to_vec(),
            report,
            settings,
            outcome,
        }
    }

    /// Reads what `evaluate --json` wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(name)?;
        let found: Self = serde_json::from_str(&text)
            .with_context(|| format!("{}: not the result of `adamant evaluate --json`", path.display()))?;
        let images = usize::try_from(found.report.images).unwrap_or(usize::MAX);
        let attacks = found.settings.all_attacks().len();
        let outcome = &found.outcome;
        if !outcome.is_whole(images) || outcome.robust.len() != attacks || found.settings.classes == 0 {
            bail!("{}: damaged, its parts contradict each other; evaluate again", path.display());
        }
        Ok(found)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = table(&self.report, &self.surrogates);
        let metrics = &self.metrics;
        if let Some(sum) = metrics.sum {
            text += &format!("sum of clean and attacked: {sum:.1}");
            if let Some(ardist) = metrics.ardist.filter(|a| a.in_range && metrics.ardist_attacks) {
                text += &format!("; ARDist {:+.3}", ardist.distance);
            }
            text.push('\n');
        }
        for (attack, distance) in self.report.attacks.iter().zip(&metrics.distances) {
            if let Some(Distance { found, mean, median }) = distance {
                let (name, norm) = (&attack.name, &attack.norm);
                text += &format!(
                    "{name}: {found} found at {norm} distances of {median:.4} (median), {mean:.4} (mean)\n"
                );
            }
        }
        for curve in &metrics.curves {
            text += &format!("\nrobust accuracy by radius, {}\n", curve.norm);
            for point in &curve.points {
                let [low, high] = point.interval;
                let (low, high) = (percent(low), percent(high));
                text += &format!(
                    "{:>10} {:>7}  ({low} to {high})\n",
                    pixels(point.eps),
                    percent(point.robust_accuracy)
                );
            }
            let most = curve.points.last().map_or(0.0, |p| p.eps);
            text += &format!("expected from 0 to {}: {}\n", pixels(most), percent(curve.expected));
        }
        if let Some(report) = &self.corruptions {
            text.push('\n');
            text += &corruptions::text(report);
        }
        text
    }
}

/// Whether the attacks of AutoAttack's standard version are among these, with as many steps.
pub fn is_autoattack(attacks: &[AttackResult]) -> bool {
    let has = |ball: &AttackResult, (name, steps): &(&str, u32)| {
        let same = |a: &&AttackResult| (a.eps, &a.norm) == (ball.eps, &ball.norm) && a.steps >= *steps;
        attacks.iter().filter(same).any(|a| a.name == *name)
    };
    let all = [("apgd-ce", 100), ("apgd-t", 100), ("fab-t", 100), ("square", 5000)];
    attacks.iter().any(|ball| all.iter().all(|wanted| has(ball, wanted)))
}

impl Metrics {
    fn new(report: &EvaluationReport, outcome: &Outcome, attacks: &[AttackSpec]) -> Self {
        let attacked = !report.attacks.is_empty();
        let (clean, robust) = (100.0 * report.clean.accuracy, 100.0 * report.worst_case.robust_accuracy);
        let tradeoff = Tradeoff::of(&report.data).filter(|_| attacked);
        let published = |a: &AttackResult| {
            a.norm == "linf" && (a.eps - 8.0 / 255.0).abs() < 1e-6 && !a.name.starts_with("transfer-")
        };
        let correct = report.clean.correct.max(1) as f64;
        let cost = |passes: Passes| Cost {
            forwards: passes.forwards as f64 / correct,
            gradients: passes.gradients as f64 / correct,
        };
        Self {
            sum: attacked.then_some(clean + robust),
            ardist: tradeoff.map(|curve| curve.distance(clean, robust)),
            ardist_attacks: is_autoattack(&report.attacks) && report.attacks.iter().all(published),
            curves: outcome.curves(attacks),
            distances: (0..outcome.distances.len()).map(|i| outcome.distance(i)).collect(),
            cost: outcome.passes.iter().map(|p| cost(*p)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoattack_is_four_attacks_with_all_their_steps() {
        let attack = |name: &str, eps: f64, steps| AttackResult {
            name: name.into(),
            norm: "linf".into(),
            eps,
            step: 0.0,
            steps,
            restarts: 1,
            robust_correct: 0,
            robust_accuracy: 0.0,
            seconds: 0.0,
        };
        let mut all: Vec<AttackResult> =
            [("apgd-ce", 100), ("apgd-t", 100), ("fab-t", 100), ("square", 5000)]
                .map(|(name, steps)| attack(name, 0.1, steps))
                .into();
        assert!(is_autoattack(&all) && !is_autoattack(&all[1..]) && !is_autoattack(&[]));
        all.push(attack("pgd", 0.2, 20));
        assert!(is_autoattack(&all));
        all[3].steps = 1000;
        assert!(!is_autoattack(&all), "Square with fewer queries");
        all[3] = attack("square", 0.2, 5000);
        assert!(!is_autoattack(&all), "Square in another ball");
    }
}
