//! What an attack sees of a model.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::Ball;
use crate::error::{Error, Result};
use crate::graph::Variable;
use crate::loss::Loss;
use crate::ops::{ImageNorm, MoveAlong, Noise, Norm, Op, Order};
use crate::random::{Purpose, Stream};
use crate::session::{Buffers, Images, ModelGraph, Session};
#[cfg(feature = "train")]
use crate::session::{Whole, part};
use crate::shape::Shape;

/// The position of random targets: past every pixel, and not the one that the l2 start uses.
const TARGET_POSITION: u32 = u32::MAX - 1;

/// The most classes that an attack aims at, one after the other (Croce and Hein, 2020).
const MOST_TARGETS: usize = 9;

/// Which mistake an attack wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Aim {
    /// Any class but the label.
    #[default]
    Any,
    /// One class at random for each image.
    Random,
    /// The likeliest wrong classes of the clean image, the nearest first, up to nine.
    Likely,
}

impl Aim {
    /// How many classes it aims at, one after the other, for a model of `classes`.
    pub fn targets(self, classes: usize) -> u32 {
        match self {
            Self::Any | Self::Random => 1,
            Self::Likely => classes.saturating_sub(1).clamp(1, MOST_TARGETS) as u32,
        }
    }
}

/// What an attack knows of the model: losses and their gradient at the current adversarial images
/// of a batch. Everything stays on the device; only the methods that return values read back.
pub struct Objective<'a> {
    session: &'a mut Session,
    count: usize,
    seed: u64,
    purpose: Purpose,
    epoch: u32,
    loss: Loss,
    /// Radius and step length of each image, where they differ from image to image.
    balls: Option<&'a [(f32, f32)]>,
    /// What computes the gradient, where it is not that of a loss of the label.
    gradient: Option<&'a GradientOf<'a>>,
    /// What that gradient needs of each image besides the batch; nothing where it needs the whole batch.
    #[cfg(feature = "train")]
    kept: Option<Vec<Variable>>,
    /// Set by another thread to stop.
    stop: Option<&'a AtomicBool>,
    /// Hears of every pass.
    listener: Option<&'a mut dyn FnMut(Passes)>,
    passes: Passes,
}

/// Passes through the network that each image of a batch took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Passes {
    /// Forward passes alone.
    pub forwards: u64,
    /// Gradients of the image: a forward pass, and one back to the pixels.
    pub gradients: u64,
}

impl std::ops::Add for Passes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { forwards: self.forwards + other.forwards, gradients: self.gradients + other.gradients }
    }
}

/// Computes the gradient of the summed loss at the adversarial images of the first so many images of a
/// session, into [`Buffers::gradient`](crate::Buffers::gradient).
pub type GradientOf<'a> = dyn Fn(&mut Session, usize) -> Result<()> + 'a;

impl<'a> Objective<'a> {
    /// An objective on the loaded batch of `count` images, with the cross-entropy as its loss. Random
    /// numbers are a function of `seed`, `purpose`, `epoch`, the restart, and each image's data set
    /// index.
    pub fn new(session: &'a mut Session, count: usize, seed: u64, purpose: Purpose, epoch: u32) -> Self {
        Self {
            session,
            count,
            seed,
            purpose,
            epoch,
            loss: Loss::CrossEntropy,
            balls: None,
            gradient: None,
            #[cfg(feature = "train")]
            kept: Some(Vec::new()),
            stop: None,
            listener: None,
            passes: Passes::default(),
        }
    }

    /// Gives each image its own radius and step length, whatever ball the attack sets.
    pub fn with_balls(mut self, balls: &'a [(f32, f32)]) -> Self {
        self.balls = Some(balls);
        self
    }

    /// Follows the gradient of a loss that is not a function of logits and label alone. What it reads of each image is
    /// not known, so that the attack goes on with the whole batch to its end.
    pub fn with_gradient(mut self, gradient: &'a GradientOf<'a>) -> Self {
        self.gradient = Some(gradient);
        #[cfg(feature = "train")]
        {
            self.kept = None;
        }
        self
    }

