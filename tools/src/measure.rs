//! Evaluating with a progress bar, and the table of what was found.

use std::time::Instant;

use adamant::{
    AttackResult, AttackSpec, Dataset, Device, DeviceChoice, EvaluateOptions, EvaluateProgress,
    EvaluationReport, Order, ReportContext, Session, evaluate_and_keep, evaluate_transfer, wilson,
};
use anyhow::{Result, bail};
use serde::Serialize;

use crate::args::{BallArgs, DeviceArgs};
use crate::model::Loaded;
use crate::output::{count, duration, percent, pixels};
use crate::progress::{Console, stop_on_interrupt};

/// Opens a device.
pub fn open_silently(args: &DeviceArgs) -> Result<Device> {
    let mut device = Device::open(&args.device)?;
    if let Some(bytes) = args.memory_limit {
        device.limit_memory(bytes);
    }
    Ok(device)
}

/// Opens a device, and says which one it is.
pub fn open_device(args: &DeviceArgs, console: &Console) -> Result<Device> {
    let device = open_silently(args)?;
    let why = match args.device {
        DeviceChoice::Auto if device.is_cpu() => "; there is no hardware GPU",
        _ => "",
    };
    console.line(&format!("device: {}{why}", device.name()));
    Ok(device)
}

/// What to measure, on which images.
pub struct Measurement<'a> {
    pub data: &'a Dataset,
    /// `train` or `test`.
    pub split: &'a str,
    pub attacks: &'a [AttackSpec],
    pub order: Order,
    pub batch: usize,
    pub seed: u64,
}

impl Measurement<'_> {
    /// Measures a model; `keep` gets the position of an attack and of an image, and what the attack
    /// made of it.
    pub fn run(
        &self,
        loaded: &Loaded,
        device: Device,
        console: &Console,
        keep: impl FnMut(usize, usize, &[f32]) -> adamant::Result<()>,
    ) -> Result<EvaluationReport> {
        self.run_with(loaded, device, console, keep, &[], || bail!("there are no surrogates"))
    }

    /// As [`Measurement::run`], and measures how the images of the same attacks on `surrogates`
    /// transfer; `open` opens a device for each of them.
    pub fn run_with(
        &self,
        loaded: &Loaded,
        device: Device,
        console: &Console,
        keep: impl FnMut(usize, usize, &[f32]) -> adamant::Result<()>,
        surrogates: &[Loaded],
        open: impl Fn() -> Result<Device>,
    ) -> Result<EvaluationReport> {
        let stop = stop_on_interrupt()?;
        let batch = self.batch.min(self.data.len()).max(1);
        let mut session = Session::new(device, &loaded.model, batch)?;
        let options = EvaluateOptions { attacks: self.attacks, batch, seed: self.seed, stop };
        let bar = console.bar(1000, "{bar:24} {percent:>3}%  {msg}  {elapsed} (eta {eta})");
        let mut milestones = Milestones::new(self.attacks.len() > 1, self.data.len());
        let found = evaluate_and_keep(
            &mut session,
            self.data,
            &options,
            self.order,
            |progress| {
                bar.set_position((progress.fraction * 1000.0) as u64);
                let (done, images) = (progress.images_done, progress.images);
                let (attempt, attempts) = progress.attempt;
                bar.set_message(match progress.attack {
                    Some((name, robust)) if attempts > 1 => {
                        format!(
                            "{name} {} of {attempts}, image {done} of {images}, {robust} robust",
                            attempt + 1
                        )
                    }
                    Some((name, robust)) => {
                        format!("{name}, image {done} of {images}, {robust} robust")
                    }
                    None => format!("image {done} of {images}"),
                });
                if let Some(line) = milestones.pass(&progress) {
                    bar.suspend(|| console.line(&line));
                }
            },
            keep,
        );
        bar.finish_and_clear();
        let stopped = "stopped before all images were measured";
        let mut outcome = match found {
            Err(adamant::Error::Interrupted) => bail!(stopped),
            other => other?,
        };
        let mut attacks = self.attacks.to_vec();
        for surrogate in surrogates {
            let mut made = Session::new(open()?, &surrogate.model, batch)?;
            let bar = console.bar(1000, "{bar:24} {percent:>3}%  transfer  {elapsed} (eta {eta})");
            let tell = |part: f64| bar.set_position((part * 1000.0) as u64);
            let found = evaluate_transfer(&mut made, &mut session, self.data, &options, &mut outcome, tell);
            bar.finish_and_clear();
            match found {
                Err(adamant::Error::Interrupted) => bail!(stopped),
                other => other?,
            }
            attacks.extend(self.attacks.iter().map(AttackSpec::transferred));
        }
        let context = ReportContext {
            model: &loaded.name,
            data: &self.data.name,
            split: self.split,
            seed: self.seed,
            device: &session.device_name(),
            classes: session.classes(),
        };
        let report = outcome.report(&attacks, &context);
        for warning in &report.warnings {
            console.warn(&format!("{} [{}]", warning.message, warning.flag));
        }
        Ok(report)
    }
}

