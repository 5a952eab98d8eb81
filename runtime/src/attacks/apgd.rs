//! APGD, Auto-PGD: projected gradient descent with momentum whose step halves, image by image, when
//! the loss stops rising (Croce and Hein, "Reliable evaluation of adversarial robustness with an
//! ensemble of diverse parameter-free attacks", 2020). The constants and the order of the steps are
//! those of the authors' code.

use super::mistakes::Mistakes;
use super::{Aim, Attack, Ball, Objective};
use crate::error::Result;
use crate::graph::Variable;
use crate::loss::Loss;
use crate::ops::{ApgdCheckpoint, ApgdTrack, AttackStep, Copy, CopyWhere, Mix, Norm, Op};
use crate::session::ModelGraph;
use crate::shape::Shape;

/// The part of a step that is new; the rest repeats the step before.
const KEEP: f32 = 0.75;

/// An image that is misclassified on the way is a result, wherever the search goes on to (the
/// authors keep the last of them, here it is the first); the result of an image that never is, is
/// the clean image.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Apgd {
    pub name: &'static str,
    pub ball: Ball,
    pub steps: u32,
    pub restarts: u32,
    pub loss: Loss,
    pub aim: Aim,
}

/// What APGD keeps of a batch.
struct State {
    candidate: Variable,
    previous: Variable,
    /// The images with the highest loss, and the gradient there.
    best: Variable,
    best_gradient: Variable,
    mistakes: Mistakes,
    best_loss: Variable,
    last_loss: Variable,
    balance: Variable,
    improved: Variable,
    checked_loss: Variable,
    halved: Variable,
}

impl Attack for Apgd {
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
        objective.set_ball(&self.ball, 2.0 * self.ball.eps);
        objective.set_loss(self.loss);
        objective.set_targets(self.aim, attempt / self.restarts)?;
        let state = State::new(objective)?;
        objective.start_on_surface(self.ball.norm, attempt % self.restarts)?;
        self.search(objective, &state)
    }
}

impl Apgd {
    /// From the adversarial images as they are: the rest of an attempt after its random start.
    fn search(&self, objective: &mut Objective<'_>, state: &State) -> Result<()> {
        state.reset(objective);
        objective.gradient()?;
        objective.run("apgd first", 0, |m| state.first(m))?;
        let mut checkpoints = checkpoints(self.steps).peekable();
        for i in 0..self.steps {
            let keep = if i == 0 { 1.0 } else { KEEP };
            let norm = self.ball.norm;
            let variant = 2 * norm as u32 + u32::from(i == 0);
            objective.run("apgd step", variant, |m| state.step(m, norm, keep))?;
            objective.gradient()?;
            objective.run("apgd track", 0, |m| state.track(m))?;
            if checkpoints.next_if_eq(&(i + 1)).is_some() {
                objective.run("apgd checkpoint", 0, |m| state.checkpoint(m))?;
                // The one look from outside: nothing is left to do once every image is misclassified.
                if state.mistakes.all(objective)? {
                    break;
                }
            }
        }
        objective.run("apgd end", 0, |m| state.mistakes.take(m, m.buffers.images))
    }
}

/// The numbers of steps after which step lengths are looked at.
fn checkpoints(steps: u32) -> impl Iterator<Item = u32> {
    let part = |p: f64| ((p * f64::from(steps)) as u32).max(1);
    let (first, shorter, least) = (part(0.22), part(0.03), part(0.06));
    let mut window = first;
    let mut at = 0;
    std::iter::from_fn(move || {
        at += window;
        window = window.saturating_sub(shorter).max(least);
        Some(at)
    })
    .take_while(move |&at| at <= steps)
}

impl State {
    fn new(objective: &mut Objective<'_>) -> Result<Self> {
        Ok(Self {
            candidate: objective.images("apgd candidate")?,
            previous: objective.images("apgd previous")?,
            best: objective.images("apgd best")?,
            best_gradient: objective.images("apgd best gradient")?,
            mistakes: Mistakes::new(objective)?,
            best_loss: objective.values("apgd best loss")?,
            last_loss: objective.values("apgd last loss")?,
            balance: objective.values("apgd balance")?,
            improved: objective.values("apgd improved")?,
            checked_loss: objective.values("apgd checked loss")?,
            halved: objective.values("apgd halved")?,
        })
    }

