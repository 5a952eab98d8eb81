//! What an evaluation measured: the claims that a package carries and `evaluate --json` prints.

use serde::{Deserialize, Serialize};

/// The result of attacking a model on a data set.
///
/// Serialised with names it is the JSON of `evaluate --json`; packages store it by position. So
/// a field is never renamed, and a new one needs a new version of the package's metadata.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// Version of these fields: [`EvaluationReport::SCHEMA`].
    pub schema: u32,
    /// The model, as the user named it.
    pub model: String,
    /// The data set's kind, such as `cifar10`.
    pub data: String,
    /// `train` or `test`.
    pub split: String,
    /// Number of images evaluated: what every `correct` is a part of.
    pub images: u64,
    pub seed: u64,
    /// The adapter that computed it, or `cpu`.
    pub device: String,
    pub clean: CleanResult,
    pub attacks: Vec<AttackResult>,
    pub worst_case: WorstCase,
    /// Signs that the robustness may be overestimated.
    pub warnings: Vec<Warning>,
}

/// Accuracy on unchanged images.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct CleanResult {
    pub correct: u64,
    /// Part of all images, 0 to 1.
    pub accuracy: f64,
}

/// Accuracy under one attack.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttackResult {
    pub name: String,
    /// `linf` or `l2`.
    pub norm: String,
    /// Radius of the ball around each image, in units of pixels from 0 to 1.
    pub eps: f64,
    /// Size of one step, in the same unit.
    pub step: f64,
    pub steps: u32,
    /// Number of starts for each image; the worst of them counts.
    pub restarts: u32,
    /// Images classified correctly both clean and attacked.
    pub robust_correct: u64,
    /// Part of all images, 0 to 1.
    pub robust_accuracy: f64,
    pub seconds: f64,
}

/// Accuracy when each image meets whichever of the attacks fools it; without attacks, the clean
/// accuracy.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorstCase {
    pub robust_correct: u64,
    /// Part of all images, 0 to 1.
    pub robust_accuracy: f64,
}

/// A sign that an accuracy says less than it seems to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Warning {
    /// A fixed short name for programs, such as `zero-gradient`.
    pub flag: String,
    /// What was seen and what it means, for people.
    pub message: String,
}

impl EvaluationReport {
    /// The version of the fields that this Adamant writes.
    pub const SCHEMA: u32 = 1;
}

/// `correct` as a part of `images`; 0 when there are none.
pub(crate) fn fraction(correct: u64, images: u64) -> f64 {
    if images == 0 { 0.0 } else { correct as f64 / images as f64 }
}

/// The interval in which the accuracy on all images of this kind lies with 95% confidence, when
/// `correct` of `images` drawn from them are correct: Wilson's score interval (1927), which stays
/// within 0 and 1. Without images it is all of that.
pub fn wilson(correct: u64, images: u64) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    if images == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (images as f64, fraction(correct, images));
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0)]
}

impl CleanResult {
    pub fn new(correct: u64, images: u64) -> Self {
        Self { correct, accuracy: fraction(correct, images) }
    }
}

impl WorstCase {
    pub fn new(robust_correct: u64, images: u64) -> Self {
        Self { robust_correct, robust_accuracy: fraction(robust_correct, images) }
    }
}

impl AttackResult {
    /// Sets the number of images that withstood the attack, out of `images`.
    pub fn set_correct(&mut self, robust_correct: u64, images: u64) {
        self.robust_correct = robust_correct;
        self.robust_accuracy = fraction(robust_correct, images);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are a contract with programs that read the JSON.
    #[test]
    fn field_names_are_the_contract() {
        let report = EvaluationReport {
            schema: EvaluationReport::SCHEMA,
            model: "m.onnx".into(),
            data: "cifar10".into(),
            split: "test".into(),
            images: 1000,
            seed: 0,
            device: "cpu".into(),
            clean: CleanResult::new(917, 1000),
            attacks: vec![AttackResult {
                name: "pgd".into(),
                norm: "linf".into(),
                eps: 0.03125,
                step: 0.0078125,
                steps: 20,
                restarts: 1,
                robust_correct: 1,
                robust_accuracy: 0.001,
                seconds: 12.5,
            }],
            worst_case: WorstCase::new(1, 1000),
            warnings: vec![Warning { flag: "zero-gradient".into(), message: "...".into() }],
        };
        // TOML stands in for JSON: both write the names and numbers that serde hands them.
        let expected = r#"
            schema = 1
            model = "m.onnx"
            data = "cifar10"
            split = "test"
            images = 1000
            seed = 0
            device = "cpu"
            clean = { correct = 917, accuracy = 0.917 }
            worst_case = { robust_correct = 1, robust_accuracy = 0.001 }
            [[attacks]]
            name = "pgd"
            norm = "linf"
            eps = 0.03125
            step = 0.0078125
            steps = 20
            restarts = 1
            robust_correct = 1
            robust_accuracy = 0.001
            seconds = 12.5
            [[warnings]]
            flag = "zero-gradient"
            message = "..."
        "#;
        let expected: toml::Table = expected.parse().unwrap();
        assert_eq!(toml::Table::try_from(&report).unwrap(), expected);
    }

    /// Wilson's formula, worked out elsewhere.
    #[test]
    fn intervals_are_wilsons() {
        for (correct, images, expected) in [
            (5, 10, [0.236_593_1, 0.763_406_9]),
            (0, 20, [0.0, 0.161_125_2]),
            (100, 100, [0.963_006_5, 1.0]),
            (493, 1000, [0.462_099_4, 0.523_954_2]),
        ] {
            let found = wilson(correct, images);
            let near = found.iter().zip(expected).all(|(f, e): (&f64, f64)| (f - e).abs() < 2e-6);
            assert!(near, "{correct} of {images}: {found:?}");
        }
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
    }

    #[test]
    fn no_images_is_no_accuracy() {
        assert_eq!(CleanResult::new(0, 0).accuracy, 0.0);
    }
}
