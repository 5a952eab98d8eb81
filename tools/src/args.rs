//! What the user typed.

use std::path::PathBuf;
use std::str::FromStr;

use adamant::finetune::{OptimizerConfig, TrainedLayers};
use adamant::{Device, DeviceChoice, Footprint, Model, Split, Workload};
use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::data::Validation;
use crate::extra::ExtraSpec;
use crate::model::PreprocessingArgs;

mod evaluation;
mod packaging;

pub use evaluation::{AnalyseArgs, AttackArgs, BallArgs, EvaluateArgs, MergeArgs, ReportArgs, Suite};
pub use packaging::{ClassifyArgs, ExportArgs, ExportFormat, Form, KeygenArgs, PackageArgs, VerifyArgs};

/// Makes pretrained image classifiers robust to adversarial examples, on any GPU or none.
#[derive(Parser)]
#[command(
    name = "adamant",
    version,
    max_term_width = 80,
    after_help = "\
Start with `adamant demo`: it runs the whole job on bundled data in about a
minute. Exit codes: 0 done, 1 a stated target was not met, 2 an error."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// No progress and no notes; warnings and errors stay
    #[arg(short, long, global = true, display_order = 100)]
    pub quiet: bool,
    /// More details
    #[arg(short, long, global = true, display_order = 100, conflicts_with = "quiet")]
    pub verbose: bool,
}

#[derive(Subcommand)]
pub enum Command {
    /// Attack, harden, package and use a digit classifier: the whole job
    Demo(DemoArgs),
    /// List the devices and test that they compute what they should
    Devices(DevicesArgs),
    /// Say what a model is made of and what it needs
    Inspect(InspectArgs),
    /// Train a new model on clean images
    Train(TrainArgs),
    /// Make a model robust by adversarial training
    Finetune(FinetuneArgs),
    /// Fine-tune by several methods and print them side by side
    Compare(CompareArgs),
    /// Measure clean and robust accuracy
    Evaluate(EvaluateArgs),
    /// Put the results of --shard together
    Merge(MergeArgs),
    /// Make a page of results, to look at and to decide by
    Report(ReportArgs),
    /// Look at what fine-tuning did to the features and to single images
    Analyse(AnalyseArgs),
    /// Run one attack, and save the adversarial images
    Attack(AttackArgs),
    /// Pack a model for an application, with what it claims
    Package(PackageArgs),
    /// Check a package and print its claims
    Verify(VerifyArgs),
    /// Make a key that signs packages
    Keygen(KeygenArgs),
    /// Classify images with a packaged model
    Classify(ClassifyArgs),
    /// Write a model as ONNX, or its weights as safetensors
    Export(ExportArgs),
    /// List the training recipes, or print one
    Recipes(RecipesArgs),
    /// Time the parts of adversarial training
    Bench(BenchArgs),
    /// Print a script that completes commands and options in a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
}

#[derive(Args, Clone)]
pub struct DeviceArgs {
    /// auto (a hardware GPU, else cpu), cpu, gpu, or an adapter's name or index
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device_choice)]
    pub device: DeviceChoice,
    /// Memory to stay within, such as 512MiB or 2GiB: activations are computed again instead of
    /// kept, training takes batches in parts, and elsewhere `--batch auto` takes fewer images
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory_limit: Option<u64>,
    /// Measure which GPU kernels are the fastest, in the first seconds on an adapter, and keep that;
    /// auto does so on hardware
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        env = "ADAMANT_TUNE",
        hide_env_values = true
    )]
    pub tune: Tune,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Tune {
    #[default]
    Auto,
    On,
    Off,
}

#[derive(Args, Clone)]
pub struct JsonArgs {
    /// Write the result as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Which images to measure on.
#[derive(Args)]
pub struct ImagesArgs {
    /// Which half of the data
    #[arg(long, value_enum, default_value_t = SplitName::Test)]
    pub split: SplitName,
    /// Only the first N images, in file order
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Images at once; auto is 128 for images up to 64 pixels, else 32
    #[arg(long, value_name = "N", default_value = "auto")]
    pub batch: BatchSize,
    /// Seed of all random numbers
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed())]
    pub seed: u64,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant demo
  adamant demo --out /tmp/demo --device gpu")]
