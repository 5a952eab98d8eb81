//! DAAT, difficulty-aware adversarial training: the radius of an image follows the doubt of a calibration
//! head, which judges the adversarial image from the boundary of the clean data.

use super::adversary::Adversary;
use super::attack::AttackConfig;
use super::epsilon::{EpsilonConfig, EpsilonPolicy};
use super::formula::Formula;
use super::memory::Memory;
use super::radii::Moment;
use crate::autodiff::differentiate;
use crate::data::{Batch, Dataset};
use crate::error::{Error, Result};
use crate::graph::{ValueId, Variable};
use crate::network::BatchNormMode;
use crate::ops::{Accumulate, Conv2d, Copy, Fill, Op, Sgd, Sum};
use crate::session::{Images, ModelGraph, Session};
use crate::shape::Shape;

pub(super) struct Daat {
    config: EpsilonConfig,
    attack: AttackConfig,
    memory: Memory,
    head: Head,
}

impl Daat {
    /// Every image starts at `attack.eps`, the head as the network's own.
    pub fn new(
        config: &EpsilonConfig,
        attack: &AttackConfig,
        data: &Dataset,
        session: &mut Session,
    ) -> Result<Self> {
        Ok(Self {
            config: config.clone(),
            attack: attack.clone(),
            memory: Memory::new(data, attack.eps.0),
            head: Head::new(session)?,
        })
    }

    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Step 1 of Algorithm 1: trains the head on the loaded clean images.
    pub fn learn(&self, session: &mut Session, batch: &Batch, at: Moment) -> Result<()> {
        self.head.train(session, batch.len(), at.rate)
    }

    /// The same for a batch in parts: takes in the gradient of the loaded one, of a batch of `of` images.
    pub fn learn_part(&self, session: &mut Session, part: &Batch, of: usize) -> Result<()> {
        self.head.train_on_part(session, part.len(), of)
    }

    /// And, after the last part, updates the head by their sum.
    pub fn learned_parts(&self, session: &mut Session, at: Moment) -> Result<()> {
        self.head.update(session, at.rate)
    }

    /// Step 2: adversarial images := those found within each image's radius. Returns the sum of the radii.
    pub fn perturb(
        &mut self,
        session: &mut Session,
        adversary: &Adversary,
        batch: &Batch,
        at: Moment,
    ) -> Result<f64> {
        let radii = self.memory.get(&batch.indices);
        let own = self.attack.spec().map_or(0.0, |spec| spec.step);
        let step = |radius: f32| own.min(2.5 * radius / self.attack.steps as f32);
        let balls: Vec<_> = radii.iter().map(|&r| (r, step(r))).collect();
        adversary.perturb_each(session, batch.len(), at, &balls)?;
        Ok(radii.iter().map(|&r| f64::from(r)).sum())
    }

    /// Steps 4 and 5, after the update of the network: the radius of each image for the next epoch.
    pub fn adapt(&mut self, session: &mut Session, batch: &Batch, epoch: u32, epochs: u32) -> Result<()> {
        let rho = self.config.rho(epoch, epochs);
        let logits = self.head.adversarial_logits(session, batch.len())?;
        let classes = logits.len() / batch.len();
        let mut radii = self.memory.get(&batch.indices);
        for ((radius, row), &label) in radii.iter_mut().zip(logits.chunks_exact(classes)).zip(&batch.labels) {
            let s = doubt(row, label as usize, self.config.tau());
            if s.is_nan() {
                return Err(Error::NonFinite(
                    "the calibration head of daat has logits that are not finite; lower schedule.peak".into(),
                ));
            }
            *radius = next(self.config.policy, s, *radius, self.attack.eps.0, rho, self.config.enlarge());
        }
        self.memory.set(&batch.indices, &radii);
        Ok(())
    }

    pub fn read(&self, session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
        self.head.read(session)
    }

    pub fn restore(&self, session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        self.head.restore(session, tensors)
    }
}

/// Equation 13: `max over k of q_k - q_label` with `q = softmax(logits / tau)`, in [0, 1); not a number
/// where a logit is none.
fn doubt(logits: &[f32], label: usize, tau: f32) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|z| ((z - largest) / tau).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    (1.0 - exponentials[label]) / sum
}

/// The radius for the next epoch of an image whose doubt is `s` and whose radius is `radius`: equation
/// 12, or 16 for the linear variant. It is at most `enlarge * eps`.
fn next(policy: EpsilonPolicy, s: f32, radius: f32, eps: f32, rho: f32, enlarge: f32) -> f32 {
    /// Part of eps below which a radius does not fall: the rule multiplies, and 0 would be for ever.
    const FLOOR: f32 = 1e-4;
    let largest = enlarge * eps;
    let wanted = match policy {
        EpsilonPolicy::DaatLinear => (1.0 - s + rho) * eps,
        // In quarters of eps, rounded up.
        EpsilonPolicy::DaatPiecewise => eps * (4.0 * (1.0 - s + rho).min(1.0)).ceil() / 4.0,
        _ if s == 0.0 => largest,
        _ => rho / s * radius,
    };
    wanted.min(largest).max(FLOOR * eps)
}

