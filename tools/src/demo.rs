//! `adamant demo`: the whole job on bundled data, told as a story. Every step is a command that it
//! prints and runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use adamant::package::Package;
use adamant::{Dataset, DeviceChoice, EvaluationReport, OpenOptions, Split};
use adamant_digits::{DIGITS, MODEL};
use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::Outcome;
use crate::args::{Cli, DemoArgs};
use crate::commands;
use crate::measure::describe;
use crate::model::Loaded;
use crate::output::{self, WIDTH, duration, percent, print};
use crate::progress::Console;

mod digits;

/// Radius of the attacks: a digit that people still read without effort.
const EPS: &str = "0.1";

/// Radii of the report's curve, up to that one.
const CURVE: &str = "0.025,0.05,0.075,0.1";

/// Digits that the demo looks at one by one.
const SHOWN: usize = 5;

pub fn run(args: &DemoArgs, console: &Console) -> Result<Outcome> {
    let start = Instant::now();
    let demo = Demo::unpack(args, console)?;
    let (model, data) = (demo.path("digits_resnet8.onnx"), format!("mnist:{}", demo.path("digits")));
    let (run, package, before) = (demo.path("run"), demo.path("digits.adamant"), demo.path("before.json"));

    demo.say("1. What there is to compute on.")?;
    demo.step(&["devices"], false)?;

    demo.say(
        "2. A small ResNet that reads digits, as somebody trained it. It is accurate, until each pixel may \
         change by a tenth of its range.",
    )?;
    let evaluate = [
        "evaluate", &model, "--mean", "none", "--data", &data, "--limit", "500", "--eps", EPS, "--json",
        &before,
    ];
    demo.step(&evaluate, true)?;

    demo.say("3. Adversarial fine-tuning: training goes on, on the worst images that an attack finds.")?;
    let eps = format!("attack.eps={EPS}");
    let finetune = [
        "finetune",
        &model,
        "--mean",
        "none",
        "--data",
        &data,
        "--recipe",
        "aft",
        "--out",
        &run,
        "--set",
        "epochs=5",
        "--set",
        &eps,
        "--set",
        "attack.steps=5",
        "--set",
        "schedule.warmup_epochs=2",
        "--validate",
        "train:250",
    ];
    demo.step(&finetune, true)?;

    demo.say("4. One file for an application, with what it claims: the same measurement as before.")?;
    let pack = ["package", &run, "--out", &package, "--data", &data, "--limit", "500", "--eps", EPS];
    demo.step(&pack, true)?;

    demo.say("5. Whoever gets the file can check it.")?;
    demo.step(&["verify", &package], false)?;

    demo.say(
        "6. Using it: five digits, and one that an attack made for the first model. The file names are the \
         digits.",
    )?;
    let (digits, adversarial) = demo.save_images(&model, &package)?;
    demo.step(&["classify", &model, "--mean", "none", "--top", "2", &adversarial], true)?;
    let mut classify = vec!["classify", &package, "--top", "2"];
    classify.extend(digits.iter().map(String::as_str));
    classify.push(&adversarial);
    demo.step(&classify, true)?;

    demo.say(
        "7. A page to decide by: how far both models go as the radius grows, and what an attack does to a digit.",
    )?;
    let report = demo.path("report");
    let (weak, strong, found) =
        (demo.path("before-curve.json"), demo.path("after-curve.json"), demo.path("found"));
    let curve = ["--data", &data, "--limit", "250", "--attack", "pgd", "--curve", CURVE, "--json"];
    let first = ["evaluate", &model, "--mean", "none"];
    demo.step(&[&first[..], &curve[..], &[weak.as_str()]].concat(), true)?;
    let second = ["evaluate", package.as_str()];
    demo.step(&[&second[..], &curve[..], &[strong.as_str()]].concat(), true)?;
    let attack = [
        "attack", &model, "--mean", "none", "--data", &data, "--limit", "64", "--eps", EPS, "--save", &found,
    ];
    demo.step(&attack, true)?;
    demo.step(&["report", &weak, &strong, &run, &found, "--out", &report], false)?;

    let text = fs::read_to_string(&before).with_context(|| before.clone())?;
    let before: EvaluationReport = serde_json::from_str(&text)?;
    let after = Package::read(&package)?.report.context("the package was made with a report")?;
    print(&format!("{}\n", comparison(&before, &after)))?;
    let out = args.out.display();
    demo.say(&format!(
        "Done in {}. {out} holds all of it: the model before ({model}), the run ({run}), the package ({package}) \
         and the report to open in a browser ({report}/index.html). Next: your own model and data; see \
         `adamant finetune --help`.",
        duration(start.elapsed().as_secs_f64())
    ))?;
    Ok(Outcome::Done)
}

