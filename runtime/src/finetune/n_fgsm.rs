//! N-FGSM: de Jorge et al., "Make some noise: reliable and efficient single-step adversarial training",
//! 2022. Noise of twice the radius and one step of the radius from there, neither taken back to the ball: the
//! larger noise is what keeps a single step from catastrophic overfitting.

use crate::attacks::{Attack, Ball, Objective};
use crate::error::Result;

/// `x' = clip(clip(x + u) + step sign(g))`, u uniform in [-2 eps, 2 eps], g the gradient at x + u.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct NFgsm {
    pub ball: Ball,
    pub step: f32,
}

/// The radius of the noise, in eps: k of the paper.
const NOISE: f32 = 2.0;

impl Attack for NFgsm {
    fn name(&self) -> &'static str {
        "n-fgsm"
    }

    /// Noise and step together.
    fn ball(&self) -> Ball {
        Ball { eps: NOISE * self.ball.eps + self.step, ..self.ball }
    }

    fn attempt(&self, objective: &mut Objective<'_>, _attempt: u32) -> Result<()> {
        objective.set_ball(&Ball { eps: NOISE * self.ball.eps, ..self.ball }, self.step);
        objective.start_random(self.ball.norm, 0)?;
        objective.gradient()?;
        objective.set_ball(&self.ball(), self.step);
        objective.step(self.ball.norm)
    }
}
