//! TRADES: Zhang et al., "Theoretically principled trade-off between robustness and accuracy", 2019.

use super::{Pair, Term};
use crate::error::Result;
use crate::finetune::formula::Formula;
use crate::graph::Graph;

/// `CE(z, y) + beta KL(p || p')` with p = softmax(z), p' = softmax(z'); the gradient flows through
/// both distributions.
pub(super) fn terms(g: &mut Graph, pair: &Pair, beta: f32) -> Result<Vec<Term>> {
    let natural = g.cross_entropy(pair.clean, pair.labels)?;
    let log_p = g.log_softmax(pair.clean)?;
    let log_q = g.log_softmax(pair.adversarial)?;
    let divergence = g.kl(log_p, log_q)?;
    let robust = g.times(beta, divergence)?;
    Ok(vec![("clean", natural), ("divergence", robust)])
}