struct Demo<'a> {
    folder: &'a Path,
    device: &'a DeviceChoice,
    console: &'a Console,
}

impl<'a> Demo<'a> {
    /// Writes the bundled files. What an earlier demo left is replaced; nothing else is touched.
    fn unpack(args: &'a DemoArgs, console: &'a Console) -> Result<Self> {
        let demo = Self { folder: &args.out, device: &args.device.device, console };
        let model = PathBuf::from(demo.path("digits_resnet8.onnx"));
        let run = PathBuf::from(demo.path("run"));
        if run.exists() {
            if !model.exists() {
                bail!("{}: is not an earlier demo's; choose another --out", run.display());
            }
            fs::remove_dir_all(&run).with_context(|| run.display().to_string())?;
        }
        let digits = PathBuf::from(demo.path("digits"));
        for folder in [&digits, &PathBuf::from(demo.path("images"))] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let files = DIGITS.map(|(name, bytes)| (digits.join(name), bytes));
        for (path, bytes) in files.into_iter().chain([(model, MODEL)]) {
            fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        }
        Ok(demo)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn say(&self, text: &str) -> Result<()> {
        print(&format!("\n{}\n\n", output::wrap(text, 0)))
    }

    /// Prints a command and runs it.
    fn step(&self, arguments: &[&str], takes_device: bool) -> Result<()> {
        let mut command = vec!["adamant"];
        command.extend(arguments);
        if takes_device {
            command.extend(match self.device {
                DeviceChoice::Auto => vec![],
                DeviceChoice::Cpu => vec!["--device", "cpu"],
                DeviceChoice::Gpu => vec!["--device", "gpu"],
                DeviceChoice::Named(name) => vec!["--device", name],
            });
        }
        print(&shown(&command))?;
        let cli = Cli::try_parse_from(&command)?;
        commands::run(&cli.command, &self.console.running(&command))?;
        Ok(())
    }

    /// Saves some test digits, and one that an attack changed so that the model before is wrong;
    /// all as image files, in 256 levels. Each is named by the digit that it shows.
    fn save_images(&self, before: &str, after: &str) -> Result<(Vec<String>, String)> {
        let spec = format!("mnist:{}", self.path("digits"));
        let images = Dataset::open(&spec, Split::Test, &OpenOptions::default())?;
        let [_, height, width] = images.shape;
        let save = |name: String, levels: Vec<u8>| -> Result<String> {
            let path = self.path(&format!("images/{name}.png"));
            let picture = image::GrayImage::from_raw(width as u32, height as u32, levels);
            picture.context("a digit fills its image")?.save(&path).with_context(|| path.clone())?;
            Ok(path)
        };
        let mut paths = Vec::new();
        for digit in 0..SHOWN as u32 {
            let index = images.labels().iter().position(|&l| l == digit).context("every digit occurs")?;
            let mut pixels = vec![0.0; height * width];
            images.image(index, &mut pixels);
            paths.push(save(digit.to_string(), digits::levels(&pixels))?);
        }
        let before = Loaded::read(Path::new(before))?.model;
        let after = Loaded::read(Path::new(after))?.model;
        let (label, pixels) = digits::adversarial(self.device, &before, &after, &images, EPS)?;
        Ok((paths, save(format!("adversarial-{label}"), pixels)?))
    }
}

/// A command as one would type it, in lines that fit.
fn shown(command: &[&str]) -> String {
    let mut text = String::from("$");
    let mut column = 1;
    for word in command {
        if column + 1 + word.len() > WIDTH - 2 {
            text += " \\\n   ";
            column = 3;
        }
        text += &format!(" {word}");
        column += 1 + word.len();
    }
    text + "\n"
}

fn comparison(before: &EvaluationReport, after: &EvaluationReport) -> String {
    let mut text = format!("\n{:<46} {:>9} {:>9}\n", "", "before", "after");
    let mut row = |name: &str, before: f64, after: f64| {
        text += &format!("{name:<46} {:>9} {:>9}\n", percent(before), percent(after));
    };
    row("digits read correctly", before.clean.accuracy, after.clean.accuracy);
    for attack in &after.attacks {
        let same = |a: &&adamant::AttackResult| (&a.name, a.steps) == (&attack.name, attack.steps);
        if let Some(earlier) = before.attacks.iter().find(same) {
            row(&describe(attack), earlier.robust_accuracy, attack.robust_accuracy);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_fit_the_width() {
        let text = shown(&["adamant"; 40]);
        assert!(text.lines().all(|l| l.len() <= WIDTH), "{text}");
        assert_eq!(text.matches("adamant").count(), 40);
    }
}
