//! The first misclassified images of a search that may go on after it has found them.

use super::Objective;
use crate::error::Result;
use crate::graph::Variable;
use crate::ops::{Add, Copy, CopyWhere, Op, Scale};
use crate::session::ModelGraph;
use crate::shape::Shape;

/// Images that were misclassified on the way. The first counts, not the last: when a search may stop
/// depends on the whole batch, and what is found for an image must not.
pub(super) struct Mistakes {
    found: Variable,
    /// Per image: 1 until it is misclassified, then 0.
    withstands: Variable,
}

impl Mistakes {
    pub(super) fn new(objective: &mut Objective<'_>) -> Result<Self> {
        let found = objective.images("mistakes")?;
        let withstands = objective.values("withstands")?;
        objective.fill(withstands, 1.0);
        Ok(Self { found, withstands })
    }

    /// Keeps the adversarial images that are misclassified for the first time; `correct` says which
    /// are wrong.
    pub(super) fn keep(&self, m: &mut ModelGraph) -> Result<()> {
        let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
        let correct = m.graph.variable(m.buffers.correct, one);
        let withstands = m.graph.variable(self.withstands, one);
        // correct - 2 withstands is -2 for those alone that are wrong now and were never before.
        let twice = m.graph.add(Op::Scale(Scale { factor: -2.0 }), &[withstands])?;
        let first = m.graph.add(Op::Add(Add), &[correct, twice])?;
        let found = m.graph.variable(self.found, image);
        m.graph.update(Op::CopyWhere(CopyWhere { wanted: -2.0 }), &[m.adversarial, first], &[found])?;
        m.graph.update(Op::CopyWhere(CopyWhere { wanted: -2.0 }), &[correct, first], &[withstands])
    }

    /// Whether nothing is left to do. The device finishes its work first.
    pub(super) fn all(&self, objective: &mut Objective<'_>) -> Result<bool> {
        Ok(objective.read(self.withstands)?.iter().all(|&w| w == 0.0))
    }

    /// The adversarial images become what was found, and `otherwise` where nothing was.
    pub(super) fn take(&self, m: &mut ModelGraph, otherwise: Variable) -> Result<()> {
        let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
        let otherwise = m.graph.variable(otherwise, image);
        m.graph.update(Op::Copy(Copy), &[otherwise], &[m.adversarial])?;
        let found = m.graph.variable(self.found, image);
        let withstands = m.graph.variable(self.withstands, one);
        m.graph.update(Op::CopyWhere(CopyWhere { wanted: 0.0 }), &[found, withstands], &[m.adversarial])
    }
}
