//! Evaluating with a progress bar, and the table of what was found.

use std::path::PathBuf;
use std::time::Instant;

use adamant::{
    AttackResult, AttackSpec, Dataset, Device, DeviceChoice, EvaluateOptions, EvaluateProgress,
    EvaluationReport, EvaluationState, Observer, Order, Session, Tell, evaluate_transfer, evaluate_with,
    wilson,
};
use anyhow::{Result, bail};
use indicatif::ProgressBar;

use crate::args::{BallArgs, DeviceArgs, ImagesArgs, Tune};
use crate::evaluation::{Evaluation, Settings, Surrogate};
use crate::model::Loaded;
use crate::output::{count, duration, percent, pixels, wrap};
use crate::progress::{Console, stop_on_interrupt};
use crate::resume::StateFile;

/// Opens a device, without a word.
pub fn open_silently(args: &DeviceArgs) -> Result<Device> {
    open(args, Box::new(|_| ()))
}

fn open(args: &DeviceArgs, tell: Tell) -> Result<Device> {
    let mut device = Device::open(&args.device)?;
    if let Some(bytes) = args.memory_limit {
        device.limit_memory(bytes);
    }
    let tunes = match args.tune {
        Tune::Auto => !device.limits().software,
        Tune::On => true,
        Tune::Off => false,
    };
    if tunes {
        device.tune(measured_kernels().as_deref(), tell);
    }
    Ok(device)
}

/// The folder in which measured kernels are kept; none where the user has no home.
pub fn measured_kernels() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.cache_dir().join("adamant"))
}

/// Opens a device, and says which one it is.
pub fn open_device(args: &DeviceArgs, console: &Console) -> Result<Device> {
    let listener = console.clone();
    let device = open(args, Box::new(move |text| listener.line(text)))?;
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
    /// Models that images are made against, too.
    pub surrogates: &'a [Loaded],
    /// Images of the whole of which `data` is a part, and the position of the first of them.
    pub whole: (usize, usize),
}

impl<'a> Measurement<'a> {
    /// Everything but the surrogates, on all of the data.
    pub fn of(
        data: &'a Dataset,
        attacks: &'a [AttackSpec],
        images: &ImagesArgs,
        order: Order,
        batch: usize,
    ) -> Self {
        let whole = (data.len(), data.offset());
        Self {
            data,
            split: images.split.name(),
            attacks,
            order,
            batch,
            seed: images.seed,
            surrogates: &[],
            whole,
        }
    }

    /// What decides the numbers.
    pub fn settings(&self, loaded: &Loaded, device: &Device) -> Result<Settings> {
        Ok(Settings {
            adamant_version: env!("CARGO_PKG_VERSION").into(),
            model_blake3: loaded.blake3.clone(),
            mean: loaded.model.preprocessing.mean.clone(),
            std: loaded.model.preprocessing.std.clone(),
            classes: loaded.model.network.classes()?,
            data_blake3: vec![self.data.blake3()],
            of_images: self.whole.0,
            first_image: self.data.offset(),
            whole_from: self.whole.1,
            attacks: self.attacks.to_vec(),
            surrogates: self.surrogates.iter().map(|s| s.blake3.clone()).collect(),
            order: self.order,
            seed: self.seed,
            split: self.split.into(),
            device: device.name(),
        })
    }

    /// Measures a model; `keep` gets the position of an attack and of an image, and what the attack
    /// made of it.
    pub fn run(
        &self,
        loaded: &Loaded,
        device: Device,
        console: &Console,
        keep: impl FnMut(usize, usize, &[f32]) -> adamant::Result<()>,
    ) -> Result<Evaluation> {
        let settings = self.settings(loaded, &device)?;
        let no_device = || bail!("there are no surrogates");
        self.run_from(loaded, device, console, keep, settings, (&mut None, None), no_device)
    }

