//! PGD, projected gradient descent (Madry et al., 2018), for both norms, with restarts.

use serde::{Deserialize, Serialize};

use super::{Attack, Ball, Objective};
use crate::error::Result;

/// Where the first iterate is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// A random point of the ball.
    #[default]
    Random,
    /// The clean image; every restart is then the same, and one is enough.
    Clean,
    /// The clean image and normal noise of deviation 0.001 (TRADES).
    Normal,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pgd {
    pub ball: Ball,
    /// Step length, in the ball's units.
    pub step: f32,
    pub steps: u32,
    pub start: Start,
    /// Independent starts; the worst result of each image counts: one that is misclassified, or
    /// else the one with the highest loss.
    pub restarts: u32,
}

impl Attack for Pgd {
    fn name(&self) -> &'static str {
        "pgd"
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn perturb(&self, objective: &mut Objective<'_>) -> Result<()> {
        objective.set_ball(&self.ball, self.step);
        let several = self.restarts > 1;
        if several {
            objective.reset_worst();
        }
        for restart in 0..self.restarts {
            match self.start {
                Start::Random => objective.start_random(self.ball.norm, restart)?,
                Start::Clean => objective.start_clean()?,
                Start::Normal => objective.start_normal(restart)?,
            }
            for _ in 0..self.steps {
                objective.gradient()?;
                objective.step(self.ball.norm)?;
            }
            if several {
                objective.keep_worst()?;
            }
        }
        if several {
            objective.take_worst()?;
        }
        Ok(())
    }
}
