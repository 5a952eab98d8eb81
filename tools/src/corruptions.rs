//! The suite of common corruptions, for `evaluate`.

use adamant::{
    Corrupted, CorruptionObserver, CorruptionReport, CorruptionResult, Device, PublishedCorruptions, Session,
    evaluate_corruptions,
};
use anyhow::{Result, bail};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::args::EvaluateArgs;
use crate::measure::open_device;
use crate::model::Loaded;
use crate::output::{self, count, percent};
use crate::progress::{Console, stop_on_interrupt};
use crate::resume::StateFile;

/// A bar, and a file for what is found.
struct Watch<'a> {
    bar: ProgressBar,
    file: Option<&'a mut StateFile>,
}

impl CorruptionObserver for Watch<'_> {
    fn progress(&mut self, corruption: &str, part: f64) {
        self.bar.set_position((part * 1000.0) as u64);
        self.bar.set_message(corruption.to_owned());
    }

    fn keep(&mut self, results: &[CorruptionResult]) -> adamant::Result<()> {
        match &mut self.file {
            Some(file) => file.put_corruptions(results),
            None => Ok(()),
        }
    }
}

/// Classifies the images under every corruption, with a progress bar; goes on after those of `resume`, and
/// keeps in `file` what it finds.
pub fn measure(
    loaded: &Loaded,
    images: &Corrupted<'_>,
    device: Device,
    batch: usize,
    console: &Console,
    resume: Vec<CorruptionResult>,
    file: Option<&mut StateFile>,
) -> Result<CorruptionReport> {
    let stop = stop_on_interrupt()?;
    let mut session = Session::new(device, &loaded.model, batch.max(1))?;
    let bar = console.bar(1000, "{bar:24} {percent:>3}%  {msg}  {elapsed} (eta {eta})");
    let kept = file.as_ref().map(|file| file.path().to_owned());
    let mut watch = Watch { bar, file };
    let found = evaluate_corruptions(&mut session, images, batch, stop, resume, &mut watch);
    watch.bar.finish_and_clear();
    match (found, kept) {
        (Err(adamant::Error::Interrupted), Some(path)) => {
            bail!("stopped; {} has what was found: go on with --resume", path.display())
        }
        (Err(adamant::Error::Interrupted), None) => bail!("stopped before all corruptions were measured"),
        (found, _) => Ok(found?),
    }
}

/// What `--json` gets where there are corrupted images alone.
#[derive(Serialize, Deserialize)]
pub struct Published {
    schema: u32,
    pub model: String,
    pub data: String,
    images: u64,
    device: String,
    pub corruptions: CorruptionReport,
    pub command: Vec<String>,
}

/// `evaluate --data cifar10c:DIR`.
pub fn run_published(
    args: &EvaluateArgs,
    loaded: &Loaded,
    files: &PublishedCorruptions,
    console: &Console,
) -> Result<Outcome> {
    let [channels, height, width] = loaded.model.network.input;
    if [channels, height, width] != files.shape() {
        bail!("{}: images of 3x32x32, the model takes {channels}x{height}x{width}", args.data);
    }
    let classes = loaded.model.network.classes()?;
    if classes != files.classes() {
        bail!("{}: images of {} classes, the model tells {classes} apart", args.data, files.classes());
    }
    if !files.missing().is_empty() {
        console.note(&format!("{}: without {}", args.data, files.missing().join(", ")));
    }
    let device = open_device(&args.device, console)?;
    let name = device.name();
    let batch = args.images.batch.within(args.device.memory_limit, &loaded.model, &device)?;
    let images = Corrupted::Published(files, args.images.limit.unwrap_or(usize::MAX));
    let report = measure(loaded, &images, device, batch, console, Vec::new(), None)?;
    let data = files.name();
    let head = format!("{}: {} of {data}", loaded.name, count(report.images as usize, "image"));
    let text = output::wrap(&head, 2) + "\n\n" + &text(&report);
    let result = Published {
        schema: 1,
        model: loaded.name.clone(),
        data: data.to_owned(),
        images: report.images,
        device: name,
        corruptions: report,
        command: console.command().to_vec(),
    };
    output::result(&args.json, &result, &text)?;
    Ok(Outcome::Done)
}

/// A line for each corruption, and the means.
pub fn text(report: &CorruptionReport) -> String {
    let mut text = format!("{:<28}", format!("{} at severity", report.kind));
    (1..=5).for_each(|severity| text += &format!(" {severity:>6}"));
    text += "    mean\n";
    for result in &report.results {
        let extra = if result.extra { " (extra)" } else { "" };
        text += &format!("{:<28}", format!("{}{extra}", result.name));
        result.accuracy.iter().for_each(|&a| text += &format!(" {:>6}", percent(a)));
        text += &format!(" {:>7}\n", percent(result.mean_accuracy));
    }
    let mut mean = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            text += &format!("{name:<62} {:>8}\n", percent(value));
        }
    };
    mean("mean over the benchmark's 15", report.mean_accuracy);
    mean("mean over all 19", report.mean_accuracy_all);
    if let Some(mce) = report.mce {
        text += &format!("{:<62} {mce:>8.1}\n", "mCE, percent of AlexNet's errors");
    }
    text
}
