//! What the user typed.

use std::path::PathBuf;
use std::str::FromStr;

use adamant::{DeviceChoice, Split};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::data::Validation;
use crate::model::PreprocessingArgs;

mod evaluation;

pub use evaluation::{AttackArgs, BallArgs, EvaluateArgs, MergeArgs, ReportArgs, Suite};

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
    /// Measure clean and robust accuracy
    Evaluate(EvaluateArgs),
    /// Put the results of --shard together
    Merge(MergeArgs),
    /// Make a page of results, to look at and to decide by
    Report(ReportArgs),
    /// Run one attack, and save the adversarial images
    Attack(AttackArgs),
    /// Pack a model for an application, with what it claims
    Package(PackageArgs),
    /// Check a package and print its claims
    Verify(VerifyArgs),
    /// Classify images with a packaged model
    Classify(ClassifyArgs),
    /// Write a model as ONNX
    Export(ExportArgs),
    /// List the training recipes, or print one
    Recipes(RecipesArgs),
    /// Time the parts of adversarial training
    Bench(BenchArgs),
}

#[derive(Args)]
pub struct DeviceArgs {
    /// auto (a hardware GPU, else cpu), cpu, gpu, or an adapter's name or index
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device_choice)]
    pub device: DeviceChoice,
}

#[derive(Args)]
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

Exit code 1 when --verify finds a difference above 0.001 of the largest logit.")]
pub struct InspectArgs {
    /// ONNX file, .adamant package or run directory
    pub model: PathBuf,
    /// Compare the logits on --device with those of an independent runtime (tract)
    #[arg(long)]
    pub verify: bool,
    #[command(flatten)]
    pub preprocessing: PreprocessingArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Where a run goes, and how it is repeated. Options that a resumed run takes from its checkpoint
/// are absent unless the user gave them.
#[derive(Args)]
pub struct RunArgs {
    /// Images to train on: cifar10:DIR, cifar100:DIR, mnist:DIR, folder:DIR, or DIR
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// Folder for checkpoints, metrics and settings
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// Change a setting of the recipe, as in attack.steps=7; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Epochs; short for --set epochs=N
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
    /// Images in a batch; short for --set data.batch=N
    #[arg(long, value_name = "N")]
    pub batch: Option<BatchSize>,
    /// Train on the first N images only, in file order
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Which half of the data to train on [default: train]
    #[arg(long, value_enum)]
    pub split: Option<SplitName>,
    /// Images to select the best epoch by: train:N (N images after those trained on), test:N or
    /// none [default: train:500]
    #[arg(long, value_name = "IMAGES")]
    pub validate: Option<Validation>,
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
  adamant finetune model.onnx --mean cifar10 --data cifar10:data --out runs/aft
  adamant finetune model.onnx --mean cifar10 --data cifar10:data \\
      --recipe madry --set attack.eps=4/255 --epochs 5 --out runs/eps4
  adamant finetune model.onnx --data cifar10:data --out runs/aft --resume

RUN then holds config.toml, metrics.jsonl, checkpoint.adamant, best.adamant and
log.txt. It is a MODEL for the other commands.")]
pub struct FinetuneArgs {
    /// ONNX file, .adamant package or run directory
    pub model: PathBuf,
    /// A recipe's name (see `adamant recipes`) or a .toml file [default: aft]
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    F32,
    F16,
    Int8,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant package runs/aft --out model.adamant
  adamant package runs/aft --out model.adamant --labels labels.txt \\
      --data cifar10:data --limit 1000

With --data the model is evaluated, clean and under PGD with 20 steps, and the
package carries the result as its claim.")]
pub struct PackageArgs {
    /// Run directory, ONNX file or .adamant package
    #[arg(value_name = "RUN|MODEL")]
    pub model: PathBuf,
    /// The package to write
    #[arg(long, value_name = "FILE.adamant")]
    pub out: PathBuf,
    /// Number format of the weights
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Evaluate on these images and store the result in the package
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// Text file with the name of each class, one a line
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    #[command(flatten)]
    pub ball: BallArgs,
    #[command(flatten)]
    pub images: ImagesArgs,
    #[command(flatten)]
    pub preprocessing: PreprocessingArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant verify model.adamant
  adamant verify -v model.adamant     lists every tensor

Exit code 2 when the file is corrupt. The hashes guard against accidents; they
do not tell who made the file.")]
pub struct VerifyArgs {
    #[arg(value_name = "FILE.adamant")]
    pub file: PathBuf,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant classify model.adamant cat.png
  adamant classify model.adamant photos/*.jpg --top 5 --json -

Images are resized to the model's size, as `evaluate --data folder:DIR` does.")]
pub struct ClassifyArgs {
    /// .adamant package, run directory or ONNX file
    #[arg(value_name = "FILE.adamant")]
    pub model: PathBuf,
    #[arg(value_name = "IMAGE", required = true)]
    pub files: Vec<PathBuf>,
    /// How many classes to name for each image
    #[arg(long, value_name = "K", default_value = "3", value_parser = positive)]
    pub top: usize,
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
  adamant export runs/aft --out robust.onnx

The file has the names and the structure of the ONNX file that the model came
from; only the weights are new.")]
pub struct ExportArgs {
    /// .adamant package, run directory or ONNX file
    #[arg(value_name = "FILE.adamant|RUN")]
    pub model: PathBuf,
    /// The ONNX file to write
    #[arg(long, value_name = "MODEL.onnx")]
    pub out: PathBuf,
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

Results are checked against the CPU executor before anything is timed.")]
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
    /// Also print every step with its layer
    #[arg(long)]
    pub layers: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
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

    #[test]
    fn a_batch_suits_the_images() {
        assert_eq!(BatchSize::Auto.resolve([3, 32, 32]), 128);
        assert_eq!(BatchSize::Auto.resolve([3, 224, 224]), 32);
        assert_eq!("7".parse(), Ok(BatchSize::Images(7)));
        assert!("0".parse::<BatchSize>().is_err() && "many".parse::<BatchSize>().is_err());
    }
}