    /// Says what that gradient needs of each image besides the batch: buffers with a row for each image. Nothing where
    /// images cannot be attacked without the rest of the batch.
    #[cfg(feature = "train")]
    pub(crate) fn with_kept(mut self, kept: Option<Vec<Variable>>) -> Self {
        self.kept = kept;
        self
    }

    /// Ends an attack with [`Error::Interrupted`] at its next gradient or score once `stop` is set.
    pub fn with_stop(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Tells `listener` of the passes so far, before each of the attack's gradients and scores.
    pub fn with_listener(mut self, listener: &'a mut dyn FnMut(Passes)) -> Self {
        self.listener = Some(listener);
        self
    }

    /// An attack takes thousands of steps: this is where it tells how far it is, and hears that nobody waits
    /// for it any more.
    fn before_a_pass(&mut self) -> Result<()> {
        if let Some(listener) = &mut self.listener {
            listener(self.passes);
        }
        match self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// Passes of each image since the objective was made.
    pub fn passes(&self) -> Passes {
        self.passes
    }

    /// Number of images.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Goes on with the images that are `wanted`, and others up to a quarter of the `of` images that the batch began
    /// with; nothing happens where that is all of them. Their rows of `more` go with them.
    #[cfg(feature = "train")]
    pub(crate) fn narrow(&mut self, wanted: &[bool], of: usize, more: &[Variable]) -> Result<Option<Whole>> {
        let positions = part(wanted, of);
        let Some(kept) = self.kept.as_ref().filter(|_| positions.len() < self.count) else { return Ok(None) };
        let more: Vec<Variable> = kept.iter().chain(more).copied().collect();
        let count = std::mem::replace(&mut self.count, positions.len());
        self.session.narrow(count, positions, &more).map(Some)
    }

    /// Undoes [`Objective::narrow`]; the adversarial images stay.
    #[cfg(feature = "train")]
    pub(crate) fn widen(&mut self, whole: Whole) -> Result<()> {
        self.count = self.session.widen(whole)?;
        Ok(())
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.session.classes()
    }

    /// Height and width of the images.
    pub fn image_size(&self) -> [usize; 2] {
        let [_, height, width] = self.session.network().input;
        [height, width]
    }

    /// Number of values in an image.
    pub fn image_len(&self) -> usize {
        self.session.network().input.iter().product()
    }

    pub fn buffers(&self) -> Buffers {
        *self.session.buffers()
    }

    /// Sets the ball, and the step length that [`Objective::step`] takes.
    pub fn set_ball(&mut self, ball: &Ball, step: f32) {
        match self.balls {
            Some(balls) => self.session.set_balls(balls),
            None => self.session.set_ball(ball.eps, step),
        }
    }

    /// Sets the loss that gradients and scores are taken of; where there are too few classes for it,
    /// the margin serves instead.
    pub fn set_loss(&mut self, loss: Loss) {
        self.loss = loss.for_classes(self.classes());
    }

    /// Chooses the target of each image: number `which` of those that `aim` has.
    pub fn set_targets(&mut self, aim: Aim, which: u32) -> Result<()> {
        if aim != Aim::Any {
            let targets = self.targets(aim, which)?;
            self.write_targets(&targets);
        }
        Ok(())
    }

    /// Makes these classes the targets.
    pub(super) fn write_targets(&mut self, targets: &[u32]) {
        let variable = self.buffers().targets;
        self.session.device().write_integers(variable, targets);
    }

    /// For each class but the label, in order, that class for each image.
    pub(super) fn other_classes(&mut self) -> Result<Vec<Vec<u32>>> {
        let labels = self.targets(Aim::Any, 0)?;
        let other = |k: u32| labels.iter().map(|&label| k + u32::from(k >= label)).collect();
        Ok((0..self.classes() as u32 - 1).map(other).collect())
    }

    /// The class that number `which` of `aim` is for each image.
    pub(super) fn targets(&mut self, aim: Aim, which: u32) -> Result<Vec<u32>> {
        let classes = self.classes();
        let buffers = self.buffers();
        let integers = |session: &mut Session, variable| -> Result<Vec<u32>> {
            let values = session.read_per_image(variable, self.count)?;
            Ok(values.into_iter().map(f32::to_bits).collect())
        };
        let labels = integers(self.session, buffers.labels)?;
        Ok(match aim {
            // Any class but the label has no target to be named.
            Aim::Any => labels,
            Aim::Random => {
                let indices = integers(self.session, buffers.indices)?;
                let stream = self.stream(which);
                let other = |label: u32, index: u32| {
                    let k = stream.below(index, TARGET_POSITION, (classes - 1).max(1) as u32);
                    if k >= label { (k + 1).min(classes as u32 - 1) } else { k }
                };
                labels.iter().zip(indices).map(|(&label, index)| other(label, index)).collect()
            }
            Aim::Likely => {
                self.passes.forwards += 1;
                let logits = self.session.logits(self.count, Images::Clean)?;
                let rows = logits.chunks_exact(classes).zip(&labels);
                rows.map(|(row, &label)| likely(row, label, which as usize)).collect()
            }
        })
    }

    /// The random numbers of one restart.
    pub fn stream(&self, restart: u32) -> Stream {
        Stream::new(self.seed, self.purpose, self.epoch, restart)
    }

    /// Makes `stream` the one that programs read from [`Buffers::key`].
    pub(crate) fn set_stream(&mut self, stream: Stream) {
        let key = self.buffers().key;
        self.session.device().write_integers(key, &stream.key);
    }

    /// Starts from the clean images.
    pub fn start_clean(&mut self) -> Result<()> {
        self.session.start_clean(self.count)
    }

    /// Starts from a random point of each ball.
    pub fn start_random(&mut self, norm: Norm, restart: u32) -> Result<()> {
        let stream = self.stream(restart);
        self.session.start_random(self.count, norm, stream.key)
    }

    /// Starts on the surface of each ball, before the box clips it: noise scaled to the radius in the
    /// ball's norm, uniform for linf, normal for l2.
    pub fn start_on_surface(&mut self, norm: Norm, restart: u32) -> Result<()> {
        self.set_stream(self.stream(restart));
        self.run("start on the surface", norm as u32, |m| {
            let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
            let key = m.graph.variable(m.buffers.key, Shape::vector(2));
            let indices = m.graph.variable(m.buffers.indices, one);
            let (normal, order) = match norm {
                Norm::Linf => (false, Order::Max),
                Norm::L2 => (true, Order::L2),
            };
            let noise = m.graph.add(Op::Noise(Noise { shape: image, normal }), &[indices, key])?;
            let size = m.graph.add(Op::ImageNorm(ImageNorm { order }), &[noise])?;
            let radius = m.graph.variable(m.buffers.radius, one);
            let inputs = [m.images, noise, size, radius];
            m.graph.update(Op::MoveAlong(MoveAlong), &inputs, &[m.adversarial])
        })
    }

    /// Starts from the clean images and normal noise of deviation 0.001.
    pub fn start_normal(&mut self, restart: u32) -> Result<()> {
        let stream = self.stream(restart);
        self.session.start_normal(self.count, stream.key)
    }

    /// Computes the gradient of the summed loss at the adversarial images; the loss of each of them;
    /// and whether it is still classified correctly.
    pub fn gradient(&mut self) -> Result<()> {
        self.before_a_pass()?;
        self.passes.gradients += 1;
        match self.gradient {
            Some(gradient) => gradient(self.session, self.count),
            None => self.session.gradient(self.count, self.loss),
        }
    }

    /// Computes what [`Objective::gradient`] does, without the gradient.
    pub fn score(&mut self) -> Result<()> {
        self.before_a_pass()?;
        self.passes.forwards += 1;
        self.session.score(self.count, self.loss)
    }

    /// Moves the adversarial images along the gradient, staying in the ball and in [0, 1].
    pub fn step(&mut self, norm: Norm) -> Result<()> {
        self.session.step(self.count, norm)
    }

    /// Forgets the worst images of earlier attempts.
    pub fn reset_worst(&mut self) {
        self.session.reset_worst();
    }

    /// Scores the adversarial images by their cross-entropy and keeps them where they are worse than
    /// those kept before.
    pub fn keep_worst(&mut self) -> Result<()> {
        self.passes.forwards += 1;
        self.session.score(self.count, Loss::CrossEntropy)?;
        self.session.keep_worst(self.count)
    }

    /// Makes the worst images kept the adversarial images.
    pub fn take_worst(&mut self) -> Result<()> {
        self.session.take_worst(self.count)
    }

    /// A buffer for images that an attack keeps from one program to the next.
    pub(crate) fn images(&mut self, name: &'static str) -> Result<Variable> {
        self.session.extra_images(name)
    }

    /// A buffer with one value for each image.
    pub(crate) fn values(&mut self, name: &'static str) -> Result<Variable> {
        self.session.extra_values(name)
    }

    /// A buffer of `len` values that belong to no image.
    pub(crate) fn vector(&mut self, name: &'static str, len: usize) -> Result<Variable> {
        self.session.extra_vector(name, len)
    }

    /// Sets all values of a buffer with one value for each image.
    pub(crate) fn fill(&mut self, values: Variable, value: f32) {
        let all = vec![value; self.count];
        self.session.device().write(values, &all);
    }

    /// Replaces a buffer with one value for each image.
    pub(crate) fn write(&mut self, values: Variable, by: &[f32]) {
        self.session.device().write(values, by);
    }

    /// Writes one integer to the front of a buffer.
    pub(super) fn write_integer(&mut self, variable: Variable, value: u32) {
        self.session.device().write_integers(variable, &[value]);
    }

    /// The loss of each image, as [`Objective::gradient`] or [`Objective::score`] left it.
    pub(crate) fn loss(&mut self) -> Result<Vec<f32>> {
        let loss = self.buffers().loss;
        self.read(loss)
    }

    /// Reads a buffer with one value for each image: the device finishes its work first.
    pub(crate) fn read(&mut self, values: Variable) -> Result<Vec<f32>> {
        self.session.read_per_image(values, self.count)
    }

    /// Runs variant `variant` of the program called `name`, building it the first time.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        variant: u32,
        build: impl FnOnce(&mut ModelGraph) -> Result<()>,
    ) -> Result<()> {
        self.session.run_variant(name, variant, self.count, build)
    }
}

/// The class with the `which`-th largest logit besides the label's; ties go to the lowest class. A
/// logit that is not a number counts as the smallest.
fn likely(row: &[f32], label: u32, which: usize) -> u32 {
    let mut others: Vec<usize> = (0..row.len()).filter(|&k| k != label as usize).collect();
    let value = |k: usize| if row[k].is_nan() { f32::NEG_INFINITY } else { row[k] };
    others.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    others.get(which).or(others.last()).map_or(label, |&k| k as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_classes_come_in_order() {
        let row = [1.0, 5.0, 3.0, 3.0, f32::NAN];
        let order: Vec<u32> = (0..4).map(|which| likely(&row, 1, which)).collect();
        assert_eq!(order, [2, 3, 0, 4]);
        // A label that is not the largest logit is left out all the same.
        assert_eq!(likely(&row, 0, 0), 1);
        assert_eq!(likely(&row, 0, 9), 4);
    }

    #[test]
    fn few_classes_have_few_targets() {
        assert_eq!([2, 3, 10, 100].map(|k| Aim::Likely.targets(k)), [1, 2, 9, 9]);
        assert_eq!(Aim::Random.targets(1000), 1);
    }
}
