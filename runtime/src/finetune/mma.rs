//! MMA, max-margin adversarial training: Ding et al., 2020. An image is trained on at the nearest point where
//! the attack reaches the boundary: its margin grows until it is `attack.eps` wide, d_max of the paper.

use super::adversary::Adversary;
use super::attack::AttackConfig;
use super::formula::Formula;
use super::loss::BatchLoss;
use super::memory::Memory;
use super::radii::Moment;
use crate::data::{Batch, Dataset};
use crate::error::{Error, Result};
use crate::graph::Variable;
use crate::network::BatchNormMode;
use crate::ops::{Add, Copy, ImageSpread, Multiply, Op, Relu};
use crate::session::{Images, ModelGraph, Session, part};
use crate::shape::Shape;

pub(super) struct Mma {
    /// The margin that each image had the last time it was seen.
    memory: Memory,
    attack: AttackConfig,
    /// From each image to what the attack found.
    direction: Variable,
    /// How far along it, in parts of it.
    distance: Variable,
    /// 1 for images that are trained on, 0 for those whose margin is wide enough.
    counts: Variable,
}

/// The smallest ball that an attack searches, of the authors' code.
const SMALLEST: f32 = 0.005;
/// How far beyond d_max the boundary is looked for.
const BEYOND: f32 = 1.05;
/// Halvings of the interval that holds the boundary.
const HALVINGS: u32 = 10;
/// Weight of the clean images in the loss.
const CLEAN: f32 = 1.0 / 3.0;

impl Mma {
    pub fn new(attack: &AttackConfig, data: &Dataset, session: &mut Session) -> Result<Self> {
        let capacity = session.capacity();
        let len = session.network().image_shape(capacity).len();
        let device = session.device();
        Ok(Self {
            memory: Memory::new(data, SMALLEST),
            attack: attack.clone(),
            direction: device.variable(len)?,
            distance: device.variable(capacity)?,
            counts: device.variable(capacity)?,
        })
    }

    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Adversarial images := the points where images that are classified correctly cross the boundary; the
    /// others stay. Returns the sum of the margins.
    pub fn perturb(
        &mut self,
        session: &mut Session,
        adversary: &Adversary,
        batch: &Batch,
        at: Moment,
    ) -> Result<f64> {
        let count = batch.len();
        let logits = session.logits(count, Images::Clean)?;
        let right: Vec<bool> = margins(&logits, &batch.labels).iter().map(|&m| m < 0.0).collect();
        let largest = BEYOND * self.attack.eps.0;
        let start: Vec<f32> =
            self.memory.get(&batch.indices).iter().map(|r| r.clamp(SMALLEST.min(largest), largest)).collect();
        // The step of the authors' code, whatever the ball.
        let step = |radius: f32| 2.5 * radius / self.attack.steps as f32;
        let balls: Vec<(f32, f32)> = start
            .iter()
            .zip(&right)
            .map(|(&r, &right)| if right { (r, step(r)) } else { (0.0, 0.0) })
            .collect();
        adversary.perturb_each(session, count, at, &balls)?;
        session.run("mma direction", count, |m| {
            let moved = m.graph.minus(m.adversarial, m.images)?;
            let direction = m.graph.variable(self.direction, m.graph.shape(moved));
            m.graph.update(Op::Copy(Copy), &[moved], &[direction])
        })?;
        let radii = self.search(session, batch, &right, &start)?;
        self.memory.set(&batch.indices, &radii);
        self.recall(session, batch);
        Ok(radii.iter().map(|&r| f64::from(r)).sum())
    }

    /// How far along its direction each of the images that are `right` crosses the boundary, as a radius, from `start`;
    /// 0 for the others, which take no part. Adversarial images := those points.
    fn search(
        &self,
        session: &mut Session,
        batch: &Batch,
        right: &[bool],
        start: &[f32],
    ) -> Result<Vec<f32>> {
        let mut positions = part(right, batch.len());
        let mut radii = vec![0.0; batch.len()];
        if positions.is_empty() {
            return Ok(radii);
        }
        let whole = match positions.len() < batch.len() {
            true => Some(session.narrow(batch.len(), positions.clone(), &[self.direction])?),
            false => {
                positions.sort_unstable();
                None
            }
        };
        let count = positions.len();
        let labels: Vec<u32> = positions.iter().map(|&i| batch.labels[i]).collect();
        let largest = BEYOND * self.attack.eps.0;
        let mut search: Vec<Bisection> =
            positions.iter().map(|&i| Bisection::new(start[i], largest)).collect();
        for _ in 0..HALVINGS {
            let logits = session.logits(count, Images::Adversarial)?;
            let found = margins(&logits, &labels);
            let mut parts = Vec::with_capacity(count);
            for ((search, margin), &i) in search.iter_mut().zip(found).zip(&positions) {
                search.halve(margin)?;
                parts.push(search.radius / start[i]);
            }
            self.go(session, count, &parts)?;
        }
        if let Some(whole) = whole {
            session.widen(whole)?;
        }
        for (i, found) in positions.into_iter().zip(search).filter(|(i, _)| right[*i]) {
            radii[i] = found.radius;
        }
        Ok(radii)
    }

