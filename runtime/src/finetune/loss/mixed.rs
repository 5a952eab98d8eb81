//! Training on clean and adversarial images together.

use super::Pair;
use crate::error::Result;
use crate::finetune::formula::Formula;
use crate::graph::{Graph, ValueId};

/// `CE(z, y) + beta CE(z', y)`; without `beta` half of `CE(z, y) + CE(z', y)`, which keeps the scale of
/// one cross-entropy (DRA, equations 4 and 5).
pub(super) fn losses(g: &mut Graph, pair: &Pair, beta: Option<f32>) -> Result<ValueId> {
    let clean = g.cross_entropy(pair.clean, pair.labels)?;
    let adversarial = g.cross_entropy(pair.adversarial, pair.labels)?;
    match beta {
        Some(beta) => {
            let adversarial = g.times(beta, adversarial)?;
            g.plus(clean, adversarial)
        }
        None => {
            let both = g.plus(clean, adversarial)?;
            g.times(0.5, both)
        }
    }
}