    fn reset(&self, objective: &mut Objective<'_>) {
        objective.fill(self.balance, 0.0);
        // The authors' first comparison is with a loss of 0, and a step is taken to have been halved
        // before the first checkpoint.
        objective.fill(self.last_loss, 0.0);
        objective.fill(self.halved, 1.0);
    }

    fn copy(m: &mut ModelGraph, from: Variable, to: Variable, shape: Shape) -> Result<()> {
        let (from, to) = (m.graph.variable(from, shape), m.graph.variable(to, shape));
        m.graph.update(Op::Copy(Copy), &[from], &[to])
    }

    /// `to := from` for the images whose `flag` is `wanted`.
    fn copy_where(
        m: &mut ModelGraph,
        (flag, wanted): (Variable, f32),
        from: Variable,
        to: Variable,
        shape: Shape,
    ) -> Result<()> {
        let flag = m.graph.variable(flag, Shape::per_image(m.count));
        let (from, to) = (m.graph.variable(from, shape), m.graph.variable(to, shape));
        m.graph.update(Op::CopyWhere(CopyWhere { wanted }), &[from, flag], &[to])
    }

    /// After the first gradient: the start is the best point so far.
    fn first(&self, m: &mut ModelGraph) -> Result<()> {
        let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
        let b = m.buffers;
        Self::copy(m, b.adversarial, self.previous, image)?;
        Self::copy(m, b.adversarial, self.best, image)?;
        Self::copy(m, b.gradient, self.best_gradient, image)?;
        Self::copy(m, b.loss, self.best_loss, one)?;
        Self::copy(m, b.loss, self.checked_loss, one)?;
        self.mistakes.keep(m)
    }

    /// A step along the gradient, and the momentum.
    fn step(&self, m: &mut ModelGraph, norm: Norm, keep: f32) -> Result<()> {
        let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
        let b = m.buffers;
        Self::copy(m, b.adversarial, self.candidate, image)?;
        let candidate = m.graph.variable(self.candidate, image);
        let previous = m.graph.variable(self.previous, image);
        let gradient = m.graph.variable(b.gradient, image);
        let (radius, step) = (m.graph.variable(b.radius, one), m.graph.variable(b.step, one));
        let inputs = [m.images, gradient, radius, step];
        m.graph.update(Op::AttackStep(AttackStep { norm }), &inputs, &[candidate])?;
        let inputs = [m.images, candidate, radius];
        m.graph.update(Op::Mix(Mix { norm, keep }), &inputs, &[m.adversarial, previous])
    }

    /// After the gradient at the new point: what is best so far.
    fn track(&self, m: &mut ModelGraph) -> Result<()> {
        let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
        let b = m.buffers;
        let loss = m.graph.variable(b.loss, one);
        let state = [self.best_loss, self.last_loss, self.balance, self.improved]
            .map(|variable| m.graph.variable(variable, one));
        m.graph.update(Op::ApgdTrack(ApgdTrack), &[loss], &state)?;
        Self::copy_where(m, (self.improved, 1.0), b.adversarial, self.best, image)?;
        Self::copy_where(m, (self.improved, 1.0), b.gradient, self.best_gradient, image)?;
        self.mistakes.keep(m)
    }

    /// Halves steps where it is time to, and goes back to the best point there.
    fn checkpoint(&self, m: &mut ModelGraph) -> Result<()> {
        let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
        let b = m.buffers;
        let best = m.graph.variable(self.best_loss, one);
        let state = [self.balance, self.checked_loss, self.halved, b.step]
            .map(|variable| m.graph.variable(variable, one));
        m.graph.update(Op::ApgdCheckpoint(ApgdCheckpoint), &[best], &state)?;
        Self::copy_where(m, (self.halved, 1.0), self.best, b.adversarial, image)?;
        Self::copy_where(m, (self.halved, 1.0), self.best_gradient, b.gradient, image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_the_papers() {
        let at = |steps| checkpoints(steps).collect::<Vec<_>>();
        assert_eq!(at(100), [22, 41, 57, 70, 80, 87, 93, 99]);
        assert_eq!(at(50), [11, 21, 30, 38, 45]);
        assert_eq!(at(20), [4, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        assert_eq!(at(1), [1]);
    }
}
