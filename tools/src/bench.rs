//! `adamant bench`: how long the parts of adversarial training take, after a check that they are right.

use std::sync::LazyLock;
use std::time::Instant;

use adamant::{Architecture, Benchmark, Model, Workload};
use anyhow::{Context, Result, bail};

use crate::Outcome;
use crate::args::BenchArgs;
use crate::measure::open_silently;
use crate::model::Loaded;
use crate::output::{self, percent};
use crate::progress::Console;

mod report;
mod text;

use report::{LayerTime, Report, Scale, Startup, Timing, by_op, median, overhead};

/// The largest difference from the CPU executor that rounding explains.
const TOLERANCE: f32 = 1e-2;

/// What `--scaling` multiplies the batch by.
const SCALES: [usize; 3] = [1, 4, 16];

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Notes that the process has just begun.
pub fn note_start() {
    LazyLock::force(&BEGAN);
}

pub fn run(args: &BenchArgs, console: &Console) -> Result<Outcome> {
    let (name, model) = model(args)?;
    let batch = args.batch.resolve(model.network.input);
    let largest = batch
        .checked_mul(if args.scaling { SCALES[SCALES.len() - 1] } else { 1 })
        .with_context(|| format!("--batch {batch} with --scaling is too large"))?;
    let device = open_silently(&args.device)?;
    let device_s = BEGAN.elapsed().as_secs_f64();
    let is_cpu = device.is_cpu();
    let device_name = device.name();
    let mut benchmark = Benchmark::new(device, &model, batch, 0)?;
    benchmark.run(Workload::TrainStep)?;
    let startup = Startup { device_s, first_train_step_s: BEGAN.elapsed().as_secs_f64() };
    console.note(&format!("{name}, batch {batch}, device: {device_name}"));
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
    let workloads: Vec<Workload> = match args.workloads.as_slice() {
        [] => Workload::ALL.to_vec(),
        chosen => Workload::ALL.into_iter().filter(|w| chosen.contains(w)).collect(),
    };
    let mut profiles = Vec::with_capacity(workloads.len());
    for &workload in &workloads {
        benchmark.run(workload)?;
        profiles.push(benchmark.profile(workload)?);
    }
    let times = rounds(&mut benchmark, &workloads, args.runs)?;
    let mut results = Vec::new();
    let (mut ops, mut layers) = (Vec::new(), Vec::new());
    for ((&workload, times), profile) in workloads.iter().zip(&times).zip(&profiles) {
        results.push(Timing::new(workload, times, profile, batch));
        if matches!(workload, Workload::PgdStep | Workload::TrainStep) {
            ops.extend(by_op(workload, profile));
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
    drop(benchmark);
    let mut measured = Vec::new();
    if args.scaling {
        for scale in SCALES {
            let batch = largest / SCALES[SCALES.len() - 1] * scale;
            console.note(&format!("batch {batch}"));
            let mut benchmark = Benchmark::new(open_silently(&args.device)?, &model, batch, 0)?;
            benchmark.run(Workload::Pgd10AdversarialStep)?;
            let times = rounds(&mut benchmark, &[Workload::Pgd10AdversarialStep], args.runs)?;
            measured.push((batch, median(&times[0])));
        }
    }
    let report = Report {
        schema: 1,
        device: device_name,
        arch: name,
        batch,
        startup,
        overhead: overhead(&results),
        results,
        scaling: Scale::all(&measured),
        ops,
        layers,
    };
    output::result(&args.json, &report, &text::text(&report))?;
    Ok(Outcome::Done)
}

/// Seconds of each workload in each of `runs` rounds, a step of an attack as the mean of ten. The workloads take turns, so that what else the
/// machine does falls on all of them alike.
fn rounds(benchmark: &mut Benchmark, workloads: &[Workload], runs: usize) -> Result<Vec<Vec<f64>>> {
    let mut times = vec![Vec::with_capacity(runs); workloads.len()];
    for _ in 0..runs {
        for (times, &workload) in times.iter_mut().zip(workloads) {
            // The training step of the round before changed the weights. The first of many steps of an attack
            // then computes anew what depends on them alone: that is no part of what a step takes.
            if !workload.trains() {
                benchmark.run(workload)?;
            }
            let start = Instant::now();
            for _ in 0..in_a_row(workload) {
                benchmark.run(workload)?;
            }
            times.push(start.elapsed().as_secs_f64() / f64::from(in_a_row(workload)));
        }
    }
    Ok(times)
}

/// How many runs are timed together. An attack has ten steps: their mean has its share of what a busy machine delays,
/// which the median of single steps leaves out.
const fn in_a_row(workload: Workload) -> u32 {
    if matches!(workload, Workload::PgdStep) { 10 } else { 1 }
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
