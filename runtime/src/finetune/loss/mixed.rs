//! Training on clean and adversarial images together.

use super::{Pair, Term};
use crate::error::Result;
use crate::finetune::formula::Formula;
use crate::graph::Graph;

/// `CE(z, y) + beta CE(z', y)`; without `beta` half of `CE(z, y) + CE(z', y)`, which keeps the scale of
/// one cross-entropy (DRA, equations 4 and 5).
pub(super) fn terms(g: &mut Graph, pair: &Pair, beta: Option<f32>) -> Result<Vec<Term>> {
    let clean = g.cross_entropy(pair.clean, pair.labels)?;
    let adversarial = g.cross_entropy(pair.adversarial, pair.labels)?;
    Ok(match beta {
        Some(beta) => vec![("clean", clean), ("adversarial", g.times(beta, adversarial)?)],
        None => vec![("clean", g.times(0.5, clean)?), ("adversarial", g.times(0.5, adversarial)?)],
    })
}