pub struct DemoArgs {
    /// Folder for everything that the demo makes
    #[arg(long, value_name = "DIR", default_value = "adamant-demo")]
    pub out: PathBuf,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant devices
  adamant devices --json - | jq '.adapters[].name'

Exit code 2 when a device computes something else than the CPU executor.")]
pub struct DevicesArgs {
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant inspect resnet18.onnx
  adamant inspect resnet18.onnx --verify --device gpu
  adamant inspect resnet18.onnx --bisect --device gpu

Exit code 1 when --verify finds a difference above 0.001 of the largest logit,
or --bisect one above 0.001 of a layer's largest value.")]
pub struct InspectArgs {
    /// ONNX file, .adamant package or run directory
    pub model: PathBuf,
    /// Compare the logits on --device with those of an independent runtime (tract)
    #[arg(long)]
    pub verify: bool,
    /// Compare every layer on --device with the CPU executor: which kernel is wrong?
    #[arg(long)]
    pub bisect: bool,
    #[command(flatten)]
    pub preprocessing: PreprocessingArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Where a run goes, and how it is repeated. Options that a resumed run takes from its checkpoint
/// are absent unless the user gave them.
#[derive(Args, Clone)]
pub struct RunArgs {
    /// Images to train on: cifar10:DIR, cifar100:DIR, mnist:DIR, svhn:DIR, folder:DIR, or DIR
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// Folder for checkpoints, metrics and settings
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// The recipe at radius E, such as 4/255 or 0.1: its step moves with it, and DRA's bound of an image's mean
    /// change is half of it. (--set attack.eps=E changes that number alone.)
    #[arg(long, value_name = "E", value_parser = adamant::parse_fraction)]
    pub eps: Option<f32>,
    /// Change a setting of the recipe, as in attack.steps=7; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// The recipe in N epochs: its phases move with it. (--set epochs=N changes the number alone.)
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
    /// Images in a batch, whose mean loss an update follows; short for --set data.batch=N. auto is the
    /// recipe's own number. Under --memory-limit a batch that does not fit comes in parts
    #[arg(long, value_name = "N")]
    pub batch: Option<BatchSize>,
    /// What trains: all, bias-norm (biases and BatchNorms), or last:N (the head and N blocks before
    /// it); short for --set layers=LAYERS
    #[arg(long, value_name = "LAYERS")]
    pub layers: Option<TrainedLayers>,
    /// Train on the first N images only, in file order
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Which half of the data to train on [default: train]
    #[arg(long, value_enum)]
    pub split: Option<SplitName>,
    /// Images to select the best epoch by: train:N (N images after those trained on; where too few
    /// follow, a tenth of those, spread over them), test:N or none [default: train:500]
    #[arg(long, value_name = "IMAGES")]
    pub validate: Option<Validation>,
    /// More images to train on, DATA or DATA:FRACTION: that part of every batch [default: half]. An epoch
    /// counts those of --data only
    #[arg(long, value_name = "DATA")]
    pub extra: Option<ExtraSpec>,
    /// Label the extra images by the model that training starts from, and leave out those that it
    /// is not sure of. A folder of pictures then needs no sub-folders
    #[arg(long, requires = "extra")]
    pub pseudo_labels: bool,
    /// Seed of all random numbers [default: 0]
    #[arg(long, value_name = "N", value_parser = seed())]
    pub seed: Option<u64>,
    /// Continue the run in --out from its last checkpoint
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub preprocessing: PreprocessingArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant train --arch resnet8 --data mnist:data --out runs/digits
  adamant train --arch preact-resnet18 --data cifar10:data --out runs/r18 \\
      --epochs 60 --set schedule.peak=0.05

RUN is a MODEL for the other commands: fine-tune it next.")]
pub struct TrainArgs {
    /// mnist-cnn, resnet8/20/32/44/56/110 (CIFAR), resnet18/34/50/101/152, wide-resnet50-2,
    /// preact-resnet18, wrn-28-10, wrn-34-10 or wrn-D-K
    #[arg(long, value_name = "ARCH")]
    pub arch: String,
    /// A recipe's name (see `adamant recipes`) or a .toml file [default: standard]
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant finetune model.onnx --mean cifar10 --data cifar10:data --eps 4/255 \\
      --out runs/eps4
  adamant finetune model.onnx --mean cifar10 --data cifar10:data \\
      --recipe aft --set attack.steps=7 --epochs 5 --out runs/aft
  adamant finetune model.onnx --data cifar10:data --extra folder:more:0.5 \\
      --pseudo-labels --out runs/more
  adamant finetune model.onnx --data cifar10:data --out runs/aft --resume

RUN then holds config.toml, metrics.jsonl, checkpoint.adamant, best.adamant and
log.txt. It is a MODEL for the other commands.")]
pub struct FinetuneArgs {
    /// ONNX file, .adamant package or run directory
    pub model: PathBuf,
    /// A recipe's name (see `adamant recipes`) or a .toml file [default: adamant]
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant compare model.onnx --mean cifar10 --data cifar10:data --out runs \\
      --recipe adamant --recipe aft --recipe trades --limit 5000 --epochs 20 \\
      --eps 4/255 --validate none
  adamant compare model.onnx --mean cifar10 --data cifar10:data --out runs \\
      --recipe aft --recipe arrest --autoattack --seeds 3 --json table.json

Every method starts from MODEL with the same seed and data, in a folder of its
own below --out, where measured.json keeps what is measured. The command may be
stopped and given again: it goes on. Of a method whose training diverges the
table says so.")]
pub struct CompareArgs {
    /// ONNX file, .adamant package or run directory
    pub model: PathBuf,
    /// A recipe's name (see `adamant recipes`) or a .toml file; may be repeated
    #[arg(long = "recipe", value_name = "RECIPE", required = true)]
    pub recipes: Vec<String>,
    /// Measure on the first N test images
    #[arg(long, value_name = "N", default_value = "1000", value_parser = positive)]
    pub images: usize,
    /// Radius to measure at [default: that of the first recipe]
    #[arg(long, value_name = "E", value_parser = adamant::parse_fraction)]
    pub measure_eps: Option<f32>,
    /// Also measure with the suite autoattack
    #[arg(long)]
    pub autoattack: bool,
    /// Train every method N times, with --seed and those after it
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    pub seeds: usize,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant recipes
  adamant recipes aft > mine.toml
  adamant finetune model.onnx --recipe mine.toml --data cifar10:data --out run")]
pub struct RecipesArgs {
    /// Print this recipe as TOML
    pub name: Option<String>,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant bench --device cpu
  adamant bench --arch resnet18 --batch 8 --device gpu
  adamant bench --arch resnet18 --size 32 --batch 32 --json bench.json
  adamant bench model.onnx --batch 16 --layers
  adamant bench --workload pgd10_adversarial_step --batch 32 --scaling

Results are checked against the CPU executor before anything is timed.
GFLOP/s are what an operation takes by its definition: the executor cpu does
fewer multiplications for some convolutions (Winograd's), so that these may lie
above what a processor can do.")]
pub struct BenchArgs {
    /// ONNX file, .adamant package or run directory, instead of --arch
    #[arg(conflicts_with_all = ["arch", "size"])]
    pub model: Option<PathBuf>,
    /// An architecture that `train` knows, with random weights [default: resnet20]
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Height and width of the images, where they are not the architecture's own
    #[arg(long, value_name = "PIXELS", value_parser = positive)]
    pub size: Option<usize>,
    /// Images at once; auto is 128 for images up to 64 pixels, else 32
    #[arg(long, value_name = "N", default_value = "auto")]
    pub batch: BatchSize,
    /// How often each is timed; the median counts
    #[arg(long, value_name = "N", default_value = "5", value_parser = positive)]
    pub runs: usize,
    /// Time this alone; may be repeated
    #[arg(long = "workload", value_name = "NAME", value_parser = workload())]
    pub workloads: Vec<Workload>,
    /// Also time the PGD-10 adversarial step at 1, 4 and 16 times the batch
    #[arg(long)]
    pub scaling: bool,
    /// Also print every step with its layer
    #[arg(long)]
    pub layers: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Reads a workload's name.
fn workload() -> impl TypedValueParser<Value = Workload> {
    let names = PossibleValuesParser::new(Workload::ALL.map(Workload::name));
    names.map(|name| Workload::ALL.into_iter().find(|w| w.name() == name).expect("it is one of the names"))
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant completions bash > /etc/bash_completion.d/adamant
  adamant completions zsh > ~/.zfunc/_adamant
  adamant completions fish > ~/.config/fish/completions/adamant.fish")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Args)]
#[command(after_help = "\
Example:
  adamant man --out ~/.local/share/man/man1
  man adamant-finetune")]
pub struct ManArgs {
    /// Folder for the pages
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    Train,
    Test,
}

impl SplitName {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    pub const fn split(self) -> Split {
        match self {
            Self::Train => Split::Train,
            Self::Test => Split::Test,
        }
    }
}

/// Images in a batch: a number, or what suits their size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchSize {
    Auto,
    Images(usize),
}

impl BatchSize {
    /// The number for images of `shape` (channels, height, width).
    pub fn resolve(self, shape: [usize; 3]) -> usize {
        match self {
            Self::Images(count) => count,
            Self::Auto if shape[1].max(shape[2]) <= 64 => 128,
            Self::Auto => 32,
        }
    }

    /// As [`BatchSize::resolve`] for the images of `model`; auto halves the number for as long as an attack
    /// would take more than `limit` bytes.
    pub fn within(self, limit: Option<u64>, model: &Model, device: &Device) -> Result<usize> {
        let mut batch = self.resolve(model.network.input);
        let (Self::Auto, Some(limit)) = (self, limit) else { return Ok(batch) };
        let taken = |batch| Footprint::predict(model, batch, &OptimizerConfig::default(), device);
        while batch > 1 && taken(batch)?.attack > limit {
            batch /= 2;
        }
        Ok(batch)
    }
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        positive(text).map(Self::Images).map_err(|_| "write a whole number from 1, or auto".to_owned())
    }
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "write a whole number from 1".to_owned())
}

/// A seed is written to config.toml, whose integers are signed.
fn seed() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(..=i64::MAX as u64)
}

/// Bytes: a number with a unit.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let factor = match text[digits.len()..].trim().to_lowercase().as_str() {
        "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err("write a number with a unit, such as 512MiB or 2GiB".to_owned()),
    };
    let bytes = digits.trim().parse::<f64>().ok().map(|number| number * factor);
    let fits = bytes.filter(|b| (1.0..=9e18).contains(b));
    fits.map(|b| b as u64).ok_or_else(|| "write a number with a unit, such as 512MiB or 2GiB".to_owned())
}

fn device_choice(text: &str) -> Result<DeviceChoice, std::convert::Infallible> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// A terminal would break a longer line once more where it is broken by hand.
    #[test]
    fn examples_fit_into_80_columns() {
        use clap::CommandFactory;
        for command in Cli::command().get_subcommands() {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("1.5 gib"), Ok(3 << 29));
        assert_eq!(size("2GB"), Ok(2_000_000_000));
        for wrong in ["512", "MiB", "-1MiB", "0GiB", "inf GiB", "NaNMiB", "1TiB", ""] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_batch_suits_the_images() {
        assert_eq!(BatchSize::Auto.resolve([3, 32, 32]), 128);
        assert_eq!(BatchSize::Auto.resolve([3, 224, 224]), 32);
        assert_eq!("7".parse(), Ok(BatchSize::Images(7)));
        assert!("0".parse::<BatchSize>().is_err() && "many".parse::<BatchSize>().is_err());
    }
}