    /// As [`Measurement::run`], from the state that an earlier one left, and with a file for its own;
    /// `open` opens a device for each surrogate.
    #[expect(clippy::too_many_arguments, reason = "each is a thing of its own")]
    pub fn run_from(
        &self,
        loaded: &Loaded,
        device: Device,
        console: &Console,
        keep: impl FnMut(usize, usize, &[f32]) -> adamant::Result<()>,
        settings: Settings,
        (file, resume): (&mut Option<StateFile>, Option<EvaluationState>),
        open: impl Fn() -> Result<Device>,
    ) -> Result<Evaluation> {
        let stop = stop_on_interrupt()?;
        let batch = self.batch.min(self.data.len()).max(1);
        let mut session = Session::new(device, &loaded.model, batch)?;
        let options = EvaluateOptions { attacks: self.attacks, batch, seed: self.seed, stop };
        let mut watch = Watch {
            bar: console.bar(1000, "{bar:12} {percent:>3}%  {wide_msg}  {elapsed} (eta {prefix})"),
            eta: Eta::default(),
            milestones: Milestones::new(self.attacks, self.data.len()),
            console,
            keep,
            file: file.as_mut(),
        };
        let found = evaluate_with(&mut session, self.data, &options, self.order, resume, &mut watch);
        watch.bar.finish_and_clear();
        let mut outcome = finish(found, file)?;
        for (n, surrogate) in self.surrogates.iter().enumerate() {
            let mut made = Session::new(open()?, &surrogate.model, batch)?;
            let bar = console.bar(1000, "{bar:12} {percent:>3}%  {wide_msg}  {elapsed} (eta {eta})");
            bar.set_message(format!("transfer from {}", surrogate.name));
            let first = self.attacks.len() * (n + 1);
            let found = evaluate_transfer(
                &mut made,
                &mut session,
                self.data,
                &options,
                &mut outcome,
                first,
                |part| bar.set_position((part * 1000.0) as u64),
            );
            bar.finish_and_clear();
            if let Some(file) = file {
                let state = EvaluationState { outcome: outcome.clone(), attempt: u32::MAX, next: 0 };
                file.put(&state)?;
            }
            finish(found, file)?;
        }
        let data = &self.data.name;
        let surrogates: Vec<String> = self.surrogates.iter().map(|s| s.name.clone()).collect();
        let (model, command) = (&loaded.name, console.command());
        let evaluation = Evaluation::new(outcome, model, &surrogates, data, command, settings);
        for warning in &evaluation.report.warnings {
            console.warn(&format!("{} [{}]", warning.message, warning.flag));
        }
        Ok(evaluation)
    }
}

/// What an evaluation found; where it stopped, its state is written first.
fn finish<T>(found: adamant::Result<T>, file: &mut Option<StateFile>) -> Result<T> {
    if found.is_err()
        && let Some(file) = file
    {
        file.flush()?;
    }
    match (found, file) {
        (Err(adamant::Error::Interrupted), Some(file)) => {
            bail!("stopped; {} has what was found: go on with --resume", file.path().display())
        }
        (Err(adamant::Error::Interrupted), None) => bail!("stopped before all images were measured"),
        (found, _) => Ok(found?),
    }
}

/// Shows how far an evaluation is, and keeps what it finds.
struct Watch<'a, Keep> {
    bar: ProgressBar,
    eta: Eta,
    milestones: Milestones<'a>,
    console: &'a Console,
    keep: Keep,
    file: Option<&'a mut StateFile>,
}

impl<Keep: FnMut(usize, usize, &[f32]) -> adamant::Result<()>> Observer for Watch<'_, Keep> {
    fn progress(&mut self, progress: EvaluateProgress<'_>) {
        if let Some(line) = self.milestones.pass(&progress) {
            self.bar.suspend(|| self.console.line(&line));
        }
        // Every pass comes here: nothing is written where nobody looks.
        if !self.bar.is_hidden() {
            self.bar.set_position((progress.fraction * 1000.0) as u64);
            self.bar.set_message(message(&progress));
            self.bar.set_prefix(self.eta.after(&progress));
        }
    }

    fn keep(&mut self, attack: usize, image: usize, pixels: &[f32]) -> adamant::Result<()> {
        (self.keep)(attack, image, pixels)
    }

    fn state(&mut self, state: &EvaluationState) -> adamant::Result<()> {
        match &mut self.file {
            Some(file) => file.put(state),
            None => Ok(()),
        }
    }
}

/// `apgd-t 2/9, 31/38 images, 30 robust`: what fits beside the bar.
fn message(progress: &EvaluateProgress<'_>) -> String {
    let (done, images) = (progress.images_done, progress.images);
    let (attempt, attempts) = progress.attempt;
    match progress.attack {
        Some((name, robust)) if attempts > 1 => {
            format!("{name} {}/{attempts}, {done}/{images} images, {robust} robust", attempt + 1)
        }
        Some((name, robust)) => format!("{name}, {done}/{images} images, {robust} robust"),
        None => format!("clean, {done}/{images} images"),
    }
}

