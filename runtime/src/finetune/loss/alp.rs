//! Adversarial logit pairing: Kannan et al., 2018. Known to mask gradients; here for comparison.

use super::{Pair, Term};
use crate::error::Result;
use crate::finetune::formula::Formula;
use crate::graph::Graph;

/// `(CE(z, y) + CE(z', y)) / 2 + beta |z - z'|^2`.
pub(super) fn terms(g: &mut Graph, pair: &Pair, beta: f32) -> Result<Vec<Term>> {
    let mut terms = super::mixed::terms(g, pair, None)?;
    let difference = g.minus(pair.clean, pair.adversarial)?;
    let squares = g.product(difference, difference)?;
    let distance = g.image_sum(squares)?;
    terms.push(("pairing", g.times(beta, distance)?));
    Ok(terms)
}
