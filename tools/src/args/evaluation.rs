//! What the user typed to measure a model.

use std::path::PathBuf;
use std::str::FromStr;

use adamant::op::Norm;
use adamant::parse_fraction;
use clap::{Args, ValueEnum};

use super::{DeviceArgs, ImagesArgs, JsonArgs, SplitName};
use crate::model::{PerChannel, PreprocessingArgs};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// fgsm, and pgd with 20 steps
    Quick,
    /// fgsm, pgd with 20 steps, apgd-ce and apgd-t
    Standard,
    /// AutoAttack's standard version: apgd-ce, apgd-t, fab-t and square, in turn
    Autoattack,
    /// AutoAttack's version plus: apgd-ce, apgd-dlr and fab with 5 restarts, square, apgd-t and fab-t, in turn
    AutoattackPlus,
    /// AutoAttack's version for models that answer at random: apgd-ce and apgd-dlr, in turn. A model
    /// here never does, so one pass stands for the average of many
    AutoattackRand,
    /// No attacks: the 19 common corruptions of CIFAR-10-C and ImageNet-C
    Corruptions,
}

/// The ball that attacks search.
#[derive(Args)]
pub struct BallArgs {
    /// Norm of the attacks that do not say theirs: linf or l2
    #[arg(long, value_name = "NORM")]
    pub norm: Option<Norm>,
    /// Radius of the attacks that do not say theirs, in pixels of [0, 1], as 8/255 or 0.03
    /// [default: 8/255 for linf, 0.5 for l2]
    #[arg(long, value_parser = parse_fraction)]
    pub eps: Option<f32>,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant evaluate model.adamant --data cifar10:data
  adamant evaluate model.onnx --mean cifar10 --data cifar10:data --limit 1000 \\
      --attack fgsm --attack pgd:steps=50,restarts=5
  adamant evaluate runs/aft --data cifar10:data --suite standard --eps 4/255 \\
      --require-accuracy 0.85 --require-robust 0.40 --json result.json
  adamant evaluate model.adamant --data cifar10:data --attack apgd-ce \\
      --curve 1/255,2/255,4/255,8/255 --json curve.json
  adamant evaluate model.adamant --data cifar10:data --suite corruptions
  adamant evaluate model.adamant --data cifar10c:CIFAR-10-C
  adamant evaluate model.adamant --data cifar10:data --suite autoattack \\
      --shard 2/4 --resume --json part2.json

Without --attack and --suite, the suite is quick. An image counts as robust when
it is classified correctly both clean and attacked; with --in-turn, and in the
suite autoattack, when it withstood the attacks before as well.

Attacks: fgsm, bim, pgd, pgd-t (towards each of the 9 likeliest other classes),
pgd-random-target, cw (linf by PGD), mi-fgsm, apgd-ce, apgd-dlr, apgd-t,
cw-l2 and cw-l2-t (searches=9,steps=1000,c=0.001,step=0.01; eps in l2),
deepfool, fab, fab-t, dra, square. tools/docs/warnings.md says
what warnings mean.

The suite corruptions distorts the images itself, with the published severities;
cifar10c:DIR and cifar100c:DIR are the published images (.npy). saved:DIR is
what `adamant attack --save DIR` wrote, as it left the images.

With --json FILE, what is found is kept in FILE.partial until it is complete:
after a crash or Ctrl-C the same command with --resume goes on from there.")]
pub struct EvaluateArgs {
    /// ONNX file, .adamant package or run directory
    pub model: PathBuf,
    /// cifar10:DIR, cifar100:DIR, mnist:DIR, svhn:DIR, folder:DIR, DIR, cifar10c:DIR, or saved:DIR
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// An attack with settings: pgd:eps=8/255,steps=50,restarts=5; may be repeated
    #[arg(long = "attack", value_name = "A[:K=V,...]")]
    pub attacks: Vec<String>,
    /// A set of attacks
    #[arg(long, value_enum)]
    pub suite: Option<Suite>,
    /// Each attack meets only the images that withstood those before it
    #[arg(long)]
    pub in_turn: bool,
    /// Make the --attack images against this model too, and show them to MODEL; may be repeated
    #[arg(long = "surrogate", value_name = "MODEL")]
    pub surrogates: Vec<PathBuf>,
    /// What the input of surrogates that are ONNX files was normalised by, where it is not as --mean
    #[arg(long, value_name = "R,G,B", allow_hyphen_values = true, requires = "surrogates")]
    pub surrogate_mean: Option<PerChannel>,
    /// As --surrogate-mean; a name for one of them stands for both
    #[arg(long, value_name = "R,G,B", requires = "surrogates")]
    pub surrogate_std: Option<PerChannel>,
    /// Measure at each of these radii, such as 2/255,4/255,8/255: a robustness curve
    #[arg(long, value_name = "EPS,...", value_delimiter = ',', value_parser = parse_fraction, conflicts_with = "eps")]
    pub curve: Vec<f32>,
    /// Part I of N of the images, such as 2/4; `adamant merge` puts the results of all parts together
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Go on where an evaluation with the same settings stopped; its state is in FILE.partial beside
    /// --json FILE, else in adamant-evaluate.partial
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub ball: BallArgs,
    /// Exit with 1 when the clean accuracy, 0 to 1, is lower
    #[arg(long, value_name = "X", value_parser = part)]
    pub require_accuracy: Option<f64>,
    /// Exit with 1 when the accuracy under the worst of the attacks, 0 to 1, is lower
    #[arg(long, value_name = "X", value_parser = part)]
    pub require_robust: Option<f64>,
    #[command(flatten)]
    pub images: ImagesArgs,
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
  adamant merge part1.json part2.json part3.json part4.json --json all.json

Each file is what `adamant evaluate --shard I/N --json FILE` wrote; all parts of
one evaluation are needed. The numbers are those of the run without --shard.")]
pub struct MergeArgs {
    /// Results of the parts, in any order
    #[arg(value_name = "FILE.json", required = true)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant report result.json --out report
  adamant attack runs/aft --data cifar10:data --limit 64 --save found
  adamant report before.json after.json runs/aft found --out report
  adamant report table.json --out report

The report is DIR/index.html: one page that needs no network and no scripts. It
is about the last result that is given; the others are shown beside it.")]
pub struct ReportArgs {
    /// Results of `evaluate --json`, `merge --json` or `compare --json`, packages, run directories,
    /// and folders of `attack --save`
    #[arg(value_name = "RUN|FILE.json|DIR", required = true)]
    pub inputs: Vec<PathBuf>,
    /// Folder for the page
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  adamant attack model.adamant --data cifar10:data --attack pgd:steps=50
  adamant attack model.adamant --data cifar10:data --limit 100 --save found

--save writes images.f32 (little-endian, images x channels x height x width, in
[0, 1]: exactly the pixels that the model saw), clean.u8 (the same images before
the attack, as bytes) and manifest.json. `adamant report DIR` shows them,
`adamant evaluate MODEL --data saved:DIR` classifies them.")]
pub struct AttackArgs {
    /// ONNX file, .adamant package or run directory
    pub model: PathBuf,
    /// cifar10:DIR, cifar100:DIR, mnist:DIR, svhn:DIR, folder:DIR, or DIR
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// An attack with settings: pgd:eps=8/255,steps=50,restarts=5; `evaluate --help` lists them
    #[arg(long, value_name = "A[:K=V,...]", default_value = "pgd")]
    pub attack: String,
    /// Folder for the adversarial images
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    #[command(flatten)]
    pub ball: BallArgs,
    #[command(flatten)]
    pub images: ImagesArgs,
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
  adamant analyse runs/arrest
  adamant analyse runs/iaat --images 500 --data cifar10:/mnt/data
  adamant report runs/iaat --out report

RUN/analysis then holds analysis.json and pictures: the features in two
dimensions, clean and attacked (linear discriminant and principal component
analysis); the training images of the smallest and the largest radius, where
each has its own; and what DRA and PGD add to one image. `adamant report RUN`
draws them.")]
pub struct AnalyseArgs {
    /// Run directory of `finetune`
    pub run: PathBuf,
    /// Where the data of the run is now, if it has moved
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// Which half of the data the features are of
    #[arg(long, value_enum, default_value_t = SplitName::Test)]
    pub split: SplitName,
    /// How many images the features are of
    #[arg(long, value_name = "N", default_value = "500", value_parser = super::positive)]
    pub images: usize,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// One of several equal parts of the images.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    /// From 1.
    part: usize,
    parts: usize,
}

impl Shard {
    /// The positions of the part's images among `images`.
    pub fn range(self, images: usize) -> std::ops::Range<usize> {
        images * (self.part - 1) / self.parts..images * self.part / self.parts
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(part, parts)| Some(Self { part: part.parse().ok()?, parts: parts.parse().ok()? }));
        parsed.filter(|s| (1..=s.parts).contains(&s.part)).ok_or_else(|| "write I/N, such as 2/4".to_owned())
    }
}

fn part(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|x| (0.0..=1.0).contains(x));
    found.ok_or_else(|| "write a number from 0 to 1, such as 0.85".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for (images, parts) in [(10, 4), (3, 5), (1000, 7)] {
            let ranges = (1..=parts).map(|part| Shard { part, parts }.range(images));
            assert!(ranges.flatten().eq(0..images), "{images} in {parts}");
        }
        assert_eq!("2/4".parse(), Ok(Shard { part: 2, parts: 4 }));
        for wrong in ["0/4", "5/4", "2", "a/b", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
