//! Adversarial logit pairing: Kannan et al., 2018. Known to mask gradients; here for comparison.

use super::Pair;
use crate::error::Result;
use crate::finetune::formula::Formula;
use crate::graph::{Graph, ValueId};

/// `(CE(z, y) + CE(z', y)) / 2 + beta |z - z'|^2`.
pub(super) fn losses(g: &mut Graph, pair: &Pair, beta: f32) -> Result<ValueId> {
    let both = super::mixed::losses(g, pair, None)?;
    let difference = g.minus(pair.clean, pair.adversarial)?;
    let squares = g.product(difference, difference)?;
    let distance = g.image_sum(squares)?;
    let pairing = g.times(beta, distance)?;
    g.plus(both, pairing)
}
