//! `adamant bench`: how long the parts of adversarial training take, after a check that they are right.

use std::collections::BTreeMap;
use std::time::Instant;

use adamant::{Architecture, Benchmark, Model, StepTime, Workload};
use anyhow::{Result, bail};
use serde::Serialize;

use crate::Outcome;
use crate::args::BenchArgs;
use crate::measure::open_silently;
use crate::model::Loaded;
use crate::output::{self, percent};
use crate::progress::Console;

/// The largest difference from the CPU executor that rounding explains.
const TOLERANCE: f32 = 1e-2;

#[derive(Serialize)]
struct Report {
    schema: u32,
    device: String,
    arch: String,
    batch: usize,
    results: Vec<Timing>,
    /// The steps of one PGD step and one training step, summed by operation.
    ops: Vec<OpTime>,
    /// Every step of every workload, where --layers asks for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<LayerTime>,
}

#[derive(Serialize)]
struct Timing {
    name: &'static str,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    gflops: f64,
    images_per_second: f64,
    runs: usize,
}

#[derive(Serialize)]
struct OpTime {
    workload: &'static str,
    op: &'static str,
    count: usize,
    ms: f64,
    /// Part of the workload's time.
    share: f64,
    gflops: f64,
    gigabytes_per_second: f64,
}

/// One step.
#[derive(Serialize)]
struct LayerTime {
    workload: &'static str,
    layer: String,
    op: &'static str,
    ms: f64,
    gflops: f64,
}

impl LayerTime {
    fn new(workload: Workload, step: &StepTime) -> Self {
        Self {
            workload: workload.name(),
            layer: step.label.clone(),
            op: step.op,
            ms: step.seconds * 1e3,
            gflops: step.flops as f64 / step.seconds / 1e9,
        }
    }
}

pub fn run(args: &BenchArgs, console: &Console) -> Result<Outcome> {
    let (name, model) = model(args)?;
    let batch = args.batch.resolve(model.network.input);
    let device = open_silently(&args.device)?;
    let is_cpu = device.is_cpu();
    let device_name = device.name();
    console.note(&format!("{name}, batch {batch}, device: {device_name}"));
    let mut benchmark = Benchmark::new(device, &model, batch, 0)?;
    if !is_cpu {
        let difference = benchmark.difference(&model)?;
        console.note(&format!("differs from the CPU executor by {difference:.1e} of the norm"));
        if difference > TOLERANCE {
            bail!(
                "{device_name} computes something else than the CPU executor (by {difference:.1e} of its \
                 norm); `adamant devices` tests each kind of kernel"
            );
        }
    }
    let mut results = Vec::new();
    let (mut ops, mut layers) = (Vec::new(), Vec::new());
    for workload in Workload::ALL {
        benchmark.run(workload)?;
        let profile = benchmark.profile(workload)?;
        let mut times = Vec::with_capacity(args.runs);
        for _ in 0..args.runs {
            let start = Instant::now();
            benchmark.run(workload)?;
            times.push(start.elapsed().as_secs_f64());
        }
        results.push(timing(workload, &mut times, &profile, batch));
        if matches!(workload, Workload::PgdStep | Workload::TrainStep) {
            ops.extend(by_op(workload, &profile));
        }
        if args.layers {
            layers.extend(profile.iter().map(|step| LayerTime::new(workload, step)));
        }
    }
    if benchmark.recomputed() > 0.0 {
        console.note(&format!(
            "within --memory-limit, {} of a step's arithmetic is computed a second time",
            percent(benchmark.recomputed())
        ));
    }
    let report = Report { schema: 1, device: device_name, arch: name, batch, results, ops, layers };
    output::result(&args.json, &report, &text(&report))?;
    Ok(Outcome::Done)
}

fn model(args: &BenchArgs) -> Result<(String, Model)> {
    if let Some(path) = &args.model {
        let loaded = Loaded::read(path)?;
        return Ok((loaded.name, loaded.model));
    }
    let name = args.arch.as_deref().unwrap_or("resnet20");
    let known = adamant::architectures().iter().find(|a| a.name == name);
    let (input, classes) = known.map_or(([3, 32, 32], 10), |a| (a.input, a.classes));
    let input = match args.size {
        Some(size) => [input[0], size, size],
        None => input,
    };
    Ok((name.to_owned(), Architecture::build(name, input, classes, 0)?))
}

fn timing(workload: Workload, times: &mut [f64], profile: &[StepTime], batch: usize) -> Timing {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    let median = if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 };
    let flops: u64 = profile.iter().map(|s| s.flops).sum();
    Timing {
        name: workload.name(),
        median_ms: median * 1e3,
        min_ms: times[0] * 1e3,
        max_ms: times[times.len() - 1] * 1e3,
        gflops: flops as f64 / median / 1e9,
        images_per_second: batch as f64 / median,
        runs: times.len(),
    }
}

fn by_op(workload: Workload, profile: &[StepTime]) -> Vec<OpTime> {
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
            gflops: flops as f64 / seconds / 1e9,
            gigabytes_per_second: bytes as f64 / seconds / 1e9,
        })
        .collect();
    ops.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    ops
}

fn text(report: &Report) -> String {
    let mut text = format!("{}, batch {}, {}\n\n", report.arch, report.batch, report.device);
    text += &format!("{:<26}{:>12}{:>12}{:>12}{:>14}\n", "", "median", "fastest", "GFLOP/s", "images/s");
    for r in &report.results {
        text += &format!(
            "{:<26}{:>9.1} ms{:>9.1} ms{:>12.1}{:>14.1}\n",
            r.name, r.median_ms, r.min_ms, r.gflops, r.images_per_second
        );
    }
    for workload in [Workload::PgdStep, Workload::TrainStep] {
        text += &format!(
            "\n{:<26}{:>8}{:>12}{:>8}{:>12}{:>10}\n",
            format!("{} by op", workload.name()),
            "steps",
            "time",
            "share",
            "GFLOP/s",
            "GB/s"
        );
        for op in report.ops.iter().filter(|o| o.workload == workload.name()) {
            text += &format!(
                "{:<26}{:>8}{:>9.2} ms{:>7.1}%{:>12.1}{:>10.1}\n",
                op.op,
                op.count,
                op.ms,
                100.0 * op.share,
                op.gflops,
                op.gigabytes_per_second
            );
        }
    }
    for workload in Workload::ALL {
        let steps = || report.layers.iter().filter(|l| l.workload == workload.name());
        if steps().next().is_some() {
            text +=
                &format!("\n{:<50}{:>16}{:>14}\n", format!("{} by step", workload.name()), "time", "GFLOP/s");
        }
        for step in steps() {
            let name = format!("{:<28}{}", step.layer, step.op);
            text += &format!("{name:<50}{:>13.3} ms{:>14.1}\n", step.ms, step.gflops);
        }
    }
    text
}