/// When an evaluation will end, by how long its attacks have taken so far.
#[derive(Default)]
struct Eta {
    /// When the first attack was heard of, and the part that was done by then.
    start: Option<(Instant, f64)>,
}

impl Eta {
    fn after(&mut self, progress: &EvaluateProgress<'_>) -> String {
        match self.start {
            None if progress.attack.is_some() => self.start = Some((Instant::now(), progress.fraction)),
            Some((at, from)) => return Self::at(at.elapsed().as_secs_f64(), from, progress.fraction),
            None => {}
        }
        "...".into()
    }

    /// So many seconds after a part `from` of the work was done, when `now` is.
    fn at(seconds: f64, from: f64, now: f64) -> String {
        let rest = seconds * (1.0 - now) / (now - from);
        if seconds >= 1.0 && rest.is_finite() && rest >= 0.0 { duration(rest) } else { "...".into() }
    }
}

/// Tells when an attack has ended: a long evaluation shows what it has found so far.
struct Milestones<'a> {
    attacks: &'a [AttackSpec],
    images: usize,
    start: Instant,
    /// The attack that runs, and how many withstand it.
    seen: Option<(usize, u64)>,
}

impl<'a> Milestones<'a> {
    fn new(attacks: &'a [AttackSpec], images: usize) -> Self {
        Self { attacks, images, start: Instant::now(), seen: None }
    }

    /// A line about the attack that ended, when another one has begun.
    fn pass(&mut self, progress: &EvaluateProgress<'_>) -> Option<String> {
        let (_, robust) = progress.attack?;
        let (before, stood) = self.seen.replace((progress.position, robust))?;
        let attack = self.attacks.get(before).filter(|_| before != progress.position)?;
        let part = percent(stood as f64 / self.images as f64);
        let time = duration(self.start.elapsed().as_secs_f64());
        let (kind, eps) = (&attack.kind, pixels(f64::from(attack.ball.eps)));
        Some(format!("{kind} {} {eps}: {part} robust, {time} so far", attack.norm_name()))
    }
}

/// Parses attacks as the command line names them.
pub fn parse_attacks(texts: &[impl AsRef<str>], ball: &BallArgs) -> Result<Vec<AttackSpec>> {
    Ok(texts
        .iter()
        .map(|text| AttackSpec::parse(text.as_ref(), ball.norm, ball.eps))
        .collect::<adamant::Result<_>>()?)
}

/// The same attacks at each of these radii, the smallest first: then what fell in a small ball need
/// not be tried in a larger one. Radius 0 is the clean images, which are always measured.
pub fn attacks_of_curve(
    texts: &[impl AsRef<str>],
    ball: &BallArgs,
    curve: &[f32],
) -> Result<Vec<AttackSpec>> {
    let mut radii: Vec<f32> = curve.iter().copied().filter(|&eps| eps != 0.0).collect();
    radii.sort_by(f32::total_cmp);
    radii.dedup();
    let mut attacks = Vec::new();
    for eps in radii {
        for text in texts.iter().map(AsRef::as_ref) {
            let spec = AttackSpec::parse(text, ball.norm, Some(eps))?;
            if spec.ball.eps != eps {
                bail!("--curve sets the radius of every attack; leave eps out of '{text}'");
            }
            attacks.push(spec);
        }
    }
    Ok(attacks)
}

/// `pgd linf 8/255, 20 steps of 2/255, 5 starts`.
pub fn describe(attack: &AttackResult) -> String {
    let mut text = format!("{} {} {}", attack.name, attack.norm, pixels(attack.eps));
    let kind = attack.name.trim_start_matches("transfer-");
    if kind == "square" {
        text += &format!(", {} queries", attack.steps);
    } else if ["apgd-ce", "apgd-dlr", "apgd-t", "cw-l2", "cw-l2-t", "fab", "fab-t", "deepfool"]
        .contains(&kind)
    {
        text += &format!(", {} steps", attack.steps);
    } else if attack.steps > 1 {
        text += &format!(", {} steps of {}", attack.steps, pixels(attack.step));
    }
    if attack.restarts > 1 {
        text += &format!(", {} starts", attack.restarts);
    }
    text
}

