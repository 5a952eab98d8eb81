//! Training on mixtures of two images, whose loss is the mixture of the losses of their labels: the lambda x +
//! (1 - lambda) y of Zhang et al., "mixup: beyond empirical risk minimization", 2018, with lambda uniform.
//!
//! `mixup` attacks the mixtures (Rice, Wong and Kolter, "Overfitting in adversarially robust deep learning",
//! 2020). `interpolated` attacks the images, then mixes clean and attacked ones apart (Lamb et al.,
//! "Interpolated adversarial training", 2019, Algorithm 1).

use super::formula::Formula;
use super::loss::{BatchLoss, LossKind};
use super::radii::Moment;
use crate::data::Batch;
use crate::error::Result;
use crate::graph::{ValueId, Variable};
use crate::network::BatchNormMode;
use crate::ops::Function;
use crate::random::{Purpose, Stream};
use crate::session::{Images, ModelGraph, Session};
use crate::shape::Shape;

pub(super) struct Mixup {
    interpolated: bool,
    /// Of the attacked images, and of the clean ones.
    mixtures: [Mixture; 2],
}

/// With what the images of a batch are mixed.
#[derive(Clone, Copy)]
struct Mixture {
    /// The share of the image itself, for each image.
    share: Variable,
    /// The labels of the others.
    labels: Variable,
}

const ATTACKED: usize = 0;
const CLEAN: usize = 1;

impl Mixup {
    /// `None` where the loss is of whole images.
    pub fn new(kind: LossKind, session: &mut Session) -> Result<Option<Self>> {
        if !matches!(kind, LossKind::Mixup | LossKind::Interpolated) {
            return Ok(None);
        }
        let capacity = session.capacity();
        let mut mixture = || -> Result<Mixture> {
            let device = session.device();
            Ok(Mixture { share: device.variable(capacity)?, labels: device.variable(capacity)? })
        };
        let mixtures = [mixture()?, mixture()?];
        Ok(Some(Self { interpolated: kind == LossKind::Interpolated, mixtures }))
    }

    /// Before the attack: the loaded images := their mixtures, where those are what is attacked.
    pub fn before(&self, session: &mut Session, batch: &Batch, at: Moment) -> Result<()> {
        if self.interpolated {
            return Ok(());
        }
        let mixed = self.mix(session, ATTACKED, &batch.images, batch, at);
        session.load(&mixed, &batch.labels, &batch.indices)
    }

    /// After it: both kinds of images := their mixtures, where they are mixed apart.
    pub fn after(&self, session: &mut Session, batch: &Batch, at: Moment) -> Result<()> {
        if !self.interpolated {
            return Ok(());
        }
        let found = session.read_adversarial(batch.len())?;
        let attacked = self.mix(session, ATTACKED, &found, batch, at);
        let clean = self.mix(session, CLEAN, &batch.images, batch, at);
        session.load(&clean, &batch.labels, &batch.indices)?;
        let adversarial = session.buffers().adversarial;
        session.device().write(adversarial, &attacked);
        Ok(())
    }

    /// The mixtures of `images`, with what the device needs to know of them.
    fn mix(
        &self,
        session: &mut Session,
        which: usize,
        images: &[f32],
        batch: &Batch,
        at: Moment,
    ) -> Vec<f32> {
        let stream = Stream::new(at.seed, Purpose::Mixup, at.epoch, 2 * at.batch + which as u32);
        // Away from the numbers of the permutation.
        let share = stream.uniform(u32::MAX, 0);
        let others = stream.permutation(batch.len() as u32);
        let labels: Vec<u32> = others.iter().map(|&i| batch.labels[i as usize]).collect();
        let Mixture { share: of_share, labels: of_labels } = self.mixtures[which];
        session.device().write(of_share, &vec![share; batch.len()]);
        session.device().write_integers(of_labels, &labels);
        let len = images.len() / batch.len();
        let mut mixed = Vec::with_capacity(images.len());
        for (image, &other) in images.chunks_exact(len).zip(&others) {
            let other = &images[other as usize * len..][..len];
            mixed.extend(
                image.iter().zip(other).map(|(a, b)| (share * a + (1.0 - share) * b).clamp(0.0, 1.0)),
            );
        }
        mixed
    }

    /// Adds the forward passes and the loss to a training graph.
    pub fn add(&self, m: &mut ModelGraph, mode: BatchNormMode) -> Result<BatchLoss> {
        let clean = match self.interpolated {
            true => Some(m.logits(Images::Clean, mode)?),
            false => None,
        };
        let forward = m.forward(Images::Adversarial, mode)?;
        m.graph.set_label("loss");
        let attacked = self.mixtures[ATTACKED].cross_entropy(m, forward.logits)?;
        let Some(clean) = clean else {
            let terms = vec![("adversarial", attacked)];
            return Ok(BatchLoss { losses: attacked, terms, forward });
        };
        let clean = self.mixtures[CLEAN].cross_entropy(m, clean)?;
        let (clean, attacked) = (m.graph.times(0.5, clean)?, m.graph.times(0.5, attacked)?);
        let losses = m.graph.plus(clean, attacked)?;
        let terms = vec![("clean", clean), ("adversarial", attacked)];
        Ok(BatchLoss { losses, terms, forward })
    }

    /// What the attack follows, where it attacks mixtures: the gradient of their summed loss.
    pub fn gradient(&self, session: &mut Session, count: usize) -> Result<()> {
        session.run("mixup gradient", count, |m| {
            let logits = m.logits(Images::Adversarial, BatchNormMode::Running)?;
            let losses = self.mixtures[ATTACKED].cross_entropy(m, logits)?;
            m.ascend(logits, losses)
        })
    }

    /// Whether the attack is on mixtures.
    pub const fn is_attacked(&self) -> bool {
        !self.interpolated
    }
}

impl Mixture {
    /// `share CE(z, y) + (1 - share) CE(z, label of the other)` for each image.
    fn cross_entropy(&self, m: &mut ModelGraph, logits: ValueId) -> Result<ValueId> {
        let one = Shape::per_image(m.count);
        let [share, labels] = [self.share, self.labels].map(|v| m.graph.variable(v, one));
        let own = m.graph.cross_entropy(logits, m.labels)?;
        let other = m.graph.cross_entropy(logits, labels)?;
        let rest = m.graph.map(Function::Identity, -1.0, 1.0, share)?;
        let own = m.graph.product(share, own)?;
        let other = m.graph.product(rest, other)?;
        m.graph.plus(own, other)
    }
}
