//! MI-FGSM, the momentum iterative method: steps along a decaying sum of gradients, each scaled to
//! a mean magnitude of 1 (Dong et al., "Boosting adversarial attacks with momentum", 2018).

use super::{Attack, Ball, Objective};
use crate::error::Result;
use crate::ops::{AccumulateDirection, AttackStep, Fill, ImageNorm, Op, Order};
use crate::shape::Shape;

/// What a step keeps of the directions before it: mu of the paper.
const DECAY: f32 = 1.0;

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MiFgsm {
    pub ball: Ball,
    /// Step length, in the ball's units.
    pub step: f32,
    pub steps: u32,
}

impl Attack for MiFgsm {
    fn name(&self) -> &'static str {
        "mi-fgsm"
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn attempt(&self, objective: &mut Objective<'_>, _attempt: u32) -> Result<()> {
        objective.set_ball(&self.ball, self.step);
        objective.start_clean()?;
        let momentum = objective.images("mi-fgsm momentum")?;
        objective.run("mi-fgsm reset", 0, |m| {
            let shape = m.graph.shape(m.images);
            let momentum = m.graph.variable(momentum, shape);
            m.graph.update(Op::Fill(Fill { value: 0.0, shape }), &[], &[momentum])
        })?;
        for _ in 0..self.steps {
            objective.gradient()?;
            let norm = self.ball.norm;
            objective.run("mi-fgsm step", norm as u32, |m| {
                let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
                let gradient = m.graph.variable(m.buffers.gradient, image);
                let momentum = m.graph.variable(momentum, image);
                let size = m.graph.add(Op::ImageNorm(ImageNorm { order: Order::L1 }), &[gradient])?;
                let op = AccumulateDirection { decay: DECAY };
                m.graph.update(Op::AccumulateDirection(op), &[gradient, size], &[momentum])?;
                let radius = m.graph.variable(m.buffers.radius, one);
                let step = m.graph.variable(m.buffers.step, one);
                let inputs = [m.images, momentum, radius, step];
                m.graph.update(Op::AttackStep(AttackStep { norm }), &inputs, &[m.adversarial])
            })?;
        }
        Ok(())
    }
}