/// The surrogate of which attack number `attack` of `attacks` is the first.
pub fn first_of(attack: usize, attacks: usize, surrogates: &[Surrogate]) -> Option<&Surrogate> {
    let each = attacks / (surrogates.len() + 1);
    let first = each > 0 && attack.is_multiple_of(each);
    surrogates.get((attack / each.max(1)).checked_sub(1)?).filter(|_| first)
}

/// The report for people: a line for each attack, those made against surrogates under their names.
pub fn table(report: &EvaluationReport, surrogates: &[Surrogate]) -> String {
    let images = count(report.images as usize, "image");
    let head = format!("{}: {images} of {} {}", report.model, report.data, report.split);
    let mut text = wrap(&head, 2) + "\n\n";
    let row = |text: &mut String, name: &str, accuracy: f64, correct: u64, seconds: String| {
        let part = format!("{correct}/{}", report.images);
        let line = format!("{name:<46} {:>7} {part:>13} {seconds:>9}", percent(accuracy));
        *text += line.trim_end();
        text.push('\n');
    };
    row(&mut text, "clean", report.clean.accuracy, report.clean.correct, String::new());
    for (i, attack) in report.attacks.iter().enumerate() {
        if let Some(surrogate) = first_of(i, report.attacks.len(), surrogates) {
            text += &wrap(&format!("{surrogate}:"), 2);
            text.push('\n');
        }
        let (accuracy, correct) = (attack.robust_accuracy, attack.robust_correct);
        row(&mut text, &describe(attack), accuracy, correct, duration(attack.seconds));
    }
    if report.attacks.len() > 1 {
        let worst = &report.worst_case;
        let (accuracy, correct) = (worst.robust_accuracy, worst.robust_correct);
        row(&mut text, "worst of these for each image", accuracy, correct, String::new());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(position: usize, robust: u64, fraction: f64) -> EvaluateProgress<'static> {
        EvaluateProgress {
            images_done: 3,
            images: 9,
            clean_correct: 10,
            position,
            attack: Some(("pgd-t", robust)),
            attempt: (1, 9),
            fraction,
        }
    }

    /// The same attack at other radii is another attack.
    #[test]
    fn every_attack_that_ended_is_told() {
        let attacks = parse_attacks(
            &["pgd:eps=1/255", "pgd:eps=2/255", "fgsm:norm=l2"],
            &BallArgs { norm: None, eps: None },
        );
        let attacks = attacks.unwrap();
        let mut milestones = Milestones::new(&attacks, 20);
        assert_eq!(milestones.pass(&progress(0, 9, 0.1)), None);
        assert_eq!(milestones.pass(&progress(0, 8, 0.2)), None);
        let line = milestones.pass(&progress(1, 7, 0.3)).expect("the first has ended");
        assert!(line.starts_with("pgd linf 1/255: 40.0% robust, "), "{line}");
        let line = milestones.pass(&progress(2, 7, 0.3)).expect("the second has ended");
        assert!(line.starts_with("pgd linf 2/255: 35.0% robust, "), "{line}");
    }

    #[test]
    fn surrogates_stand_above_their_attacks() {
        let surrogate = |model: &str| Surrogate { model: model.into(), accuracy: None };
        let two = [surrogate("a"), surrogate("b")];
        let above: Vec<&str> =
            (0..6).map(|i| first_of(i, 6, &two).map_or("", |s| s.model.as_str())).collect();
        assert_eq!(above, ["", "", "a", "", "b", ""]);
        assert!((0..3).all(|i| first_of(i, 3, &[]).is_none()));
        assert!(first_of(0, 0, &two).is_none());
    }

    #[test]
    fn the_rest_takes_as_long_as_what_was_done() {
        assert_eq!(Eta::at(60.0, 0.0, 0.25), "3m00s");
        // What was done before it went on took none of this time.
        assert_eq!(Eta::at(60.0, 0.5, 0.75), "1m00s");
        assert_eq!(Eta::at(60.0, 0.5, 1.0), "0.0 s");
        assert_eq!([Eta::at(60.0, 0.5, 0.5), Eta::at(0.1, 0.0, 0.5)], ["...", "..."]);
        assert_eq!(message(&progress(0, 8, 0.5)), "pgd-t 2/9, 3/9 images, 8 robust");
    }
}
