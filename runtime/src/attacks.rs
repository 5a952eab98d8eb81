//! Attacks. Each is one small file: a loop over gradient and step. What an attack sees is an
//! [`Objective`]; the ball and the norm are in [`Ball`].

mod apgd;
mod cw_l2;
mod deepfool;
mod dra;
mod fab;
mod fgsm;
mod mi_fgsm;
mod mistakes;
mod nearest;
mod objective;
mod pgd;
mod spec;
mod square;

use serde::{Deserialize, Serialize};

pub use apgd::Apgd;
pub use cw_l2::CwL2;
pub use deepfool::DeepFool;
pub use dra::Dra;
pub use fab::Fab;
pub use fgsm::Fgsm;
pub use mi_fgsm::MiFgsm;
pub use objective::{Aim, Objective, Passes};
pub use pgd::{Pgd, Start};
#[cfg(feature = "train")]
pub(crate) use spec::DRA_PART;
pub use spec::DRA_RADIUS;
pub use spec::{AttackSpec, parse_fraction, show_fraction};
pub use square::Square;

use crate::error::Result;
use crate::ops::Norm;

/// The images that an attack may return: within `eps` of the clean one in `norm`, and in [0, 1].
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ball {
    pub norm: Norm,
    /// In units of a pixel's full range, whatever normalisation the network applies.
    pub eps: f32,
}

/// A search for images inside a ball that the model gets wrong.
///
/// The contract: when `attempt` or `perturb` returns, the objective's adversarial images are the
/// result. What happens to an image depends on its own pixels, label and data set index alone,
/// never on the batch that it is in.
pub trait Attack {
    fn name(&self) -> &'static str;

    fn ball(&self) -> Ball;

    /// How many independent attempts there are, restarts and targets, for a model of `classes`.
    fn attempts(&self, _classes: usize) -> u32 {
        1
    }

    /// One attempt, numbered from 0.
    fn attempt(&self, objective: &mut Objective<'_>, attempt: u32) -> Result<()>;

    /// How many pieces an attempt has. Between two of them an image that is misclassified by then may be
    /// taken as the result, and need not go on.
    fn pieces(&self) -> u32 {
        1
    }

    /// One piece of an attempt, numbered from 0; those after the first start from the adversarial images
    /// that the one before left.
    fn piece(&self, objective: &mut Objective<'_>, attempt: u32, _piece: u32) -> Result<()> {
        self.attempt(objective, attempt)
    }

    /// All attempts; the worst result of each image counts: one that is misclassified, or else the
    /// one with the highest cross-entropy.
    fn perturb(&self, objective: &mut Objective<'_>) -> Result<()> {
        let attempts = self.attempts(objective.classes());
        if attempts == 1 {
            return self.attempt(objective, 0);
        }
        objective.reset_worst();
        for attempt in 0..attempts {
            self.attempt(objective, attempt)?;
            objective.keep_worst()?;
        }
        objective.take_worst()
    }
}
