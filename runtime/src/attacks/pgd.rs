//! PGD, projected gradient descent (Madry et al., 2018), for both norms, any loss, with restarts and
//! targets. BIM (Kurakin et al., 2017) is PGD from the clean image.

use serde::{Deserialize, Serialize};

use super::{Aim, Attack, Ball, Objective};
use crate::error::Result;
use crate::loss::Loss;

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
    pub name: &'static str,
    pub ball: Ball,
    /// Step length, in the ball's units.
    pub step: f32,
    pub steps: u32,
    pub start: Start,
    /// Independent starts; the worst result of each image counts: one that is misclassified, or
    /// else the one with the highest cross-entropy.
    pub restarts: u32,
    pub loss: Loss,
    pub aim: Aim,
}

impl Attack for Pgd {
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
        let restart = attempt % self.restarts;
        objective.set_ball(&self.ball, self.step);
        objective.set_loss(self.loss);
        // A random target is drawn anew at each restart.
        let which = if self.aim == Aim::Random { restart } else { attempt / self.restarts };
        objective.set_targets(self.aim, which)?;
        match self.start {
            Start::Random => objective.start_random(self.ball.norm, restart)?,
            Start::Clean => objective.start_clean()?,
            Start::Normal => objective.start_normal(restart)?,
        }
        for _ in 0..self.steps {
            objective.gradient()?;
            objective.step(self.ball.norm)?;
        }
        Ok(())
    }
}
