//! Labels for images that have none, by the model that training starts from (self-training: Carmon et al.,
//! "Unlabeled Data Improves Adversarial Robustness", 2019).

use crate::classifier::probabilities;
use crate::data::{Dataset, Loader, LoaderOptions};
use crate::error::Result;
use crate::session::Session;

/// The class that the model in `session` gives each image, where its probability is at least `confidence`
/// (0 to 1). `session` needs room for `batch` images.
pub fn pseudo_labels(
    session: &mut Session,
    data: &Dataset,
    batch: usize,
    confidence: f32,
) -> Result<Vec<Option<u32>>> {
    let mut labels = Vec::with_capacity(data.len());
    let classes = session.classes();
    for batch in Loader::new(data, LoaderOptions { batch, ..LoaderOptions::default() })? {
        // The labels that the data may have are not looked at.
        let rows = probabilities(session, &batch.images, batch.len())?;
        labels.extend(rows.chunks_exact(classes).map(|row| sure(row, confidence)));
    }
    Ok(labels)
}

/// The likeliest class, if that is sure enough; not a number is sure of nothing.
fn sure(probabilities: &[f32], confidence: f32) -> Option<u32> {
    let best = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.filter(|(_, p)| **p >= confidence).map(|(class, _)| class as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sure_guesses_count() {
        assert_eq!(sure(&[0.1, 0.7, 0.2], 0.7), Some(1));
        assert_eq!(sure(&[0.1, 0.7, 0.2], 0.71), None);
        assert_eq!(sure(&[0.4, 0.6], 0.0), Some(1));
        assert_eq!(sure(&[f32::NAN, f32::NAN], 0.0), None);
    }
}
