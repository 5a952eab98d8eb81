//! Accuracy on corrupted images.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::corruptions::{CORRUPTIONS, Corruption, SEVERITIES};
use crate::data::{Dataset, PublishedCorruptions};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::report::fraction;
use crate::session::Session;

/// Where corrupted images come from.
pub enum Corrupted<'a> {
    /// Made of these images, with random numbers of this seed.
    Made(&'a Dataset, u64),
    /// The first so many images of each severity of the published files.
    Published(&'a PublishedCorruptions, usize),
}

/// Accuracy under each corruption.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CorruptionReport {
    /// `C-like` for images made here, `published` for those of the authors.
    pub kind: String,
    /// Images of each corruption and severity.
    pub images: u64,
    pub results: Vec<CorruptionResult>,
    /// Mean over the 15 corruptions of the benchmark and 5 severities; absent where some are.
    pub mean_accuracy: Option<f64>,
    /// Mean over all 19, which some papers report.
    pub mean_accuracy_all: Option<f64>,
    /// Mean corruption error, in percent of AlexNet's errors: for models of ImageNet's 1,000 classes.
    pub mce: Option<f64>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CorruptionResult {
    pub name: String,
    pub group: String,
    /// Not one of the 15 of the benchmark.
    pub extra: bool,
    /// What is other than in the published images besides the random numbers.
    pub differs: Option<String>,
    /// Images that are classified correctly, at severities 1 to 5.
    pub correct: Vec<u64>,
    pub accuracy: Vec<f64>,
    pub mean_accuracy: f64,
}

/// AlexNet's mean errors over the five severities of the 15 corruptions, in the benchmark's order: the
/// normalisers of mCE (Hendrycks and Dietterich, 2019; digits as in the code of AugMix).
const ALEXNET: [f64; 15] = [
    0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324,
    0.564592, 0.853204, 0.646056, 0.717840, 0.606500,
];

/// ImageNet's classes, for which alone there are normalisers.
const IMAGENET_CLASSES: usize = 1000;

/// Mean corruption error, in percent: the errors of the 15 corruptions, each a mean over severities, as
/// parts of AlexNet's.
fn mean_corruption_error(errors: &[f64; 15]) -> f64 {
    100.0 * errors.iter().zip(ALEXNET).map(|(error, alexnet)| error / alexnet).sum::<f64>() / 15.0
}

impl Corrupted<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Made(data, _) => data.len(),
            Self::Published(files, limit) => files.images().min(*limit),
        }
    }

    fn has(&self, corruption: &Corruption) -> bool {
        match self {
            Self::Made(..) => true,
            Self::Published(files, _) => files.has(corruption.name),
        }
    }

    /// Pixels and labels of a range of images.
    fn batch(
        &self,
        corruption: &Corruption,
        severity: usize,
        at: Range<usize>,
    ) -> Result<(Vec<u8>, Vec<u32>)> {
        match self {
            Self::Made(data, seed) => {
                let first = data.offset();
                let images = at.clone().into_par_iter().map(|i| {
                    let image = data.bytes(i)?;
                    Some(corruption.apply(image, data.shape, severity, *seed, (first + i) as u32))
                });
                let images: Option<Vec<Vec<u8>>> = images.collect();
                let images = images.ok_or_else(|| {
                    Error::Config(format!(
                        "the corruptions are of pictures with 256 levels, and the images of {} have none; open the \
                         data that they were made from",
                        data.name
                    ))
                })?;
                Ok((images.concat(), data.labels()[at].to_vec()))
            }
            Self::Published(files, _) => files.read(corruption.name, severity, at),
        }
    }
}

/// What the measurement of corruptions tells while it runs.
pub trait CorruptionObserver {
    /// The corruption that is being measured, and the part of everything that is done, 0 to 1.
    fn progress(&mut self, _corruption: &str, _part: f64) {}

    /// Comes after every corruption, with all that are measured: from here it can go on.
    fn keep(&mut self, _results: &[CorruptionResult]) -> Result<()> {
        Ok(())
    }
}

/// Classifies all images under every corruption and severity. `resume` are the results of those that an
/// earlier measurement of the same images ended with.
///
/// # Errors
/// [`Error::Config`] when `resume` is not of the first of these corruptions, or of fewer images than it counts;
/// [`Error::Interrupted`] when `stop` is set.
pub fn evaluate_corruptions(
    session: &mut Session,
    images: &Corrupted<'_>,
    batch: usize,
    stop: &AtomicBool,
    resume: Vec<CorruptionResult>,
    observer: &mut impl CorruptionObserver,
) -> Result<CorruptionReport> {
    let count = images.len();
    let batch = batch.min(session.capacity()).max(1);
    let present: Vec<&Corruption> = CORRUPTIONS.iter().filter(|c| images.has(c)).collect();
    let total = (present.len() * SEVERITIES * count).max(1) as f64;
    let fits = |(result, corruption): (&CorruptionResult, &&Corruption)| {
        let counts = result.correct.len() == SEVERITIES && result.correct.iter().all(|&c| c <= count as u64);
        result.name == corruption.name && counts
    };
    if resume.len() > present.len() || !resume.iter().zip(&present).all(fits) {
        return Err(Error::Config(
            "the saved state is of other corruptions or images; start again without it".into(),
        ));
    }
    let mut done = resume.len() * SEVERITIES * count;
    let mut results = resume;
    for corruption in present.into_iter().skip(results.len()) {
        let mut correct = vec![0; SEVERITIES];
        for severity in 1..=SEVERITIES {
            for start in (0..count).step_by(batch) {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                let at = start..(start + batch).min(count);
                let (pixels, labels) = images.batch(corruption, severity, at.clone())?;
                let values: Vec<f32> = pixels.iter().map(|&b| f32::from(b) / 255.0).collect();
                session.load(&values, &labels, &vec![0; labels.len()])?;
                session.start_clean(labels.len())?;
                session.score(labels.len(), Loss::CrossEntropy)?;
                let right = session.read_correct(labels.len())?;
                correct[severity - 1] += right.iter().filter(|&&r| r).count() as u64;
                done += at.len();
                observer.progress(corruption.name, done as f64 / total);
            }
        }
        let made = matches!(images, Corrupted::Made(..));
        results.push(CorruptionResult {
            name: corruption.name.into(),
            group: format!("{:?}", corruption.group).to_lowercase(),
            extra: corruption.extra,
            differs: corruption.differs.filter(|_| made).map(str::to_owned),
            correct,
            accuracy: Vec::new(),
            mean_accuracy: 0.0,
        });
        observer.keep(&results)?;
    }
    let kind = if matches!(images, Corrupted::Made(..)) { "C-like" } else { "published" };
    let mut report = CorruptionReport {
        kind: kind.into(),
        images: count as u64,
        results,
        mean_accuracy: None,
        mean_accuracy_all: None,
        mce: None,
    };
    report.derive(session.classes());
    Ok(report)
}