/// A linear layer on the features that the network's own last layer sees.
struct Head {
    weight: (Variable, Shape),
    bias: (Variable, Shape),
    velocities: [Variable; 2],
    rate: Variable,
    logits: Variable,
}

impl Head {
    fn new(session: &mut Session) -> Result<Self> {
        let network = session.network();
        let head = network.head().ok_or_else(|| {
            Error::Config(
                "epsilon.policy = daat needs a model whose last layer is linear with a bias; this one's is not. \
                 Set epsilon.policy = iaat or fixed"
                    .into(),
            )
        })?;
        let shapes = [head.weight, head.bias].map(|p| network.parameters[p].shape);
        let sources = [head.weight, head.bias].map(|p| session.parameters()[p]);
        let len = session.capacity() * session.classes();
        let device = session.device();
        let mut copy = |variable| -> Result<Variable> {
            let values = device.read(variable)?;
            device.variable_from(&values)
        };
        let (weight, bias) = (copy(sources[0])?, copy(sources[1])?);
        Ok(Self {
            weight: (weight, shapes[0]),
            bias: (bias, shapes[1]),
            velocities: [device.variable(weight.len())?, device.variable(bias.len())?],
            rate: device.variable(1)?,
            logits: device.variable(len)?,
        })
    }

    /// The head's logits, and its parameters as values of the graph.
    fn add(&self, m: &mut ModelGraph, images: Images) -> Result<(ValueId, [ValueId; 2])> {
        let features = m.forward(images, BatchNormMode::Running)?.features(&m.network)?;
        let weight = m.graph.variable(self.weight.0, self.weight.1);
        let bias = m.graph.variable(self.bias.0, self.bias.1);
        m.graph.set_label("calibration head");
        let logits = m.graph.add(Op::Conv2d(Conv2d::LINEAR), &[features, weight, bias])?;
        Ok((logits, [weight, bias]))
    }

