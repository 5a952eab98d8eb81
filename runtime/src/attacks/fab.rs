//! FAB-T, the targeted fast adaptive boundary attack: projections onto the linearised boundary to one
//! class, drawn back towards the clean image, look for the nearest adversarial image (Croce and
//! Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", 2020). The
//! constants are those of AutoAttack.

use super::nearest::{Nearest, combine, length};
use super::{Aim, Attack, Ball, Objective};
use crate::error::Result;
use crate::loss::Loss;
use crate::ops::{CopyWhere, FabStep, Norm, Op, ProjectHyperplane};
use crate::session::ModelGraph;
use crate::shape::Shape;

/// How far over the boundary a step goes.
const OVERSHOOT: f32 = 1.05;

/// The largest weight of the way from the clean image.
const MOST: f32 = 0.1;

/// An adversarial image goes back to this part of its distance.
const BACK: f32 = 0.9;

/// An image counts as found when the nearest one is inside the ball; else the result is the clean
/// image.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fab {
    pub ball: Ball,
    pub steps: u32,
}

impl Attack for Fab {
    fn name(&self) -> &'static str {
        "fab-t"
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn attempts(&self, classes: usize) -> u32 {
        Aim::Likely.targets(classes)
    }

    fn attempt(&self, objective: &mut Objective<'_>, attempt: u32) -> Result<()> {
        let norm = self.ball.norm;
        let nearest = Nearest::new(objective)?;
        objective.set_loss(Loss::TargetMargin);
        objective.set_targets(Aim::Likely, attempt)?;
        objective.start_clean()?;
        for _ in 0..self.steps {
            objective.gradient()?;
            objective.run("fab step", norm as u32, |m| step(m, norm))?;
            objective.score()?;
            objective.run("fab keep", norm as u32, |m| {
                nearest.keep(m, norm)?;
                go_back(m)
            })?;
        }
        nearest.take(objective, &self.ball)
    }
}

/// Over the boundary from where the images are and from the clean ones, and between the two.
fn step(m: &mut ModelGraph, norm: Norm) -> Result<()> {
    let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
    let w = m.graph.variable(m.buffers.gradient, image);
    let offset = m.graph.variable(m.buffers.loss, one);
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
