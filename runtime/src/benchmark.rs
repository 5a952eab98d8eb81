//! The computations that adversarial training is made of, to be timed.

use crate::attacks::{Aim, Attack, Ball, Objective, Pgd, Start};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::footprint::training_step;
use crate::loss::Loss;
use crate::model::Model;
use crate::ops::Norm;
use crate::optim::{Optimizer, OptimizerConfig};
use crate::profile::StepTime;
use crate::random::{Purpose, Stream};
use crate::session::{Images, Session};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Logits of a batch, left on the device.
    Forward,
    /// The gradient of the loss at the adversarial images, and a step along it.
    PgdStep,
    /// Forward, backward to all parameters, and their update, on the adversarial images.
    TrainStep,
    /// A random start, ten steps of PGD, and a training step on the result.
    Pgd10AdversarialStep,
}

impl Workload {
    pub const ALL: [Self; 4] = [Self::Forward, Self::PgdStep, Self::TrainStep, Self::Pgd10AdversarialStep];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::PgdStep => "pgd_step",
            Self::TrainStep => "train_step",
            Self::Pgd10AdversarialStep => "pgd10_adversarial_step",
        }
    }

    /// Whether it updates the weights. What depends on them alone is then computed anew.
    pub const fn trains(self) -> bool {
        matches!(self, Self::TrainStep | Self::Pgd10AdversarialStep)
    }
}

const BALL: Ball = Ball { norm: Norm::Linf, eps: 8.0 / 255.0 };
const STEP: f32 = 2.0 / 255.0;

/// A model with a batch of random images on a device.
pub struct Benchmark {
    session: Session,
    optimizer: Optimizer,
    count: usize,
    seed: u64,
}

impl Benchmark {
    pub fn new(device: Device, model: &Model, count: usize, seed: u64) -> Result<Self> {
        let mut session = Session::new(device, model, count)?;
        let optimizer = Optimizer::new(&OptimizerConfig::default(), &mut session)?;
        // The work does not depend on the rate, and at zero the weights stay what they are.
        optimizer.set_rate(&mut session, 0.0, 1);
        let stream = Stream::new(seed, Purpose::Probe, 0, 0);
        let len = u32::try_from(model.network.image_shape(1).len())
            .map_err(|_| Error::Limit("an image of more than 2^32 values".into()))?;
        let images: Vec<f32> = (0..count as u32)
            .flat_map(|n| (0..len).map(move |i| (n, i)))
            .map(|(n, i)| stream.uniform(n, i))
            .collect();
        let classes = session.classes() as u32;
        let labels: Vec<u32> = (0..count as u32).map(|n| n % classes).collect();
        let indices: Vec<u32> = (0..count as u32).collect();
        session.load(&images, &labels, &indices)?;
        let mut benchmark = Self { session, optimizer, count, seed };
        benchmark.pgd(0)?;
        Ok(benchmark)
    }

    /// The part of a step's arithmetic, 0 to 1, that a memory limit makes necessary.
    pub fn recomputed(&mut self) -> f64 {
        self.session.device().recomputed()
    }

    fn pgd(&mut self, steps: u32) -> Result<()> {
        let attack = Pgd {
            name: "pgd",
            ball: BALL,
            step: STEP,
            steps,
            start: Start::Random,
            restarts: 1,
            loss: Loss::CrossEntropy,
            aim: Aim::Any,
        };
        let mut objective =
            Objective::new(&mut self.session, self.count, self.seed, Purpose::TrainingAttackStart, 0);
        attack.perturb(&mut objective)
    }

    fn train(&mut self) -> Result<()> {
        let optimizer = &self.optimizer;
        self.session.run("train", self.count, |m| training_step(m, optimizer, Images::Adversarial))
    }

    /// Runs a workload once and waits for it.
    pub fn run(&mut self, workload: Workload) -> Result<()> {
        match workload {
            Workload::Forward => self.session.forward(self.count, Images::Adversarial)?,
            Workload::PgdStep => {
                self.session.gradient(self.count, Loss::CrossEntropy)?;
                self.session.step(self.count, BALL.norm)?;
            }
            Workload::TrainStep => self.train()?,
            Workload::Pgd10AdversarialStep => {
                self.pgd(10)?;
                self.train()?;
            }
        }
        self.session.device().finish()
    }

