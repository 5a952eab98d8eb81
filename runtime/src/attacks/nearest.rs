//! The nearest adversarial images of a search for small perturbations.

use super::{Ball, Objective};
use crate::error::Result;
use crate::graph::{ValueId, Variable};
use crate::ops::{Add, Copy, CopyWhere, ImageNorm, KeepWorst, Norm, Op, Order, Scale};
use crate::session::ModelGraph;
use crate::shape::Shape;

/// What is kept of each image: its nearest adversarial image so far.
pub(super) struct Nearest {
    image: Variable,
    /// Minus its distance.
    closeness: Variable,
    /// 0 where there is one, else 1.
    missing: Variable,
}

impl Nearest {
    pub(super) fn new(objective: &mut Objective<'_>) -> Result<Self> {
        let image = objective.images("nearest")?;
        let (closeness, missing) = (objective.values("closeness")?, objective.values("missing")?);
        // No image that is still classified correctly is closer than this.
        objective.fill(closeness, f32::MAX);
        objective.fill(missing, 1.0);
        Ok(Self { image, closeness, missing })
    }

    /// Keeps the adversarial images that are misclassified, where they are nearer than those before.
    pub(super) fn keep(&self, m: &mut ModelGraph, norm: Norm) -> Result<()> {
        let correct = m.graph.variable(m.buffers.correct, Shape::per_image(m.count));
        self.keep_where(m, norm, correct)
    }

    /// The same, where `correct` says which images are not yet where they are wanted.
    pub(super) fn keep_where(&self, m: &mut ModelGraph, norm: Norm, correct: ValueId) -> Result<()> {
        let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
        let away = combine(m, (1.0, m.adversarial), (-1.0, m.images))?;
        let distance = length(m, away, norm)?;
        let closeness = m.graph.add(Op::Scale(Scale { factor: -1.0 }), &[distance])?;
        let kept = [self.closeness, self.missing].map(|v| m.graph.variable(v, one));
        let nearest = m.graph.variable(self.image, image);
        let inputs = [m.adversarial, closeness, correct];
        m.graph.update(Op::KeepWorst(KeepWorst), &inputs, &[nearest, kept[0], kept[1]])
    }

    /// The nearest images become the adversarial ones where they are inside the ball; elsewhere the
    /// clean images do.
    pub(super) fn take(&self, objective: &mut Objective<'_>, ball: &Ball) -> Result<()> {
        let (closeness, missing) = (objective.read(self.closeness)?, objective.read(self.missing)?);
        let inside = |(closeness, missing): (f32, f32)| missing == 0.0 && -closeness <= ball.eps;
        let found: Vec<f32> = closeness.into_iter().zip(missing).map(|f| inside(f).into()).collect();
        objective.write(self.missing, &found);
        objective.run("nearest take", 0, |m| {
            m.graph.update(Op::Copy(Copy), &[m.images], &[m.adversarial])?;
            let nearest = m.graph.variable(self.image, m.graph.shape(m.images));
            let found = m.graph.variable(self.missing, Shape::per_image(m.count));
            m.graph.update(Op::CopyWhere(CopyWhere { wanted: 1.0 }), &[nearest, found], &[m.adversarial])
        })
    }
}

/// The norm of each image.
pub(super) fn length(m: &mut ModelGraph, x: ValueId, norm: Norm) -> Result<ValueId> {
    let order = match norm {
        Norm::Linf => Order::Max,
        Norm::L2 => Order::L2,
    };
    m.graph.add(Op::ImageNorm(ImageNorm { order }), &[x])
}

/// `a x + b y`.
pub(super) fn combine(m: &mut ModelGraph, (a, x): (f32, ValueId), (b, y): (f32, ValueId)) -> Result<ValueId> {
    let x = m.graph.add(Op::Scale(Scale { factor: a }), &[x])?;
    let y = m.graph.add(Op::Scale(Scale { factor: b }), &[y])?;
    m.graph.add(Op::Add(Add), &[x, y])
}
