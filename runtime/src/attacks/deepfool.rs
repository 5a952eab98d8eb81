//! DeepFool: the smallest step over the nearest of the linearised boundaries, again and again, until
//! the image is misclassified (Moosavi-Dezfooli et al., "DeepFool: a simple and accurate method to
//! fool deep neural networks", 2016; in linf, its section 3.3). Unlike the paper's, each step stays in
//! [0, 1] and is the smallest that does.

use super::nearest::{Nearest, length};
use super::{Aim, Attack, Ball, Objective};
use crate::error::Result;
use crate::loss::Loss;
use crate::ops::{CopyWhere, Fill, KeepWorst, MoveAlong, Op, ProjectHyperplane, Scale};
use crate::shape::Shape;

/// How far over the boundary a step goes.
const OVERSHOOT: f32 = 1.02;

/// An image counts as found when it is misclassified inside the ball; else the result is the clean
/// image.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DeepFool {
    pub ball: Ball,
    pub steps: u32,
}

impl Attack for DeepFool {
    fn name(&self) -> &'static str {
        "deepfool"
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn attempt(&self, objective: &mut Objective<'_>, _attempt: u32) -> Result<()> {
        let norm = self.ball.norm;
        let nearest = Nearest::new(objective)?;
        let shortest = objective.images("deepfool step")?;
        let shortness = objective.values("deepfool shortness")?;
        let sort = objective.values("deepfool sort")?;
        let classes = Aim::Likely.targets(objective.classes());
        let targets: Vec<_> =
            (0..classes).map(|k| objective.targets(Aim::Likely, k)).collect::<Result<_>>()?;
        objective.set_loss(Loss::TargetMargin);
        objective.start_clean()?;
        for _ in 0..self.steps {
            objective.fill(shortness, f32::MIN);
            // Steps are of one sort: the shortest wins.
            objective.fill(sort, 1.0);
            for class in &targets {
                objective.write_targets(class);
                objective.gradient()?;
                objective.run("deepfool boundary", norm as u32, |m| {
                    let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
                    let w = m.graph.variable(m.buffers.gradient, image);
                    let offset = m.graph.variable(m.buffers.loss, one);
                    let op = Op::ProjectHyperplane(ProjectHyperplane { norm });
                    let step = m.graph.add(op, &[m.adversarial, m.adversarial, w, offset])?;
                    let long = length(m, step, norm)?;
                    let short = m.graph.add(Op::Scale(Scale { factor: -1.0 }), &[long])?;
                    let own_sort = m.graph.add(Op::Fill(Fill { value: 1.0, shape: one }), &[])?;
                    let kept = m.graph.variable(shortest, image);
                    let scores = [shortness, sort].map(|v| m.graph.variable(v, one));
                    let inputs = [step, short, own_sort];
                    m.graph.update(Op::KeepWorst(KeepWorst), &inputs, &[kept, scores[0], scores[1]])
                })?;
            }
            objective.run("deepfool step", 0, |m| {
                let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
                let step = m.graph.variable(shortest, image);
                let mut all = |value| m.graph.add(Op::Fill(Fill { value, shape: one }), &[]);
                let (unit, far) = (all(1.0)?, all(OVERSHOOT)?);
                let moved = m.graph.add(Op::MoveAlong(MoveAlong), &[m.adversarial, step, unit, far])?;
                // Images that are misclassified stay where they are.
                let correct = m.graph.variable(m.buffers.correct, one);
                m.graph.update(Op::CopyWhere(CopyWhere { wanted: 1.0 }), &[moved, correct], &[m.adversarial])
            })?;
            objective.score()?;
            objective.run("deepfool keep", norm as u32, |m| nearest.keep(m, norm))?;
        }
        nearest.take(objective, &self.ball)
    }
}
