//! What the first batch tells of a model, before any attack.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::session::{Images, Session};

/// Passes of the same images, to see whether the model answers the same.
const REPEATS: usize = 5;

/// How far the logits of two passes may be apart, as a part of their length.
const SAME: f64 = 1e-4;

/// How far probabilities and their sum may be off.
const PROBABILITY: f64 = 1e-5;

/// Signs that a model's robustness may not be what gradients make of it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Signs {
    /// The same images got different logits.
    pub randomized: bool,
    /// The logits are probabilities: a softmax is part of the model.
    pub probabilities: bool,
    /// Every image of the batch got the same logits.
    pub constant: bool,
    /// Images of the batch with logits that are not finite.
    pub not_finite: usize,
    /// For each attack: how much its first attempt raised the cross-entropy of the images that it met.
    pub loss_rise: Vec<LossRise>,
}

/// How much the loss of images rises in an attack.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct LossRise {
    /// Written as text: what is saved must be read back to the last bit, and may be no number.
    #[serde(with = "exact")]
    pub sum: f64,
    pub images: usize,
}

mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.to_string().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl LossRise {
    pub(super) fn add(&mut self, clean: f32, attacked: f32) {
        self.sum += f64::from(attacked) - f64::from(clean);
        self.images += 1;
    }

    /// `None` where no image was attacked.
    pub fn mean(&self) -> Option<f64> {
        (self.images > 0).then(|| self.sum / self.images as f64)
    }
}

impl Signs {
    /// Adds what was seen on the images that follow these.
    pub(super) fn append(&mut self, other: &Self) {
        self.randomized |= other.randomized;
        self.probabilities &= other.probabilities;
        self.constant &= other.constant;
        self.not_finite += other.not_finite;
        for (mine, theirs) in self.loss_rise.iter_mut().zip(&other.loss_rise) {
            mine.sum += theirs.sum;
            mine.images += theirs.images;
        }
    }

    /// Looks at the loaded batch.
    pub(super) fn look(&mut self, session: &mut Session, count: usize) -> Result<()> {
        let classes = session.classes();
        let first = session.logits(count, Images::Clean)?;
        for _ in 1..REPEATS {
            let again = session.logits(count, Images::Clean)?;
            self.randomized |= differ(&first, &again, classes);
        }
        self.probabilities = probabilities(&first, classes);
        let rows = || first.chunks_exact(classes);
        self.constant = count > 1 && rows().all(|row| row == &first[..classes]);
        self.not_finite = rows().filter(|row| row.iter().any(|z| !z.is_finite())).count();
        Ok(())
    }
}

/// Whether two passes gave some image another class, or logits in another direction.
fn differ(a: &[f32], b: &[f32], classes: usize) -> bool {
    let length = |row: &[f32]| row.iter().map(|&z| f64::from(z).powi(2)).sum::<f64>().sqrt() + 1e-10;
    a.chunks_exact(classes).zip(b.chunks_exact(classes)).any(|(a, b)| {
        let (long_a, long_b) = (length(a), length(b));
        let apart = |(a, b): (&f32, &f32)| (f64::from(*a) / long_a - f64::from(*b) / long_b).powi(2);
        // Logits that are not finite are another sign.
        a.iter().zip(b).map(apart).sum::<f64>().sqrt() > SAME
    })
}

/// Whether every row is a probability distribution.
fn probabilities(logits: &[f32], classes: usize) -> bool {
    let inside = |z: &f32| (-PROBABILITY..=1.0 + PROBABILITY).contains(&f64::from(*z));
    logits.chunks_exact(classes).all(|row| {
        let sum: f64 = row.iter().map(|&z| f64::from(z)).sum();
        row.iter().all(inside) && (sum - 1.0).abs() <= PROBABILITY
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_told_from_logits() {
        assert!(probabilities(&[0.2, 0.8, 1.0, 0.0], 2));
        assert!(!probabilities(&[0.2, 0.8, 1.0, 0.1], 2));
        assert!(!probabilities(&[-0.2, 1.2], 2));
        assert!(!probabilities(&[f32::NAN, 1.0], 2));
    }

    #[test]
    fn passes_that_differ_are_seen() {
        let logits = [3.0, -1.0, 0.5, 0.25];
        assert!(!differ(&logits, &logits, 2));
        assert!(!differ(&logits, &[3.000_01, -1.0, 0.5, 0.25], 2));
        assert!(differ(&logits, &[3.0, -1.0, 0.5, 0.26], 2));
    }
}