    /// One update by the clean images. No gradient reaches the network, nor do its running statistics
    /// change.
    fn train(&self, session: &mut Session, count: usize, rate: f64) -> Result<()> {
        session.device().write(self.rate, &[rate as f32]);
        session.run("calibration", count, |m| {
            let (logits, parameters) = self.add(m, Images::Clean)?;
            let losses = m.graph.cross_entropy(logits, m.labels)?;
            let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / count as f32 }), &[losses])?;
            let gradients = differentiate(&mut m.graph, mean, &parameters)?;
            self.add_update(m, parameters, &gradients)
        })
    }

    fn add_update(&self, m: &mut ModelGraph, parameters: [ValueId; 2], gradients: &[ValueId]) -> Result<()> {
        let rate = m.graph.variable(self.rate, Shape::SCALAR);
        let op = Op::Sgd(Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 });
        for ((parameter, &gradient), velocity) in parameters.into_iter().zip(gradients).zip(self.velocities) {
            let velocity = m.graph.variable(velocity, m.graph.shape(parameter));
            m.graph.update(op.clone(), &[gradient, rate], &[parameter, velocity])?;
        }
        Ok(())
    }

    /// The sums of the gradients over the parts of a batch. They are zero between batches.
    fn sums(&self, session: &mut Session) -> Result<[Variable; 2]> {
        let weight = session.extra_vector("calibration weight sum", self.weight.0.len())?;
        Ok([weight, session.extra_vector("calibration bias sum", self.bias.0.len())?])
    }

    fn train_on_part(&self, session: &mut Session, count: usize, of: usize) -> Result<()> {
        let sums = self.sums(session)?;
        session.run_variant("calibration part", of as u32, count, |m| {
            let (logits, parameters) = self.add(m, Images::Clean)?;
            let losses = m.graph.cross_entropy(logits, m.labels)?;
            let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / of as f32 }), &[losses])?;
            let gradients = differentiate(&mut m.graph, mean, &parameters)?;
            for (sum, gradient) in sums.into_iter().zip(gradients) {
                let sum = m.graph.variable(sum, m.graph.shape(gradient));
                m.graph.update(Op::Accumulate(Accumulate), &[gradient], &[sum])?;
            }
            Ok(())
        })
    }

    fn update(&self, session: &mut Session, rate: f64) -> Result<()> {
        session.device().write(self.rate, &[rate as f32]);
        let sums = self.sums(session)?;
        session.run("calibration update", 1, |m| {
            let parameters = [self.weight, self.bias].map(|(v, shape)| m.graph.variable(v, shape));
            let shapes = [self.weight.1, self.bias.1];
            let gradients: Vec<ValueId> =
                sums.iter().zip(shapes).map(|(&sum, shape)| m.graph.variable(sum, shape)).collect();
            self.add_update(m, parameters, &gradients)?;
            for (gradient, shape) in gradients.into_iter().zip(shapes) {
                m.graph.update(Op::Fill(Fill { value: 0.0, shape }), &[], &[gradient])?;
            }
            Ok(())
        })
    }

    /// The head's logits of the adversarial images: count x classes, row-major.
    fn adversarial_logits(&self, session: &mut Session, count: usize) -> Result<Vec<f32>> {
        session.run("calibrated", count, |m| {
            let (logits, _) = self.add(m, Images::Adversarial)?;
            let target = m.graph.variable(self.logits, m.graph.shape(logits));
            m.graph.update(Op::Copy(Copy), &[logits], &[target])
        })?;
        let mut values = session.device().read(self.logits)?;
        values.truncate(count * session.classes());
        Ok(values)
    }

    fn tensors(&self) -> [(&'static str, Variable); 4] {
        [
            ("calibration.weight", self.weight.0),
            ("calibration.bias", self.bias.0),
            ("calibration.weight.velocity", self.velocities[0]),
            ("calibration.bias.velocity", self.velocities[1]),
        ]
    }

    fn read(&self, session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
        let mut tensors = Vec::new();
        for (name, variable) in self.tensors() {
            tensors.push((name.to_owned(), session.device().read(variable)?));
        }
        Ok(tensors)
    }

    fn restore(&self, session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        for (name, variable) in self.tensors() {
            let (_, values) = tensors
                .iter()
                .find(|(n, v)| n == name && v.len() == variable.len())
                .ok_or_else(|| Error::Config(format!("the checkpoint has no '{name}'")))?;
            session.device().write(variable, values);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_is_the_distance_to_the_likeliest_class() {
        let logits = [2.0, 1.0, 0.0];
        for (label, expected) in [(0, 0.0), (1, 0.199_28), (2, 0.320_16)] {
            assert!((doubt(&logits, label, 2.0) - expected).abs() < 1e-5, "label {label}");
        }
        assert_eq!(doubt(&[1.5, 1.5, -3.0], 1, 2.0), 0.0, "a tie is no doubt");
        assert!((0..3).all(|label| doubt(&[1.5, f32::NAN, -3.0], label, 2.0).is_nan()));
        assert!(doubt(&[300.0, -300.0], 1, 2.0) <= 1.0);
        let by_tau: Vec<f32> = [1.0, 2.0, 3.0].iter().map(|&t| doubt(&logits, 2, t)).collect();
        assert!(by_tau.windows(2).all(|w| w[0] > w[1]), "{by_tau:?}");
    }

    #[test]
    fn the_radius_follows_the_doubt() {
        let daat = |s, radius| next(EpsilonPolicy::Daat, s, radius, 8.0, 0.05, 1.0);
        for (s, expected) in [(0.0, 8.0), (0.025, 8.0), (0.05, 8.0), (0.1, 4.0), (0.5, 0.8)] {
            assert!((daat(s, 8.0) - expected).abs() < 1e-5, "s = {s}");
        }
        assert!((daat(0.025, 2.0) - 4.0).abs() < 1e-5);
        assert!(daat(0.9, 1e-6) > 0.0, "a radius never vanishes for ever");
        for s in [0.0, 0.01, 0.3, 0.99] {
            for radius in [0.001, 1.0, 8.0] {
                let found = daat(s, radius);
                assert!((0.0..=8.0).contains(&found));
                assert_eq!(found > radius, s < 0.05 && radius < 8.0, "s = {s}, radius {radius}");
                let always = next(EpsilonPolicy::Daat, s, 8.0, 8.0, 1.0, 1.0);
                assert_eq!(always, 8.0, "rho = 1 is a fixed radius");
            }
        }
    }

    #[test]
    fn variants() {
        let linear = |s| next(EpsilonPolicy::DaatLinear, s, 3.0, 8.0, 0.05, 1.0);
        assert_eq!(linear(0.0), 8.0);
        assert!((linear(0.55) - 4.0).abs() < 1e-5);
        let piecewise = |s| next(EpsilonPolicy::DaatPiecewise, s, 3.0, 8.0, 0.05, 1.0);
        assert_eq!([0.0, 0.2, 0.5, 0.7, 0.9].map(piecewise), [8.0, 8.0, 6.0, 4.0, 2.0]);
        assert_eq!(next(EpsilonPolicy::Daat, 0.0, 8.0, 8.0, 0.05, 1.25), 10.0, "the enlarged variant");
    }
}
