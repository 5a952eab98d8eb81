//! PGD, projected gradient descent (Madry et al., 2018), for both norms, any loss, with restarts and
//! targets, for as many steps as one likes: every 50, those that it fooled need not go on. BIM (Kurakin et
//! al., 2017) is PGD from the clean image.

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

/// Steps after which images that are misclassified may leave: a long search is for the others.
const STEPS_BETWEEN_LOOKS: u32 = 50;

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
        (0..self.pieces()).try_for_each(|piece| self.piece(objective, attempt, piece))
    }

    fn pieces(&self) -> u32 {
        self.steps.div_ceil(STEPS_BETWEEN_LOOKS).max(1)
    }

    fn piece(&self, objective: &mut Objective<'_>, attempt: u32, piece: u32) -> Result<()> {
        let restart = attempt % self.restarts;
        objective.set_ball(&self.ball, self.step);
        objective.set_loss(self.loss);
        // A random target is drawn anew at each restart.
        let which = if self.aim == Aim::Random { restart } else { attempt / self.restarts };
        objective.set_targets(self.aim, which)?;
        match self.start {
            _ if piece > 0 => {}
            Start::Random => objective.start_random(self.ball.norm, restart)?,
            Start::Clean => objective.start_clean()?,
            Start::Normal => objective.start_normal(restart)?,
        }
        let done = piece * STEPS_BETWEEN_LOOKS;
        for _ in done..self.steps.min(done.saturating_add(STEPS_BETWEEN_LOOKS)) {
            objective.gradient()?;
            objective.step(self.ball.norm)?;
        }
        Ok(())
    }
}
