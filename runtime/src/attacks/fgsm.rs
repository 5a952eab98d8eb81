//! FGSM, the fast gradient sign method (Goodfellow et al., 2015): one step of the ball's radius
//! from the clean image.

use super::{Attack, Ball, Objective};
use crate::error::Result;

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fgsm {
    pub ball: Ball,
}

impl Attack for Fgsm {
    fn name(&self) -> &'static str {
        "fgsm"
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn attempt(&self, objective: &mut Objective<'_>, _attempt: u32) -> Result<()> {
        objective.set_ball(&self.ball, self.ball.eps);
        objective.start_clean()?;
        objective.gradient()?;
        objective.step(self.ball.norm)
    }
}