    /// Which of the images that were perturbed last count: those whose margin is narrower than d_max, and those that
    /// are misclassified, which have none.
    pub fn recall(&self, session: &mut Session, batch: &Batch) {
        let narrow = |r: f32| f32::from(u8::from(r < self.attack.eps.0));
        let counts: Vec<f32> = self.memory.get(&batch.indices).into_iter().map(narrow).collect();
        session.device().write(self.counts, &counts);
    }

    /// Adversarial images := those so many parts along their directions, in the box.
    fn go(&self, session: &mut Session, count: usize, parts: &[f32]) -> Result<()> {
        session.device().write(self.distance, parts);
        session.run("mma point", count, |m| {
            let shape = m.graph.shape(m.images);
            let distance = m.graph.variable(self.distance, Shape::per_image(m.count));
            let direction = m.graph.variable(self.direction, shape);
            let distance = m.graph.add(Op::ImageSpread(ImageSpread { factor: 1.0, shape }), &[distance])?;
            let moved = m.graph.add(Op::Multiply(Multiply), &[direction, distance])?;
            let point = m.graph.add(Op::Add(Add), &[m.images, moved])?;
            let point = m.graph.add(Op::Relu(Relu { max: 1.0 }), &[point])?;
            m.graph.update(Op::Copy(Copy), &[point], &[m.adversarial])
        })
    }

    /// `1/3 CE(z, y) + 2/3 CE(z', y)`, the second term for the images that count: those whose margin is
    /// narrower than d_max, at the boundary, and those that are misclassified, as they are.
    pub fn add(&self, m: &mut ModelGraph, mode: BatchNormMode) -> Result<BatchLoss> {
        let clean = m.logits(Images::Clean, mode)?;
        let forward = m.forward(Images::Adversarial, mode)?;
        m.graph.set_label("loss");
        let counts = m.graph.variable(self.counts, Shape::per_image(m.count));
        let clean = m.graph.cross_entropy(clean, m.labels)?;
        let clean = m.graph.times(CLEAN, clean)?;
        let margin = m.graph.cross_entropy(forward.logits, m.labels)?;
        let margin = m.graph.product(counts, margin)?;
        let margin = m.graph.times(1.0 - CLEAN, margin)?;
        let losses = m.graph.plus(clean, margin)?;
        let terms = vec![("clean", clean), ("margin", margin)];
        Ok(BatchLoss { losses, terms, forward })
    }
}

/// The soft logit margin of each image, `log of the sum over k != y of exp z_k - z_y`: below 0 where the
/// label is likelier than all other classes together.
fn margins(logits: &[f32], labels: &[u32]) -> Vec<f32> {
    let classes = logits.len() / labels.len().max(1);
    let margin = |(row, &label): (&[f32], &u32)| {
        let others = || row.iter().enumerate().filter(|(k, _)| *k != label as usize).map(|(_, z)| *z);
        let largest = others().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = others().map(|z| (z - largest).exp()).sum();
        largest + sum.ln() - row[label as usize]
    };
    logits.chunks_exact(classes.max(1)).zip(labels).map(margin).collect()
}

/// The search for the radius at which one image crosses the boundary.
#[derive(Clone, Copy, Debug)]
struct Bisection {
    inside: f32,
    outside: f32,
    radius: f32,
}

impl Bisection {
    const fn new(radius: f32, largest: f32) -> Self {
        Self { inside: 0.0, outside: largest, radius }
    }

    /// Takes in the margin at the current radius and goes to the middle of what is left.
    fn halve(&mut self, margin: f32) -> Result<()> {
        if margin.is_nan() {
            return Err(Error::NonFinite(
                "logits in the search of mma are not finite; lower schedule.peak".into(),
            ));
        }
        if margin < 0.0 {
            self.inside = self.inside.max(self.radius);
        } else {
            self.outside = self.outside.min(self.radius);
        }
        self.radius = f32::midpoint(self.inside, self.outside);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_soft() {
        let logits = [2.0, 1.0, 0.0, 2.0, 1.0, 0.0, 5.0, 5.0, -100.0];
        let found = margins(&logits, &[0, 1, 0]);
        let expected = [1.313_262 - 2.0, 2.126_928 - 1.0, 0.0];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
        assert!(margins(&[f32::NAN, 0.0], &[0])[0].is_nan());
        assert!(margins(&[300.0, -300.0], &[0])[0] < 0.0);
    }

    #[test]
    fn the_search_closes_in_on_the_boundary() {
        for boundary in [0.001, 0.02, 0.0499, 0.06] {
            let mut search = Bisection::new(0.005, 0.05);
            for _ in 0..HALVINGS {
                search.halve(search.radius - boundary).unwrap();
            }
            let expected = f32::min(boundary, 0.05);
            assert!((search.radius - expected).abs() < 0.05 / 1024.0 * 1.01, "{search:?} for {boundary}");
        }
        assert!(Bisection::new(0.005, 0.05).halve(f32::NAN).is_err());
    }
}
