//! MART: Wang et al., "Improving adversarial robustness requires revisiting misclassified examples",
//! 2020, with the offsets of the authors' code, which keep every logarithm finite.

use super::{Pair, Term};
use crate::error::Result;
use crate::finetune::formula::Formula;
use crate::graph::Graph;
use crate::ops::{Function, LargestOther, Op};

/// `BCE(p', y) + beta KL(p || p') (1.0000001 - p[y])`, where
/// `BCE(p', y) = CE(z', y) - log(1.0001 - max over k != y of p'[k] + 1e-12)`. The gradient flows through
/// every factor.
pub(super) fn terms(g: &mut Graph, pair: &Pair, beta: f32) -> Result<Vec<Term>> {
    let log_q = g.log_softmax(pair.adversarial)?;
    let q = g.exp(log_q)?;
    let cross_entropy = g.cross_entropy(pair.adversarial, pair.labels)?;
    let rival = g.add(Op::LargestOther(LargestOther), &[q, pair.labels])?;
    let margin = g.map(Function::Log, -1.0, 1.0001 + 1e-12, rival)?;
    let boosted = g.minus(cross_entropy, margin)?;

    let log_p = g.log_softmax(pair.clean)?;
    let shifted_log_q = g.map(Function::Log, 1.0, 1e-12, q)?;
    let divergence = g.kl(log_p, shifted_log_q)?;
    let natural = g.cross_entropy(pair.clean, pair.labels)?;
    // p[y] = exp(-CE(z, y))
    let label = g.map(Function::Exp, -1.0, 0.0, natural)?;
    let doubt = g.map(Function::Identity, -1.0, 1.000_000_1, label)?;
    let weighted = g.product(divergence, doubt)?;
    let robust = g.times(beta, weighted)?;
    Ok(vec![("boosted", boosted), ("divergence", robust)])
}
