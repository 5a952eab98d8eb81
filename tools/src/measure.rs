//! Evaluating with a progress bar, and the table of what was found.

use adamant::{
    AttackResult, AttackSpec, Batch, Dataset, Device, DeviceChoice, EvaluateOptions, EvaluationReport,
    ReportContext, Session, evaluate_and_keep,
};
use anyhow::{Result, bail};

use crate::args::BallArgs;
use crate::model::Loaded;
use crate::output::{count, duration, percent, pixels};
use crate::progress::{Console, stop_on_interrupt};

/// Opens a device, and says which one it is.
pub fn open_device(choice: &DeviceChoice, console: &Console) -> Result<Device> {
    let device = Device::open(choice)?;
    let why = match choice {
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
    pub batch: usize,
    pub seed: u64,
}

impl Measurement<'_> {
    /// Measures a model; `keep` gets the adversarial images of each attack and batch.
    pub fn run(
        &self,
        loaded: &Loaded,
        device: Device,
        console: &Console,
        keep: impl FnMut(usize, &Batch, &[f32]) -> adamant::Result<()>,
    ) -> Result<EvaluationReport> {
        let stop = stop_on_interrupt()?;
        let batch = self.batch.min(self.data.len()).max(1);
        let mut session = Session::new(device, &loaded.model, batch)?;
        let options = EvaluateOptions { attacks: self.attacks, batch, seed: self.seed, stop };
        let bar = console.bar(1000, "{bar:24} {percent:>3}%  {msg}  {elapsed} (eta {eta})");
        let found = evaluate_and_keep(
            &mut session,
            self.data,
            &options,
            |progress| {
                bar.set_position((progress.fraction * 1000.0) as u64);
                bar.set_message(match progress.attack {
                    Some((name, _)) => {
                        format!("{name}, image {} of {}", progress.images_done, progress.images)
                    }
                    None => format!("image {} of {}", progress.images_done, progress.images),
                });
            },
            keep,
        );
        bar.finish_and_clear();
        let outcome = match found {
            Err(adamant::Error::Interrupted) => bail!("stopped before all images were measured"),
            other => other?,
        };
        let context = ReportContext {
            model: &loaded.name,
            data: &self.data.name,
            split: self.split,
            seed: self.seed,
            device: &session.device_name(),
            classes: session.classes(),
        };
        let report = outcome.report(self.attacks, &context);
        for warning in &report.warnings {
            console.warn(&format!("{} [{}]", warning.message, warning.flag));
        }
        Ok(report)
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
    if attack.steps > 1 {
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
    text
}
