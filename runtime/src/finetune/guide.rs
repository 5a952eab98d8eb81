//! A frozen teacher, the network as it was at the start: distillation from it (the axis `[guide]`) and
//! the replay of images that the network has forgotten (the axis `[replay]`).
//!
//! Both are of ARREST: Suzuki et al., "Adversarial finetuning with latent representation constraint to
//! mitigate accuracy-robustness tradeoff", 2023.

use serde::{Deserialize, Serialize};

use super::attack::{AttackConfig, AttackKind};
use super::copies::Copies;
use super::epsilon::EpsilonConfig;
use super::formula::Formula;
use super::loss::BatchLoss;
use crate::attacks::Start;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId, Variable};
use crate::network::{BatchNormMode, Forward, Network};
use crate::ops::{Conv2d, Copy, Fill, Function, Op};
use crate::session::{Images, ModelGraph, Session};
use crate::shape::Shape;

/// What of the teacher guides the student.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuideKind {
    #[default]
    None,
    /// The feature map before global pooling (RGKD, equation 3).
    Representation,
    /// The pooled features, which the last layer sees (AR-AT: Waseda et al., "Rethinking invariance regularization in
    /// adversarial training to improve robustness-accuracy trade-off", 2025).
    Features,
    Logit,
    /// The sum of that feature map over its channels.
    Attention,
}

/// How far two vectors u and v are apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuideDistance {
    /// `1 - |u v| / (|u| |v|)`, in [0, 1]; 1 where one of them is zero.
    #[default]
    Angular,
    /// The mean of the squared differences.
    Mse,
}

/// The table `[guide]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuideConfig {
    #[serde(default)]
    pub kind: GuideKind,
    /// Angular when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<GuideDistance>,
    /// Weight of the distance in the loss (lambda). 50 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplayKind {
    #[default]
    None,
    /// An image whose feature map is more than `angle` from the teacher's is trained on with uniform
    /// noise in the place of the attack (NR, equation 5).
    Noisy,
    /// Every image is trained on as it is, too, with as much weight as attacked (DRA, phase two).
    Clean,
}

/// The table `[replay]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    #[serde(default)]
    pub kind: ReplayKind,
    /// In degrees, 0 to 90. 30 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub angle: Option<f64>,
    /// The last epoch with replay, counted from 1. 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_epoch: Option<u32>,
}

impl GuideConfig {
    pub(super) fn check(&self) -> Result<()> {
        let fault = |message: String| Err(Error::Config(message));
        if self.kind == GuideKind::None && (self.distance.is_some() || self.weight.is_some()) {
            return fault(
                "guide.distance and guide.weight are of a guide; set guide.kind, or leave them out".into(),
            );
        }
        match self.weight.filter(|w| !(w.is_finite() && *w >= 0.0)) {
            Some(weight) => fault(format!("guide.weight = {weight}: it is finite and not negative")),
            None => Ok(()),
        }
    }
}

impl ReplayConfig {
    pub(super) fn check(&self, attack: &AttackConfig, epsilon: &EpsilonConfig) -> Result<()> {
        let fault = |message: String| Err(Error::Config(message));
        if self.kind != ReplayKind::Noisy {
            return match self.angle.is_some() || self.until_epoch.is_some() {
                true => fault(
                    "replay.angle and replay.until_epoch are of replay.kind = noisy; set that, or leave them out".into(),
                ),
                false => Ok(()),
            };
        }
        if attack.kind != AttackKind::Pgd || attack.start != Start::Random {
            return fault(
                "replay.kind = noisy replays the random start of an attack; set attack.kind = pgd and \
                 attack.start = random"
                    .into(),
            );
        }
        if epsilon.policy.is_per_image() {
            return fault(
                "replay.kind = noisy and a radius for each image both choose what an image is trained on; set \
                 epsilon.policy = fixed, hinge or linear"
                    .into(),
            );
        }
        if !(0.0..=90.0).contains(&self.angle()) {
            return fault(format!("replay.angle = {}: degrees between 0 and 90", self.angle()));
        }
        Ok(())
    }

    fn angle(&self) -> f64 {
        self.angle.unwrap_or(30.0)
    }

    /// The distance above which an image is replayed: `1 - cos(angle)`.
    pub fn threshold(&self) -> f32 {
        (1.0 - self.angle().to_radians().cos()) as f32
    }

    /// Whether images are replayed in `epoch`, counted from 0.
    pub(super) fn is_on(&self, epoch: u32) -> bool {
        self.kind == ReplayKind::Noisy && epoch < self.until_epoch.unwrap_or(10)
    }
}

/// The frozen start of the network, and what it says of the loaded clean images.
pub struct Teacher {
    guide: GuideConfig,
    parameters: Copies,
    /// What replay compares, and all kinds of guide that are about it.
    feature_map: Option<Variable>,
    /// What the other kinds compare.
    vector: Option<Variable>,
    distances: Variable,
}

