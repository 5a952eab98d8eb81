//! How like the features of a network in training are to those of its start: a cosine tells whether fine-tuning keeps
//! what the network had learned, as in Suzuki et al. ("Adversarial finetuning with latent representation constraint to
//! mitigate accuracy-robustness tradeoff", 2023, Table 3). Theirs is of the map before pooling, this one of what the last
//! layer sees: the numbers do not compare.

use serde::{Deserialize, Serialize};

use crate::attacks::AttackSpec;
use crate::data::{Batch, Dataset};
use crate::error::{Error, Result};
use crate::evaluate::{EvaluateOptions, EvaluateProgress, Observer, Order, Outcome, evaluate_with};
use crate::session::{Images, Session};

/// Images that are compared.
const IMAGES: usize = 200;

/// The features of the start in a checkpoint.
const NAME: &str = "features.start";

/// Mean cosine between what the last, linear layer sees now, and what it saw of the clean image at the start of the
/// run: -1 to 1, on the first validation images.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cosines {
    /// Of the clean images.
    pub clean: f64,
    /// Of what the validation attack leaves of them.
    pub adversarial: f64,
}

/// The features that a run started with.
pub(super) struct Likeness {
    images: Dataset,
    /// Images x features, row-major; empty until the run has begun.
    start: Vec<f32>,
}

impl Likeness {
    /// Nothing where no images are attacked after each epoch, or where the last layer is not linear.
    pub fn new(validation: Option<&Dataset>, attack: Option<&AttackSpec>, session: &Session) -> Option<Self> {
        session.network().head()?;
        let images = validation.filter(|_| attack.is_some())?.limit(IMAGES);
        Some(Self { images, start: Vec::new() })
    }

    /// Keeps the features of the network as it is.
    pub fn begin(&mut self, session: &mut Session) -> Result<()> {
        self.start = features(session, &self.images, None)?;
        Ok(())
    }

    /// Evaluates as [`evaluate`](crate::evaluate()) does, and compares the images that the attack leaves.
    pub fn evaluate(
        &self,
        session: &mut Session,
        data: &Dataset,
        options: &EvaluateOptions<'_>,
        tell: impl FnMut(f64),
    ) -> Result<(Outcome, Option<Cosines>)> {
        let len = self.images.shape.iter().product();
        let mut found = Found { tell, len, images: vec![0.0; self.images.len() * len] };
        let outcome = evaluate_with(session, data, options, Order::Independent, None, &mut found)?;
        if self.start.is_empty() {
            // The run began with a version that did not keep them.
            return Ok((outcome, None));
        }
        let clean = mean_cosine(&features(session, &self.images, None)?, &self.start, self.images.len());
        let adversarial = features(session, &self.images, Some(&found.images))?;
        let adversarial = mean_cosine(&adversarial, &self.start, self.images.len());
        Ok((outcome, Some(Cosines { clean, adversarial })))
    }

    /// For a checkpoint.
    pub fn read(&self) -> (String, Vec<f32>) {
        (NAME.to_owned(), self.start.clone())
    }

    /// What a checkpoint of an earlier version lacks stays unknown.
    pub fn restore(&mut self, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        let found = tensors.iter().find(|(name, _)| name == NAME);
        self.start = found.map(|(_, values)| values.clone()).unwrap_or_default();
        if !self.start.len().is_multiple_of(self.images.len().max(1)) {
            return Err(Error::Config(format!("the checkpoint's '{NAME}' is not of these images")));
        }
        Ok(())
    }
}

/// An observer that keeps what the attack makes of the first images.
struct Found<F> {
    tell: F,
    /// Values of an image.
    len: usize,
    images: Vec<f32>,
}

impl<F: FnMut(f64)> Observer for Found<F> {
    fn progress(&mut self, progress: EvaluateProgress<'_>) {
        (self.tell)(progress.fraction);
    }

    fn keep(&mut self, _attack: usize, image: usize, pixels: &[f32]) -> Result<()> {
        if let Some(place) = self.images.get_mut(image * self.len..(image + 1) * self.len) {
            place.copy_from_slice(pixels);
        }
        Ok(())
    }
}

/// What the last, linear layer sees of the images, or of what an attack made of them: images x features, row-major.
///
/// # Errors
/// [`Error::Config`] where the last layer is not linear.
pub fn features(session: &mut Session, data: &Dataset, adversarial: Option<&[f32]>) -> Result<Vec<f32>> {
    let positions: Vec<u32> = (0..data.len() as u32).collect();
    let len: usize = data.shape.iter().product();
    let mut features = Vec::new();
    for part in positions.chunks(session.capacity()) {
        let batch = Batch::gather(data, part);
        session.load(&batch.images, &batch.labels, &batch.indices)?;
        let images = match adversarial {
            None => Images::Clean,
            Some(adversarial) => {
                let first = part[0] as usize;
                let target = session.buffers().adversarial;
                session.device().write(target, &adversarial[first * len..(first + part.len()) * len]);
                Images::Adversarial
            }
        };
        features.extend(session.features(part.len(), images)?);
    }
    Ok(features)
}

/// The mean over `count` rows of the cosine between them; 0 where a row is zero.
pub fn mean_cosine(a: &[f32], b: &[f32], count: usize) -> f64 {
    let width = (a.len() / count.max(1)).max(1);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let cosine = |(a, b): (&[f32], &[f32])| {
        let lengths = (dot(a, a) * dot(b, b)).sqrt();
        if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
    };
    a.chunks(width).zip(b.chunks(width)).map(cosine).sum::<f64>() / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_of_rows() {
        let found = mean_cosine(&[1.0, 0.0, 3.0, 4.0, 0.0, 0.0], &[2.0, 0.0, 4.0, -3.0, 1.0, 1.0], 3);
        assert!((found - 1.0 / 3.0).abs() < 1e-12, "{found}");
        let found = mean_cosine(&[3.0, 4.0, -1.0, -2.0], &[3.0, 0.0, 1.0, 2.0], 2);
        assert!((found - (0.6 - 1.0) / 2.0).abs() < 1e-12, "{found}");
    }
}
