//! What the user typed to pack a model, and to use what is packed.

use std::path::PathBuf;

use adamant::package::Precision;
use clap::{Args, ValueEnum};

use super::{BallArgs, DeviceArgs, ImagesArgs, JsonArgs, positive};
use crate::model::PreprocessingArgs;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionName {
    /// As trained
    F32,
    /// Half precision
    F16,
    /// Eight bits, with a scale for each output channel
    Int8,
}

impl PrecisionName {
    pub const fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::F16 => Precision::F16,
            Self::Int8 => Precision::Int8,
        }
    }
}

/// What a package is for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// As it was trained, to be trained further and exported with its names
    Trainable,
    /// BatchNorm folded into the convolutions: smaller
    Inference,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant package runs/aft --out model.adamant
  adamant package runs/aft --out model.adamant --labels labels.txt \\
      --data cifar10:data --limit 1000
  adamant package runs/aft --out s.adamant --precision int8 --data cifar10:data

With --data the model is evaluated, clean and under PGD with 20 steps, as the
package gives it, and the package carries the result as its claim. Exit code 1,
and no file, when packing costs more than --max-drop of either.")]
pub struct PackageArgs {
    /// Run directory, ONNX file or .adamant package
    #[arg(value_name = "RUN|MODEL")]
    pub model: PathBuf,
    /// The package to write
    #[arg(long, value_name = "FILE.adamant")]
    pub out: PathBuf,
    /// Number format of the weights
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub precision: PrecisionName,
    /// What the package is for [default: trainable for f32, else inference]
    #[arg(long, value_enum)]
    pub form: Option<Form>,
    /// With --data: points of accuracy, clean or robust, that packing may cost
    #[arg(long, value_name = "POINTS", default_value_t = 0.5, value_parser = points)]
    pub max_drop: f64,
    /// Evaluate on these images and store the result in the package
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// Text file with the name of each class, one a line
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Sign the package with this secret key (see `adamant keygen`)
    #[arg(long, value_name = "KEY")]
    pub sign: Option<PathBuf>,
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
  adamant verify model.adamant --key maker.pub
  adamant verify model.adamant --rerun --data cifar10:data

Exit code 2 when the file is corrupt, or with --key when it was not signed with
that key; 1 when --rerun finds something else than the package claims. Hashes
guard against accidents; a signature tells who made the file.")]
pub struct VerifyArgs {
    #[arg(value_name = "FILE.adamant")]
    pub file: PathBuf,
    /// Require the signature of this public key: a file, or its 64 digits
    #[arg(long, value_name = "PUB")]
    pub key: Option<String>,
    /// Measure what the package claims once more, on --data
    #[arg(long, requires = "data")]
    pub rerun: bool,
    /// The data that the claims are about
    #[arg(long, value_name = "DATA", requires = "rerun")]
    pub data: Option<String>,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant keygen --out maker.key
  adamant package runs/aft --out model.adamant --sign maker.key
  adamant verify model.adamant --key maker.pub

The secret key stays with the maker; the file beside it, .pub, is for all.")]
pub struct KeygenArgs {
    /// Where the secret key goes; the public one goes beside it, ending in .pub
    #[arg(long, value_name = "KEY")]
    pub out: PathBuf,
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
  adamant export small.adamant --out small.onnx          int8 as it is packed
  adamant export runs/aft --out weights.safetensors

The file has the names and the structure of the ONNX file that the model came
from; only the weights are new. With f16 and int8 it is written anew: weights
behind Cast, or behind DequantizeLinear with a scale for each output channel,
activations in f32. safetensors have PyTorch's names and layouts, and int8 there
are the f32 numbers that the package computes with.")]
pub struct ExportArgs {
    /// .adamant package, run directory or ONNX file
    #[arg(value_name = "FILE.adamant|RUN")]
    pub model: PathBuf,
    /// The file to write
    #[arg(long, value_name = "MODEL.onnx|WEIGHTS.safetensors")]
    pub out: PathBuf,
    /// What to write [default: safetensors where --out ends so, else onnx]
    #[arg(long, value_enum)]
    pub format: Option<ExportFormat>,
    /// Number format of the weights [default: the package's]
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionName>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    Onnx,
    Safetensors,
}

fn points(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|x| (0.0..=100.0).contains(x));
    found.ok_or_else(|| "write a number from 0 to 100, such as 0.5".to_owned())
}
