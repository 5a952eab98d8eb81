//! Attacks. Each is one small file: a loop over gradient and step. What an attack sees is an
//! [`Objective`]; the ball and the norm are in [`Ball`].

mod fgsm;
mod pgd;
mod spec;

use serde::{Deserialize, Serialize};

pub use fgsm::Fgsm;
pub use pgd::{Pgd, Start};
pub use spec::{AttackSpec, parse_fraction};

use crate::error::Result;
use crate::ops::Norm;
use crate::random::{Purpose, Stream};
use crate::session::Session;

/// The images that an attack may return: within `eps` of the clean one in `norm`, and in [0, 1].
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ball {
    pub norm: Norm,
    /// In units of a pixel's full range, whatever normalisation the network applies.
    pub eps: f32,
}

/// A search for images inside a ball that the model gets wrong.
///
/// The contract: when `perturb` returns, the objective's adversarial images are the result.
pub trait Attack {
    fn name(&self) -> &'static str;

    fn ball(&self) -> Ball;

    fn perturb(&self, objective: &mut Objective<'_>) -> Result<()>;
}

/// What an attack knows of the model: the loss gradient at the current adversarial images of a
/// batch. Everything stays on the device; no call reads back.
pub struct Objective<'a> {
    session: &'a mut Session,
    count: usize,
    seed: u64,
    purpose: Purpose,
    epoch: u32,
    /// Radius and step length of each image, where they differ from image to image.
    balls: Option<&'a [(f32, f32)]>,
    /// What computes the gradient, where it is not that of the cross-entropy.
    gradient: Option<&'a GradientOf>,
}

/// Computes the gradient of the summed loss at the adversarial images of the first so many images of a
/// session, into [`Buffers::gradient`](crate::Buffers::gradient).
pub type GradientOf = dyn Fn(&mut Session, usize) -> Result<()>;

impl<'a> Objective<'a> {
    /// An objective on the loaded batch of `count` images. Random starts are a function of `seed`,
    /// `purpose`, `epoch`, the restart, and each image's data set index.
    pub fn new(session: &'a mut Session, count: usize, seed: u64, purpose: Purpose, epoch: u32) -> Self {
        Self { session, count, seed, purpose, epoch, balls: None, gradient: None }
    }

    /// Gives each image its own radius and step length, whatever ball the attack sets.
    pub fn with_balls(mut self, balls: &'a [(f32, f32)]) -> Self {
        self.balls = Some(balls);
        self
    }

    /// Follows the gradient of another loss than the cross-entropy.
    pub fn with_gradient(mut self, gradient: &'a GradientOf) -> Self {
        self.gradient = Some(gradient);
        self
    }

    /// Sets the ball, and the step length that [`Objective::step`] takes.
    pub fn set_ball(&mut self, ball: &Ball, step: f32) {
        match self.balls {
            Some(balls) => self.session.set_balls(balls),
            None => self.session.set_ball(ball.eps, step),
        }
    }

    /// Starts from the clean images.
    pub fn start_clean(&mut self) -> Result<()> {
        self.session.start_clean(self.count)
    }

    /// Starts from a random point of each ball.
    pub fn start_random(&mut self, norm: Norm, restart: u32) -> Result<()> {
        let stream = Stream::new(self.seed, self.purpose, self.epoch, restart);
        self.session.start_random(self.count, norm, stream.key)
    }

    /// Starts from the clean images and normal noise of deviation 0.001.
    pub fn start_normal(&mut self, restart: u32) -> Result<()> {
        let stream = Stream::new(self.seed, self.purpose, self.epoch, restart);
        self.session.start_normal(self.count, stream.key)
    }

    /// Computes the gradient of the summed loss at the adversarial images.
    pub fn gradient(&mut self) -> Result<()> {
        match self.gradient {
            Some(gradient) => gradient(self.session, self.count),
            None => self.session.gradient(self.count),
        }
    }

    /// Moves the adversarial images along the gradient, staying in the ball and in [0, 1].
    pub fn step(&mut self, norm: Norm) -> Result<()> {
        self.session.step(self.count, norm)
    }

    /// Forgets the worst images of earlier restarts.
    pub fn reset_worst(&mut self) {
        self.session.reset_worst();
    }

    /// Scores the adversarial images and keeps them where they are worse than those kept before.
    pub fn keep_worst(&mut self) -> Result<()> {
        self.session.score(self.count)?;
        self.session.keep_worst(self.count)
    }

    /// Makes the worst images kept the adversarial images.
    pub fn take_worst(&mut self) -> Result<()> {
        self.session.take_worst(self.count)
    }
}