/// Tells when an attack has ended: a long evaluation shows what it has found so far.
struct Milestones {
    wanted: bool,
    images: usize,
    start: Instant,
    seen: Option<(String, u64)>,
}

impl Milestones {
    fn new(wanted: bool, images: usize) -> Self {
        Self { wanted, images, start: Instant::now(), seen: None }
    }

    /// A line about the attack that ended, when another one has begun.
    fn pass(&mut self, progress: &EvaluateProgress<'_>) -> Option<String> {
        let (name, robust) = progress.attack?;
        let before = self.seen.replace((name.to_owned(), robust));
        let (before, stood) = before.filter(|(before, _)| self.wanted && before != name)?;
        let part = percent(stood as f64 / self.images as f64);
        let time = duration(self.start.elapsed().as_secs_f64());
        Some(format!("{before}: {part} robust, {time} so far"))
    }
}

/// What the report leaves to say: the order of the attacks, and how far the numbers can be trusted for
/// images that were not among these.
#[derive(Serialize)]
pub struct Printed<'a> {
    #[serde(flatten)]
    pub report: &'a EvaluationReport,
    /// `independent`, or `in-turn`: then an attack's `robust_correct` counts the images that withstood
    /// it and all before it.
    pub order: &'static str,
    /// Position in the split of the first image.
    pub first_image: usize,
    pub intervals: Intervals,
}

/// Wilson's intervals, 95%, of every accuracy.
#[derive(Serialize)]
pub struct Intervals {
    pub confidence: f64,
    pub clean: [f64; 2],
    pub attacks: Vec<[f64; 2]>,
    pub worst_case: [f64; 2],
}

impl<'a> Printed<'a> {
    pub fn new(report: &'a EvaluationReport, order: Order, first_image: usize) -> Self {
        let of = |correct| wilson(correct, report.images);
        Self {
            report,
            order: match order {
                Order::Independent => "independent",
                Order::InTurn => "in-turn",
            },
            first_image,
            intervals: Intervals {
                confidence: 0.95,
                clean: of(report.clean.correct),
                attacks: report.attacks.iter().map(|a| of(a.robust_correct)).collect(),
                worst_case: of(report.worst_case.robust_correct),
            },
        }
    }
}

/// Parses attacks as the command line names them.
pub fn parse_attacks(texts: &[impl AsRef<str>], ball: &BallArgs) -> Result<Vec<AttackSpec>> {
    Ok(texts
        .iter()
        .map(|text| AttackSpec::parse(text.as_ref(), ball.norm, ball.eps))
        .collect::<adamant::Result<_>>()?)
}

/// `pgd linf 8/255, 20 steps of 2/255, 5 starts`.
pub fn describe(attack: &AttackResult) -> String {
    let mut text = format!("{} {} {}", attack.name, attack.norm, pixels(attack.eps));
    let kind = attack.name.trim_start_matches("transfer-");
    if kind == "square" {
        text += &format!(", {} queries", attack.steps);
    } else if ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "deepfool"].contains(&kind) {
        text += &format!(", {} steps", attack.steps);
    } else if attack.steps > 1 {
        text += &format!(", {} steps of {}", attack.steps, pixels(attack.step));
    }
    if attack.restarts > 1 {
        text += &format!(", {} starts", attack.restarts);
    }
    text
}

/// The report for people: a line for each attack.
pub fn table(report: &EvaluationReport) -> String {
    let images = count(report.images as usize, "image");
    let mut text = format!("{}: {images} of {} {}\n\n", report.model, report.data, report.split);
    let mut row = |name: &str, accuracy: f64, correct: u64, seconds: String| {
        let part = format!("{correct}/{}", report.images);
        let line = format!("{name:<46} {:>7} {part:>13} {seconds:>9}", percent(accuracy));
        text += line.trim_end();
        text.push('\n');
    };
    row("clean", report.clean.accuracy, report.clean.correct, String::new());
    for attack in &report.attacks {
        row(&describe(attack), attack.robust_accuracy, attack.robust_correct, duration(attack.seconds));
    }
    if report.attacks.len() > 1 {
        let worst = &report.worst_case;
        row("worst of these for each image", worst.robust_accuracy, worst.robust_correct, String::new());
    }
    let interval = |correct| {
        let [low, high] = wilson(correct, report.images);
        format!("{} to {}", percent(low), percent(high))
    };
    text += &format!("\n95% confidence: clean {}", interval(report.clean.correct));
    if !report.attacks.is_empty() {
        text += &format!(", attacked {}", interval(report.worst_case.robust_correct));
    }
    text.push('\n');
    text
}