impl GuideKind {
    fn is_of_map(self) -> bool {
        matches!(self, Self::Representation | Self::Attention)
    }

    /// What this kind compares, before pooling and sums.
    fn of(self, forward: &Forward, network: &Network) -> Result<ValueId> {
        match self {
            Self::Representation | Self::Attention => forward.feature_map(network),
            Self::Features => forward.features(network),
            Self::None | Self::Logit => Ok(forward.logits),
        }
    }
}

impl Teacher {
    /// The network as it is now; nothing where neither guide nor replay asks for it.
    pub fn new(guide: &GuideConfig, replay: &ReplayConfig, session: &mut Session) -> Result<Option<Self>> {
        let replays = replay.kind == ReplayKind::Noisy;
        if guide.kind == GuideKind::None && !replays {
            return Ok(None);
        }
        let capacity = session.capacity();
        let mut keep = |kind: GuideKind| -> Result<Variable> {
            let mut m = session.graph(capacity);
            let forward = m.forward(Images::Clean, BatchNormMode::Running)?;
            let value = kind.of(&forward, &m.network)?;
            session.device().variable(m.graph.shape(value).len())
        };
        let is_of_map = guide.kind.is_of_map();
        let feature_map = (replays || is_of_map).then(|| keep(GuideKind::Representation)).transpose()?;
        let is_of_vector = guide.kind != GuideKind::None && !is_of_map;
        let vector = is_of_vector.then(|| keep(guide.kind)).transpose()?;
        let all = vec![true; session.network().parameters.len()];
        let parameters = Copies::new("teacher.", &all, session)?;
        let distances = session.device().variable(capacity)?;
        Ok(Some(Self { guide: guide.clone(), parameters, feature_map, vector, distances }))
    }

    /// What it has said of the loaded images: buffers with a row for each.
    pub(super) fn said(&self) -> impl Iterator<Item = Variable> {
        self.feature_map.into_iter().chain(self.vector)
    }

    /// What it has said of the first `count` images, for [`Teacher::recall`].
    pub(super) fn keep(&self, session: &mut Session, count: usize) -> Result<Vec<Vec<f32>>> {
        let rows = |session: &mut Session, said: Variable| -> Result<Vec<f32>> {
            let mut values = session.device().read(said)?;
            values.truncate(said.len() / session.capacity() * count);
            Ok(values)
        };
        self.said().map(|said| rows(session, said)).collect()
    }

    /// Says again what was kept.
    pub(super) fn recall(&self, session: &mut Session, kept: &[Vec<f32>]) {
        for (said, values) in self.said().zip(kept) {
            session.device().write(said, values);
        }
    }

    /// Whether the loss has a term of it.
    pub fn guides(&self) -> bool {
        self.guide.kind != GuideKind::None
    }

    /// Keeps what the teacher says of the `count` clean images: one pass a batch, whoever asks for it.
    pub fn look(&self, session: &mut Session, count: usize) -> Result<()> {
        session.run("teacher", count, |m| {
            let parameters = self.parameters.values(m);
            let forward = m.forward_with(Images::Clean, &parameters, BatchNormMode::Running)?;
            let kept = [(self.feature_map, GuideKind::Representation), (self.vector, self.guide.kind)];
            for (target, kind) in kept.into_iter().filter_map(|(target, kind)| Some((target?, kind))) {
                let value = kind.of(&forward, &m.network)?;
                let target = m.graph.variable(target, m.graph.shape(value));
                m.graph.update(Op::Copy(Copy), &[value], &[target])?;
            }
            Ok(())
        })
    }

    /// The angular distance of the network's feature map from the teacher's for each clean image, with
    /// running statistics: it does not depend on what else is in the batch.
    pub fn distances(&self, session: &mut Session, count: usize) -> Result<Vec<f32>> {
        session.run("distance to the teacher", count, |m| {
            let map = m.forward(Images::Clean, BatchNormMode::Running)?.feature_map(&m.network)?;
            let target = self.target(&mut m.graph, self.feature_map, map);
            let distance = angular(&mut m.graph, map, target)?;
            let into = m.graph.variable(self.distances, Shape::per_image(count));
            m.graph.update(Op::Copy(Copy), &[distance], &[into])
        })?;
        session.read_per_image(self.distances, count)
    }

    /// Adds `weight * distance` to the loss of each image.
    pub fn guide(&self, m: &mut ModelGraph, loss: BatchLoss) -> Result<BatchLoss> {
        if self.guide.kind == GuideKind::None {
            return Ok(loss);
        }
        let weighted = self.weighted_distance(m, &loss.forward)?;
        let losses = m.graph.plus(loss.losses, weighted)?;
        let mut terms = loss.terms;
        terms.push(("guide", weighted));
        Ok(BatchLoss { losses, terms, ..loss })
    }

