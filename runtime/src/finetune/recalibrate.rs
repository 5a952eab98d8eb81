//! Estimating the running statistics of BatchNorm anew, for weights that training did not pass through: an average
//! of weights (SWA, Izmailov et al., 2018, section 3.2), or for another mixture of clean and attacked images than
//! training had.

use super::adversary::Adversary;
use super::radii::Moment;
use crate::data::{Augment, Batch, Dataset};
use crate::error::Result;
use crate::network::{BatchNormMode, Role, Source};
use crate::ops::Op;
use crate::session::{Images, Session};
use crate::shape::Tensor;

/// Images that are looked at, spread evenly over those trained on.
const IMAGES: usize = 1024;

/// What is looked at, and which statistics are estimated.
pub(super) struct Recalibration {
    /// The part of the images that is attacked, 0 to 1.
    part: f64,
    /// How they are cropped and flipped: as in training, for the edges of crops are part of what weights expect.
    augment: Option<Augment>,
    layers: Vec<Layer>,
}

/// A BatchNorm layer: where its mean and variance are among the parameters, and how far a batch moves them.
struct Layer {
    mean: usize,
    variance: usize,
    momentum: f32,
}

/// Sums over images of a channel's mean, and of its mean square.
#[derive(Clone, Default)]
struct Moments {
    mean: Vec<f64>,
    square: Vec<f64>,
}

impl Recalibration {
    /// `None` where no BatchNorm has statistics that may change; `kept` names parameters that may not.
    pub fn new(part: f64, augment: Option<Augment>, session: &Session, kept: &[bool]) -> Option<Self> {
        let network = session.network();
        let layer = |layer: &crate::network::Layer| {
            let Op::BatchNorm(norm) = &layer.op else { return None };
            let of = |role| {
                layer.inputs.iter().find_map(|input| match *input {
                    Source::Parameter(at) if network.parameters[at].role == role => Some(at),
                    _ => None,
                })
            };
            let (mean, variance) = (of(Role::RunningMean)?, of(Role::RunningVariance)?);
            let changes = norm.momentum > 0.0 && !kept[mean] && !kept[variance];
            changes.then_some(Layer { mean, variance, momentum: norm.momentum })
        };
        let layers: Vec<Layer> = network.layers.iter().filter_map(layer).collect();
        (!layers.is_empty()).then_some(Self { part, augment, layers })
    }

    /// The parameters `weights` with statistics of these weights, in place of those they came with. The parameters of
    /// the session are as they were, its images are not.
    pub fn of(
        &self,
        mut weights: Vec<Tensor>,
        session: &mut Session,
        adversary: &Adversary,
        images: &Dataset,
        at: Moment,
        radius: f32,
    ) -> Result<Vec<Tensor>> {
        let live = session.read_parameters()?;
        // Attacks meet the statistics of the weights in training, which a resumed run has, too.
        for at in self.layers.iter().flat_map(|layer| [layer.mean, layer.variance]) {
            weights[at].data.clone_from(&live[at].data);
        }
        session.write_parameters(&weights)?;
        let used = images.len().min(IMAGES);
        let positions: Vec<u32> = (0..used).map(|i| (i * images.len() / used) as u32).collect();
        // Images that are sorted by class must not make batches of one class.
        let count = used.div_ceil(session.capacity());
        let batches: Vec<Vec<u32>> =
            (0..count).map(|i| positions.iter().skip(i).step_by(count).copied().collect()).collect();
        let mut attacked = Vec::new();
        for (i, positions) in batches.iter().enumerate() {
            let is_attacked = ((i + 1) as f64 * self.part).floor() > (i as f64 * self.part).floor();
            let batch = Batch::augmented(images, positions, self.augment, at.seed, at.epoch);
            session.load(&batch.images, &batch.labels, &batch.indices)?;
            session.start_clean(batch.len())?;
            if is_attacked {
                adversary.perturb(session, batch.len(), at, radius)?;
            }
            attacked.push(session.read_adversarial(batch.len())?);
        }
        let mut sums = vec![Moments::default(); self.layers.len()];
        for at in self.layers.iter().flat_map(|layer| [layer.mean, layer.variance]) {
            weights[at].data.fill(0.0);
        }
        for (positions, images_seen) in batches.iter().zip(&attacked) {
            let labels = vec![0; positions.len()];
            session.write_parameters(&weights)?;
            session.load(images_seen, &labels, positions)?;
            session.run("statistics", positions.len(), |m| {
                m.logits(Images::Clean, BatchNormMode::BatchUpdate).map(|_| ())
            })?;
            let found = session.read_parameters()?;
            for (layer, sums) in self.layers.iter().zip(&mut sums) {
                // From zero, a batch moves a statistic to its own times the momentum.
                let own =
                    |at: usize| found[at].data.iter().map(|v| f64::from(*v) / f64::from(layer.momentum));
                sums.take_in(own(layer.mean), own(layer.variance), positions.len() as f64);
            }
        }
        for (layer, sums) in self.layers.iter().zip(&sums) {
            let (mean, variance) = sums.statistics(used as f64);
            weights[layer.mean].data = mean;
            weights[layer.variance].data = variance;
        }
        session.write_parameters(&live)?;
        Ok(weights)
    }
}

impl Moments {
    fn take_in(&mut self, mean: impl Iterator<Item = f64>, variance: impl Iterator<Item = f64>, images: f64) {
        for (channel, (mean, variance)) in mean.zip(variance).enumerate() {
            if channel == self.mean.len() {
                self.mean.push(0.0);
                self.square.push(0.0);
            }
            self.mean[channel] += images * mean;
            self.square[channel] += images * (variance + mean * mean);
        }
    }

    /// Mean and variance over all images, what lies between batches included.
    fn statistics(&self, images: f64) -> (Vec<f32>, Vec<f32>) {
        let mean = self.mean.iter().map(|sum| sum / images);
        let variance = mean.clone().zip(&self.square).map(|(m, square)| (square / images - m * m).max(0.0));
        (mean.clone().map(|m| m as f32).collect(), variance.map(|v| v as f32).collect())
    }
}
