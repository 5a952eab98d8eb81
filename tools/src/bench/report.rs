//! What `adamant bench` found, as `--json` writes it.

use std::collections::BTreeMap;

use adamant::{StepTime, Workload};
use serde::Serialize;

#[derive(Serialize)]
pub struct Report {
    pub schema: u32,
    pub device: String,
    pub arch: String,
    pub batch: usize,
    pub startup: Startup,
    pub results: Vec<Timing>,
    /// What a PGD-10 adversarial step takes beyond ten PGD steps and a training step, as a part of these,
    /// by the medians; below zero where it takes less. Nothing where one of the three was not timed.
    pub overhead: Option<f64>,
    /// The PGD-10 adversarial step of larger batches, where --scaling asks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scaling: Vec<Scale>,
    /// The steps of one PGD step and one training step, summed by operation.
    pub ops: Vec<OpTime>,
    /// Every step of every workload, where --layers asks for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerTime>,
}

/// Seconds since the process began.
#[derive(Serialize)]
pub struct Startup {
    /// Until the model was read and the device was open.
    pub device_s: f64,
    /// Until the first training step was done, on random images.
    pub first_train_step_s: f64,
}

#[derive(Serialize)]
pub struct Timing {
    pub name: &'static str,
    pub median_ms: f64,
    pub min_ms: f64,
    pub max_ms: f64,
    pub gflops: f64,
    pub images_per_second: f64,
    pub runs: usize,
}

impl Timing {
    /// `times` in seconds, at least one, of a workload whose steps are in `profile`.
    pub fn new(workload: Workload, times: &[f64], profile: &[StepTime], batch: usize) -> Self {
        let median = median(times);
        let flops: u64 = profile.iter().map(|s| s.flops).sum();
        Self {
            name: workload.name(),
            median_ms: median * 1e3,
            min_ms: times.iter().copied().fold(f64::INFINITY, f64::min) * 1e3,
            max_ms: times.iter().copied().fold(0.0, f64::max) * 1e3,
            gflops: flops as f64 / median / 1e9,
            images_per_second: batch as f64 / median,
            runs: times.len(),
        }
    }
}

/// A batch and what its PGD-10 adversarial step takes.
#[derive(Serialize)]
pub struct Scale {
    pub batch: usize,
    pub median_ms: f64,
    pub ms_per_image: f64,
    /// Time per image as a part of that of the smallest batch: 1 where cost grows linearly.
    pub relative: f64,
}

impl Scale {
    /// From batches with seconds, the smallest first.
    pub fn all(measured: &[(usize, f64)]) -> Vec<Self> {
        let per_image = |&(batch, seconds): &(usize, f64)| seconds / batch as f64;
        let first = measured.first().map_or(0.0, per_image);
        let scale = |m: &(usize, f64)| Self {
            batch: m.0,
            median_ms: m.1 * 1e3,
            ms_per_image: per_image(m) * 1e3,
            relative: per_image(m) / first,
        };
        measured.iter().map(scale).collect()
    }
}

#[derive(Serialize)]
pub struct OpTime {
    pub workload: &'static str,
    pub op: &'static str,
    pub count: usize,
    pub ms: f64,
    /// Part of the workload's time.
    pub share: f64,
    pub gflops: f64,
    pub gigabytes_per_second: f64,
}

/// One step.
#[derive(Serialize)]
pub struct LayerTime {
    pub workload: &'static str,
    pub layer: String,
    pub op: &'static str,
    pub ms: f64,
    pub gflops: f64,
}

impl LayerTime {
    pub fn new(workload: Workload, step: &StepTime) -> Self {
        Self {
            workload: workload.name(),
            layer: step.label.clone(),
            op: step.op,
            ms: step.seconds * 1e3,
            gflops: giga_per_second(step.flops, step.seconds),
        }
    }
}

/// Nothing in no time at all, which a coarse clock says of a small step.
fn giga_per_second(amount: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { amount as f64 / seconds / 1e9 } else { 0.0 }
}

/// The middle of at least one time.
pub fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 }
}

/// [`Report::overhead`].
pub fn overhead(results: &[Timing]) -> Option<f64> {
    let of = |workload: Workload| results.iter().find(|r| r.name == workload.name()).map(|r| r.median_ms);
    let parts = 10.0 * of(Workload::PgdStep)? + of(Workload::TrainStep)?;
    Some(of(Workload::Pgd10AdversarialStep)? / parts - 1.0)
}

/// The steps of a workload summed by operation, the dearest first.
pub fn by_op(workload: Workload, profile: &[StepTime]) -> Vec<OpTime> {
    let mut sums: BTreeMap<&'static str, (usize, f64, u64, u64)> = BTreeMap::new();
    for step in profile {
        let sum = sums.entry(step.op).or_default();
        *sum = (sum.0 + 1, sum.1 + step.seconds, sum.2 + step.flops, sum.3 + step.bytes);
    }
    let total: f64 = profile.iter().map(|s| s.seconds).sum();
    let mut ops: Vec<OpTime> = sums
        .into_iter()
        .map(|(op, (count, seconds, flops, bytes))| OpTime {
            workload: workload.name(),
            op,
            count,
            ms: seconds * 1e3,
            share: seconds / total,
            gflops: giga_per_second(flops, seconds),
            gigabytes_per_second: giga_per_second(bytes, seconds),
        })
        .collect();
    ops.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(workload: Workload, times: &[f64]) -> Timing {
        Timing::new(workload, times, &[], 4)
    }

    #[test]
    fn the_middle_time_counts() {
        assert_eq!(median(&[3.0, 1.0, 9.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 9.0, 2.0]), 3.0);
        let timing = timing(Workload::Forward, &[0.4, 0.1, 0.2]);
        assert_eq!((timing.min_ms, timing.median_ms, timing.max_ms), (100.0, 200.0, 400.0));
        assert_eq!((timing.images_per_second, timing.runs), (20.0, 3));
    }

    #[test]
    fn overhead_is_what_the_parts_do_not_explain() {
        let mut results = vec![
            timing(Workload::Forward, &[7.0]),
            timing(Workload::PgdStep, &[1.0, 1.0, 5.0]),
            timing(Workload::TrainStep, &[2.0]),
        ];
        assert_eq!(overhead(&results), None);
        results.push(timing(Workload::Pgd10AdversarialStep, &[15.0, 12.6, 3.0]));
        let found = overhead(&results).expect("all three were timed");
        assert!((found - 0.05).abs() < 1e-9, "{found}");
    }

    #[test]
    fn scaling_is_relative_to_the_smallest_batch() {
        let scales = Scale::all(&[(2, 0.5), (8, 2.0), (32, 4.0)]);
        let found: Vec<_> = scales.iter().map(|s| (s.batch, s.ms_per_image, s.relative)).collect();
        assert_eq!(found, [(2, 250.0, 1.0), (8, 250.0, 1.0), (32, 125.0, 0.5)]);
    }
}
