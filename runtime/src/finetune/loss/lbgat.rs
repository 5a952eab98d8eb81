//! LBGAT, learnable boundary guided adversarial training: Cui et al., 2021. A second network is trained on
//! clean images beside the first; the first learns to answer on attacked images what the second answers on
//! the clean ones, and so keeps its boundary.

use super::BatchLoss;
use crate::error::Result;
use crate::finetune::formula::Formula;
use crate::graph::ValueId;
use crate::network::BatchNormMode;
use crate::session::{Images, ModelGraph};

/// `CE(t, y) + |z' - t|^2 / classes + beta KL(p || p')`: t the logits of the clean images by the network with the
/// parameters `partner`, z' the network's of the attacked ones. The gradient reaches both networks.
pub(super) fn add(
    m: &mut ModelGraph,
    mode: BatchNormMode,
    partner: &[ValueId],
    beta: f32,
) -> Result<BatchLoss> {
    let natural = m.forward_with(Images::Clean, partner, mode)?.logits;
    // Without its term, the pass of the clean images is not needed.
    let clean = match beta > 0.0 {
        true => Some(m.logits(Images::Clean, mode)?),
        false => None,
    };
    let forward = m.forward(Images::Adversarial, mode)?;
    m.graph.set_label("loss");
    let (g, labels) = (&mut m.graph, m.labels);
    let cross_entropy = g.cross_entropy(natural, labels)?;
    let difference = g.minus(forward.logits, natural)?;
    let squares = g.product(difference, difference)?;
    let distance = g.image_sum(squares)?;
    let boundary = g.times(1.0 / g.shape(natural).per_batch() as f32, distance)?;
    let mut losses = g.plus(cross_entropy, boundary)?;
    let mut terms = vec![("clean", cross_entropy), ("boundary", boundary)];
    if let Some(clean) = clean {
        let (log_p, log_q) = (g.log_softmax(clean)?, g.log_softmax(forward.logits)?);
        let divergence = g.kl(log_p, log_q)?;
        let robust = g.times(beta, divergence)?;
        losses = g.plus(losses, robust)?;
        terms.push(("divergence", robust));
    }
    Ok(BatchLoss { losses, terms, forward })
}