    /// `weight * distance` of each image that went forward. The teacher is a constant of the graph.
    pub(super) fn weighted_distance(&self, m: &mut ModelGraph, forward: &Forward) -> Result<ValueId> {
        let kind = self.guide.kind;
        let student = kind.of(forward, &m.network)?;
        m.graph.set_label("guide");
        let g = &mut m.graph;
        let kept = if kind.is_of_map() { self.feature_map } else { self.vector };
        let mut pair = [student, self.target(g, kept, student)];
        if kind == GuideKind::Attention {
            for value in &mut pair {
                *value = attention(g, *value)?;
            }
        }
        let [u, v] = pair;
        let distance = match self.guide.distance.unwrap_or_default() {
            GuideDistance::Angular => angular(g, u, v)?,
            GuideDistance::Mse => mean_square(g, u, v)?,
        };
        g.times(self.guide.weight.unwrap_or(50.0), distance)
    }

    fn target(&self, g: &mut Graph, kept: Option<Variable>, like: ValueId) -> ValueId {
        g.variable(kept.expect("it was made for this"), g.shape(like))
    }

    /// The teacher's parameters by name, for a checkpoint.
    pub fn read(&self, session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
        self.parameters.read(session)
    }

    pub fn restore(&self, session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        self.parameters.restore(session, tensors)
    }
}

/// `1 - |u v| / (|u| |v|)` for each image; 1, with a gradient of 0, where one of them is zero.
fn angular(g: &mut Graph, u: ValueId, v: ValueId) -> Result<ValueId> {
    let product = g.product(u, v)?;
    let product = g.image_sum(product)?;
    let mut cosine = g.map(Function::Abs, 1.0, 0.0, product)?;
    for x in [u, v] {
        let inverse = g.inverse_length(x)?;
        cosine = g.product(cosine, inverse)?;
    }
    g.map(Function::Identity, -1.0, 1.0, cosine)
}

/// The mean of the squared differences for each image.
fn mean_square(g: &mut Graph, u: ValueId, v: ValueId) -> Result<ValueId> {
    let difference = g.minus(u, v)?;
    let squares = g.product(difference, difference)?;
    let sum = g.image_sum(squares)?;
    g.times(1.0 / g.shape(u).per_batch() as f32, sum)
}

/// The sum over the channels at each place, which a convolution with a weight of ones is.
fn attention(g: &mut Graph, map: ValueId) -> Result<ValueId> {
    let shape = Shape([1, 1, g.shape(map).channels(), 1]);
    let ones = g.add(Op::Fill(Fill { value: 1.0, shape }), &[])?;
    g.add(Op::Conv2d(Conv2d::LINEAR), &[map, ones])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn thresholds_are_those_of_the_paper() {
        let expected =
            [(30.0, 0.133_975), (32.5, 0.156_609), (35.0, 0.180_848), (37.5, 0.206_647), (45.0, 0.292_893)];
        for (angle, threshold) in expected {
            let replay = ReplayConfig { kind: ReplayKind::Noisy, angle: Some(angle), until_epoch: None };
            assert!((replay.threshold() - threshold).abs() < 1e-6, "{angle}");
            assert!(replay.is_on(9) && !replay.is_on(10));
        }
        assert!(!ReplayConfig::default().is_on(0));
    }

    /// The distance of each pair of vectors of two elements.
    fn distances(of: fn(&mut Graph, ValueId, ValueId) -> Result<ValueId>, u: &[f32], v: &[f32]) -> Vec<f32> {
        let mut device = Device::cpu();
        let count = u.len() / 2;
        let (mut g, shape) = (Graph::new(), Shape([count, 1, 2, 1]));
        let [u, v] = [u, v].map(|x| g.variable(device.variable_from(x).unwrap(), shape));
        let found = of(&mut g, u, v).unwrap();
        let out = device.variable(count).unwrap();
        let target = g.variable(out, Shape::per_image(count));
        g.update(Op::Copy(Copy), &[found], &[target]).unwrap();
        let mut program = device.compile(&g).unwrap();
        device.run(&mut program).unwrap();
        device.read(out).unwrap()
    }

    #[test]
    fn distances_are_what_they_say() {
        // The same, opposite, orthogonal, a multiple, zero, 45 degrees.
        let u = [3.0, 4.0, 3.0, 4.0, 1.0, 0.0, 1.0, 2.0, 0.0, 0.0, 1.0, 0.0];
        let v = [3.0, 4.0, -3.0, -4.0, 0.0, 5.0, 10.0, 20.0, 1.0, 1.0, 2.0, 2.0];
        let found = distances(angular, &u, &v);
        for (found, expected) in found.iter().zip([0.0, 0.0, 1.0, 0.0, 1.0, 1.0 - 0.5f32.sqrt()]) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
        let found = distances(mean_square, &u, &v);
        assert_eq!(found[..5], [0.0, 50.0, 13.0, 202.5, 1.0]);
    }
}