    /// Runs a workload once and returns the time of each of its steps.
    pub fn profile(&mut self, workload: Workload) -> Result<Vec<StepTime>> {
        self.session.device().start_profile();
        let result = self.run(workload);
        let times = self.session.device().take_profile();
        result.map(|()| times)
    }

    /// How far this device's logits and input gradients are from the CPU executor's: the norm of the
    /// difference as a part of the norm, the larger of the two; infinite when one is not finite.
    ///
    /// The norm, not the largest difference: rounding moves the few activations that are almost zero
    /// to the other side of a ReLU, which changes single elements of the gradient by much.
    pub fn difference(&mut self, model: &Model) -> Result<f32> {
        // Training steps leave the weights, but not the running statistics of BatchNorms.
        self.session.write_parameters(&model.values)?;
        let mut reference = Self::new(Device::cpu(), model, self.count, self.seed)?;
        let (found, expected) = (self.outcome()?, reference.outcome()?);
        let differences = found.iter().zip(&expected).map(|(f, e)| difference(f, e));
        Ok(differences.fold(0.0, f32::max))
    }

    fn outcome(&mut self) -> Result<[Vec<f32>; 2]> {
        self.pgd(0)?;
        let logits = self.session.logits(self.count, Images::Adversarial)?;
        self.session.gradient(self.count, Loss::CrossEntropy)?;
        Ok([logits, self.session.read_gradient(self.count)?])
    }
}

fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let norm: f64 = expected.iter().map(|&e| square(e)).sum();
    let apart: f64 = found.iter().zip(expected).map(|(f, e)| square(f - e)).sum();
    // Two gradients that vanish agree.
    let part = if apart == 0.0 { 0.0 } else { (apart / norm).sqrt() as f32 };
    if part.is_finite() && found.len() == expected.len() { part } else { f32::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::Architecture;

    fn benchmark() -> (Model, Benchmark) {
        let model = Architecture::build("resnet8", [3, 8, 8], 10, 0).expect("it is known");
        let benchmark = Benchmark::new(Device::cpu(), &model, 2, 0).expect("it fits");
        (model, benchmark)
    }

    #[test]
    fn a_training_step_sees_the_adversarial_images() {
        // The weights stay at a rate of zero; the statistics of the images' BatchNorms do not.
        let after = |clean: bool| {
            let (_, mut benchmark) = benchmark();
            if clean {
                benchmark.session.start_clean(2).expect("they are there");
            }
            benchmark.run(Workload::TrainStep).expect("it runs");
            benchmark.session.read_parameters().expect("they are there")
        };
        assert!(after(false) == after(false));
        assert!(after(false) != after(true), "it trained on the clean images");
    }

    #[test]
    fn training_does_not_change_what_is_compared() {
        let (model, mut benchmark) = benchmark();
        benchmark.run(Workload::Pgd10AdversarialStep).expect("it runs");
        assert_eq!(benchmark.difference(&model).expect("it runs"), 0.0);
    }
    #[test]
    fn what_is_not_finite_is_infinitely_far() {
        assert_eq!(difference(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(difference(&[0.0, 0.0], &[3.0, 4.0]), 1.0);
        assert_eq!(difference(&[0.0], &[0.0]), 0.0);
        let far: [(&[f32], &[f32]); 5] = [
            (&[f32::NAN, 4.0], &[3.0, 4.0]),
            (&[3.0, 4.0], &[3.0, f32::NAN]),
            (&[f32::INFINITY], &[f32::INFINITY]),
            (&[1e-3], &[0.0]),
            (&[3.0], &[3.0, 4.0]),
        ];
        for (found, expected) in far {
            assert_eq!(difference(found, expected), f32::INFINITY, "{found:?} {expected:?}");
        }
    }
}