impl CorruptionReport {
    /// Computes what follows from the counts.
    fn derive(&mut self, classes: usize) {
        for result in &mut self.results {
            result.accuracy = result.correct.iter().map(|&c| fraction(c, self.images)).collect();
            result.mean_accuracy = result.accuracy.iter().sum::<f64>() / SEVERITIES as f64;
        }
        let mean = |results: &[&CorruptionResult], count: usize| {
            (results.len() == count)
                .then(|| results.iter().map(|r| r.mean_accuracy).sum::<f64>() / count as f64)
        };
        let benchmark: Vec<&CorruptionResult> = self.results.iter().filter(|r| !r.extra).collect();
        let all: Vec<&CorruptionResult> = self.results.iter().collect();
        let errors: Vec<f64> = benchmark.iter().map(|r| 1.0 - r.mean_accuracy).collect();
        let mce = <&[f64; 15]>::try_from(&errors[..]).ok().map(mean_corruption_error);
        let means = (mean(&benchmark, ALEXNET.len()), mean(&all, CORRUPTIONS.len()));
        (self.mean_accuracy, self.mean_accuracy_all) = means;
        self.mce = mce.filter(|_| classes == IMAGENET_CLASSES);
    }

    /// Adds the images that follow these.
    ///
    /// # Errors
    /// [`Error::Config`] when they met other corruptions.
    pub fn append(&mut self, other: &Self, classes: usize) -> Result<()> {
        let names =
            |report: &Self| -> Vec<String> { report.results.iter().map(|r| r.name.clone()).collect() };
        if self.kind != other.kind || names(self) != names(other) {
            return Err(Error::Config("the parts met other corruptions".into()));
        }
        self.images += other.images;
        for (mine, theirs) in self.results.iter_mut().zip(&other.results) {
            mine.correct.iter_mut().zip(&theirs.correct).for_each(|(a, b)| *a += b);
        }
        self.derive(classes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(correct: impl Fn(&Corruption) -> Vec<u64>) -> CorruptionReport {
        let result = |c: &Corruption| CorruptionResult {
            name: c.name.into(),
            group: String::new(),
            extra: c.extra,
            differs: None,
            correct: correct(c),
            accuracy: vec![],
            mean_accuracy: 0.0,
        };
        CorruptionReport {
            kind: "C-like".into(),
            images: 100,
            results: CORRUPTIONS.iter().map(result).collect(),
            mean_accuracy: None,
            mean_accuracy_all: None,
            mce: None,
        }
    }

    /// Worked out apart: a model that errs half the time everywhere has 64.7% of AlexNet's errors, one
    /// with AlexNet's errors has all of them, and brightness weighs more than its error.
    #[test]
    fn mean_corruption_errors() {
        assert!((mean_corruption_error(&ALEXNET) - 100.0).abs() < 1e-9);
        assert!((mean_corruption_error(&ALEXNET.map(|e| e / 4.0)) - 25.0).abs() < 1e-9);
        let half = mean_corruption_error(&[0.5; 15]);
        assert!((half - 64.672_573).abs() < 1e-5, "{half}");
    }

    #[test]
    fn means_are_of_the_benchmark_and_of_all() {
        let mut found = report(|c| if c.extra { vec![100; 5] } else { vec![90, 80, 70, 60, 50] });
        found.derive(10);
        assert!((found.mean_accuracy.unwrap() - 0.7).abs() < 1e-12);
        assert!((found.mean_accuracy_all.unwrap() - (15.0 * 0.7 + 4.0) / 19.0).abs() < 1e-12);
        assert_eq!(found.mce, None, "CIFAR has no normalisers");
        found.derive(1000);
        let errors: f64 = ALEXNET.iter().map(|a| 0.3 / a).sum::<f64>() / 15.0;
        assert!((found.mce.unwrap() - 100.0 * errors).abs() < 1e-9);
        let half = report(|_| vec![50; 5]);
        found.append(&half, 10).unwrap();
        assert!((found.mean_accuracy.unwrap() - 0.6).abs() < 1e-12 && found.images == 200);
        found.results.remove(0);
        found.derive(1000);
        assert_eq!((found.mean_accuracy, found.mce), (None, None), "one is missing");
        assert!(found.append(&half, 10).is_err());
    }
}
