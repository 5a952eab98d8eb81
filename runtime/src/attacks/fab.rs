//! FAB, the fast adaptive boundary attack: projections onto the linearised boundary, drawn back towards
//! the clean image, look for the nearest adversarial image (Croce and Hein, "Minimally distorted
//! adversarial examples with a fast adaptive boundary attack", 2020). FAB-T knows of one other class at a
//! time; untargeted FAB linearises the boundary to every class, at a gradient for each, and goes to the
//! nearest. The constants are those of AutoAttack.

use super::nearest::{Nearest, combine, length};
use super::{Aim, Attack, Ball, Objective};
use crate::error::Result;
use crate::graph::Variable;
use crate::loss::Loss;
use crate::ops::{
    CopyWhere, FabStep, Function, ImageNorm, KeepWorst, Map, Multiply, Norm, Op, Order, ProjectHyperplane,
    Scale,
};
use crate::session::ModelGraph;
use crate::shape::Shape;

/// How far over the boundary a step goes.
const OVERSHOOT: f32 = 1.05;

/// The largest weight of the way from the clean image.
const MOST: f32 = 0.1;

/// An adversarial image goes back to this part of its distance.
const BACK: f32 = 0.9;

/// Restarts after the first begin at this part of the radius.
const START: f32 = 0.5;

/// Keeps the distance to a boundary without a slope finite.
const TINY: f32 = 1e-12;

/// An image counts as found when the nearest one is inside the ball; else the result is the clean
/// image.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fab {
    pub name: &'static str,
    pub ball: Ball,
    pub steps: u32,
    /// The first starts from the clean image, the others from random ones near it.
    pub restarts: u32,
    /// `Any`: untargeted. `Likely`: FAB-T.
    pub aim: Aim,
}

/// The boundary that a step goes to: the difference of logits there, and its slope.
struct Boundary {
    slope: Variable,
    offset: Variable,
    /// Minus the distance, and whether there is one; of either copy that is kept.
    closeness: [Variable; 2],
    missing: [Variable; 2],
}

impl Attack for Fab {
    fn name(&self) -> &'static str {
        self.name
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn attempts(&self, classes: usize) -> u32 {
        self.restarts * self.aim.targets(classes)
    }

    fn attempt(&self, objective: &mut Objective<'_>, attempt: u32) -> Result<()> {
        let norm = self.ball.norm;
        let nearest = Nearest::new(objective)?;
        let boundary = Boundary::new(objective)?;
        objective.set_loss(Loss::TargetMargin);
        objective.set_targets(self.aim, attempt / self.restarts)?;
        let classes = match self.aim {
            Aim::Any => objective.other_classes()?,
            _ => Vec::new(),
        };
        match attempt % self.restarts {
            0 => objective.start_clean()?,
            restart => {
                objective.set_ball(&Ball { eps: START * self.ball.eps, ..self.ball }, 0.0);
                objective.start_on_surface(norm, restart)?;
            }
        }
        for _ in 0..self.steps {
            if self.aim == Aim::Any {
                boundary.forget(objective);
                for class in &classes {
                    objective.write_targets(class);
                    objective.gradient()?;
                    objective.run("fab boundary", norm as u32, |m| boundary.keep(m, norm))?;
                }
                objective.run("fab step of the nearest", norm as u32, |m| {
                    step(m, norm, boundary.slope, boundary.offset)
                })?;
            } else {
                objective.gradient()?;
                objective
                    .run("fab step", norm as u32, |m| step(m, norm, m.buffers.gradient, m.buffers.loss))?;
            }
            objective.score()?;
            objective.run("fab keep", norm as u32, |m| {
                nearest.keep(m, norm)?;
                go_back(m)
            })?;
        }
        nearest.take(objective, &self.ball)
    }
}

impl Boundary {
    fn new(objective: &mut Objective<'_>) -> Result<Self> {
        let names = ["fab closeness", "fab closeness of the offset"];
        let flags = ["fab missing", "fab missing of the offset"];
        Ok(Self {
            slope: objective.images("fab slope")?,
            offset: objective.values("fab offset")?,
            closeness: [objective.values(names[0])?, objective.values(names[1])?],
            missing: [objective.values(flags[0])?, objective.values(flags[1])?],
        })
    }

    fn forget(&self, objective: &mut Objective<'_>) {
        self.closeness.iter().for_each(|&v| objective.fill(v, f32::MIN));
        self.missing.iter().for_each(|&v| objective.fill(v, 1.0));
    }

    /// Keeps the boundary to the current target where it is nearer than those before: by
    /// `|f| / |w|`, in the norm that is dual to the ball's.
    fn keep(&self, m: &mut ModelGraph, norm: Norm) -> Result<()> {
        let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
        let w = m.graph.variable(m.buffers.gradient, image);
        let offset = m.graph.variable(m.buffers.loss, one);
        let order = match norm {
            Norm::Linf => Order::L1,
            Norm::L2 => Order::L2,
        };
        let size = m.graph.add(Op::ImageNorm(ImageNorm { order }), &[w])?;
        let inverse = Map { function: Function::Reciprocal, scale: 1.0, shift: TINY };
        let inverse = m.graph.add(Op::Map(inverse), &[size])?;
        let height = m.graph.add(Op::Map(Map::plain(Function::Abs)), &[offset])?;
        let distance = m.graph.add(Op::Multiply(Multiply), &[height, inverse])?;
        let closeness = m.graph.add(Op::Scale(Scale { factor: -1.0 }), &[distance])?;
        let found = m.graph.add(Op::Scale(Scale { factor: 0.0 }), &[closeness])?;
        for (i, (kept, from, shape)) in
            [(self.slope, w, image), (self.offset, offset, one)].into_iter().enumerate()
        {
            let kept = m.graph.variable(kept, shape);
            let scores = [self.closeness[i], self.missing[i]].map(|v| m.graph.variable(v, one));
            let inputs = [from, closeness, found];
            m.graph.update(Op::KeepWorst(KeepWorst), &inputs, &[kept, scores[0], scores[1]])?;
        }
        Ok(())
    }
}

/// Over the boundary from where the images are and from the clean ones, and between the two.
fn step(m: &mut ModelGraph, norm: Norm, slope: Variable, offset: Variable) -> Result<()> {
    let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
    let w = m.graph.variable(slope, image);
    let offset = m.graph.variable(offset, one);
    let op = Op::ProjectHyperplane(ProjectHyperplane { norm });
    let own = m.graph.add(op.clone(), &[m.adversarial, m.adversarial, w, offset])?;
    let clean = m.graph.add(op, &[m.images, m.adversarial, w, offset])?;
    let (own_length, clean_length) = (length(m, own, norm)?, length(m, clean, norm)?);
    let op = FabStep { eta: OVERSHOOT, most: MOST };
    m.graph.update(Op::FabStep(op), &[m.images, own, clean, own_length, clean_length], &[m.adversarial])
}

/// Adversarial images go back towards the clean ones.
fn go_back(m: &mut ModelGraph) -> Result<()> {
    let back = combine(m, (BACK, m.adversarial), (1.0 - BACK, m.images))?;
    let correct = m.graph.variable(m.buffers.correct, Shape::per_image(m.count));
    m.graph.update(Op::CopyWhere(CopyWhere { wanted: 0.0 }), &[back, correct], &[m.adversarial])
}
