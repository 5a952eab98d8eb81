//! Training on a batch in parts, where a memory limit leaves no room for the whole: gradients of the parts are
//! summed, and one update takes the sum.
//!
//! The loss of a batch is the mean of the losses of its images, so that the sum is the gradient of the whole batch.
//! What looks at several images at once is not the same: BatchNorm in training mode takes its statistics from each
//! part.

use super::attack::AttackKind;
use super::branch::Branch;
use super::loss::LossKind;
use super::recipe::Recipe;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::graph::{ValueId, Variable};
use crate::ops::{Accumulate, Fill, Op};
use crate::optim::Optimizer;
use crate::session::{ModelGraph, Session};
use crate::shape::Shape;

/// Refuses what cannot be done in parts, with the reason.
pub(super) fn check(recipe: &Recipe) -> Result<()> {
    let reason = match (recipe.attack.kind, recipe.loss.kind) {
        (AttackKind::Free, _) => "attack.kind = free moves the images by the gradient of each update",
        (AttackKind::Yopo, _) => "attack.kind = yopo keeps the gradient of the first layer's output",
        (_, LossKind::Mixup) => "loss.kind = mixup mixes the images of a whole batch",
        (_, LossKind::Interpolated) => "loss.kind = interpolated mixes the images of a whole batch",
        _ => return Ok(()),
    };
    Err(Error::Limit(format!(
        "{reason}, so that a batch cannot be trained on in parts to stay within a memory limit; raise \
         --memory-limit or take a smaller --batch"
    )))
}

/// The parts of a batch, of `most` images each; the last may have fewer.
pub(super) fn parts(batch: &Batch, most: usize) -> Vec<Batch> {
    let image = batch.images.len() / batch.len().max(1);
    let part = |(labels, indices): (&[u32], &[u32]), images: &[f32]| Batch {
        images: images.to_vec(),
        labels: labels.to_vec(),
        indices: indices.to_vec(),
    };
    let keys = batch.labels.chunks(most).zip(batch.indices.chunks(most));
    keys.zip(batch.images.chunks((most * image).max(1))).map(|(keys, images)| part(keys, images)).collect()
}

/// Sums of gradients over the parts of a batch.
pub(super) struct Sums {
    /// Of each parameter that trains, by its position among the network's.
    own: Vec<(usize, Variable, Shape)>,
    /// Of each of the branch that does.
    second: Vec<(Variable, Shape)>,
}

impl Sums {
    pub fn new(optimizer: &Optimizer, branch: Option<&Branch>, session: &mut Session) -> Result<Self> {
        let shapes: Vec<Shape> = session.network().parameters.iter().map(|p| p.shape).collect();
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for i in optimizer.positions() {
            own.push((i, session.device().variable(shapes[i].len())?, shapes[i]));
        }
        for i in branch.into_iter().flat_map(Branch::positions) {
            others.push((session.device().variable(shapes[i].len())?, shapes[i]));
        }
        Ok(Self { own, second: others })
    }

    /// Sums := 0.
    pub fn reset(&self, session: &mut Session) -> Result<()> {
        session.run("no gradients", 1, |m| {
            let own = self.own.iter().map(|&(_, sum, shape)| (sum, shape));
            for (sum, shape) in own.chain(self.second.iter().copied()) {
                let sum = m.graph.variable(sum, shape);
                m.graph.update(Op::Fill(Fill { value: 0.0, shape }), &[], &[sum])?;
            }
            Ok(())
        })
    }

    /// Adds the gradients of a part, in the order of the parameters that train: the network's, then the branch's.
    pub fn add(&self, m: &mut ModelGraph, gradients: &[ValueId]) -> Result<()> {
        m.graph.set_label("sum of gradients");
        let sums = self.own.iter().map(|&(_, sum, _)| sum).chain(self.second.iter().map(|&(sum, _)| sum));
        for (sum, &gradient) in sums.zip(gradients) {
            add_to(m, sum, gradient)?;
        }
        Ok(())
    }

    /// As [`Sums::add`], of these of the network's parameters alone.
    pub fn add_of(&self, m: &mut ModelGraph, positions: &[usize], gradients: &[ValueId]) -> Result<()> {
        m.graph.set_label("sum of gradients");
        for (&position, &gradient) in positions.iter().zip(gradients) {
            add_to(m, self.of(position).0, gradient)?;
        }
        Ok(())
    }

    fn of(&self, position: usize) -> (Variable, Shape) {
        let found = self.own.iter().find(|(i, _, _)| *i == position);
        let &(_, sum, shape) = found.expect("AWP moves weights of layers that train");
        (sum, shape)
    }

    /// The sums of these of the network's parameters.
    pub fn values_of(&self, m: &mut ModelGraph, positions: &[usize]) -> Vec<ValueId> {
        let sums = positions.iter().map(|&position| self.of(position));
        sums.map(|(sum, shape)| m.graph.variable(sum, shape)).collect()
    }

    /// All sums, in the same order.
    pub fn values(&self, m: &mut ModelGraph) -> Vec<ValueId> {
        let own = self.own.iter().map(|&(_, sum, shape)| (sum, shape));
        own.chain(self.second.iter().copied()).map(|(sum, shape)| m.graph.variable(sum, shape)).collect()
    }
}

fn add_to(m: &mut ModelGraph, sum: Variable, gradient: ValueId) -> Result<()> {
    let sum = m.graph.variable(sum, m.graph.shape(gradient));
    m.graph.update(Op::Accumulate(Accumulate), &[gradient], &[sum])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_batch_in_order() {
        let batch = Batch {
            images: (0..14_u8).map(f32::from).collect(),
            labels: (0..7).collect(),
            indices: (10..17).collect(),
        };
        let found = parts(&batch, 3);
        assert_eq!(found.iter().map(Batch::len).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(found[1].labels, [3, 4, 5]);
        assert_eq!(found.iter().flat_map(|p| p.images.clone()).collect::<Vec<_>>(), batch.images);
        assert_eq!(found.iter().flat_map(|p| p.indices.clone()).collect::<Vec<_>>(), batch.indices);
        assert_eq!(parts(&batch, 7), std::slice::from_ref(&batch));
    }
}
