//! Networks to train from scratch, under the names, shapes and starting values of the PyTorch code
//! that the robust-training literature uses. One file each.

mod builder;
mod cifar_resnet;
mod initial;
mod preact_resnet;
mod resnet;
mod small_cnn;
#[cfg(test)]
mod tests;
mod wide_resnet;

use builder::Draft;
use resnet::Block;

use crate::error::{Error, Result};
use crate::model::{Model, Preprocessing};

/// An entry of [`architectures`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Architecture {
    pub name: &'static str,
    pub description: &'static str,
    /// Channels, height, width of the images that it was made for. Others work as well.
    pub input: [usize; 3],
    /// Classes of the data that it was made for.
    pub classes: usize,
    /// Trainable values for such images and so many classes.
    pub parameters: usize,
    family: Family,
}

/// The architectures that have a file, with what tells their members apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    SmallCnn,
    /// The n of 6n+2.
    CifarResNet(usize),
    /// The kind of block, and how many in each stage.
    ResNet(Block, [usize; 4]),
    PreActResNet,
    /// Blocks a group, and the width.
    WideResNet(usize, usize),
}

type Data = ([usize; 3], usize);
const MNIST: Data = ([1, 28, 28], 10);
const CIFAR10: Data = ([3, 32, 32], 10);
const IMAGENET: Data = ([3, 224, 224], 1000);

const BASIC: Block = Block::Basic;
const BOTTLENECK: Block = Block::Bottleneck { width: 1 };
const WIDE: Block = Block::Bottleneck { width: 2 };

static ARCHITECTURES: [Architecture; 17] = {
    use Family::{CifarResNet, PreActResNet, ResNet, SmallCnn, WideResNet};
    [
        entry("mnist-cnn", MNIST, 312_202, SmallCnn, "SmallCNN of TRADES: 4 convolutions, 3 linear layers"),
        entry("resnet8", CIFAR10, 75_290, CifarResNet(1), "thin CIFAR ResNet, 8 layers"),
        entry("resnet20", CIFAR10, 269_722, CifarResNet(3), "thin CIFAR ResNet, 20 layers"),
        entry("resnet32", CIFAR10, 464_154, CifarResNet(5), "thin CIFAR ResNet, 32 layers"),
        entry("resnet44", CIFAR10, 658_586, CifarResNet(7), "thin CIFAR ResNet, 44 layers"),
        entry("resnet56", CIFAR10, 853_018, CifarResNet(9), "thin CIFAR ResNet, 56 layers"),
        entry("resnet110", CIFAR10, 1_727_962, CifarResNet(18), "thin CIFAR ResNet, 110 layers"),
        entry("resnet18", IMAGENET, 11_689_512, ResNet(BASIC, [2, 2, 2, 2]), "ResNet-18"),
        entry("resnet34", IMAGENET, 21_797_672, ResNet(BASIC, [3, 4, 6, 3]), "ResNet-34"),
        entry("resnet50", IMAGENET, 25_557_032, ResNet(BOTTLENECK, [3, 4, 6, 3]), "ResNet-50 v1.5"),
        entry("resnet101", IMAGENET, 44_549_160, ResNet(BOTTLENECK, [3, 4, 23, 3]), "ResNet-101 v1.5"),
        entry("resnet152", IMAGENET, 60_192_808, ResNet(BOTTLENECK, [3, 8, 36, 3]), "ResNet-152 v1.5"),
        entry(
            "wide-resnet50-2",
            IMAGENET,
            68_883_240,
            ResNet(WIDE, [3, 4, 6, 3]),
            "ResNet-50 v1.5, wider inside",
        ),
        entry("preact-resnet18", CIFAR10, 11_172_170, PreActResNet, "ResNet-18 for CIFAR, pre-activation"),
        entry("wrn-28-10", CIFAR10, 36_479_194, WideResNet(4, 10), "wide ResNet, 28 layers"),
        entry("wrn-32-10", CIFAR10, 46_160_474, WideResNet(5, 10), "wrn-34-10, as others count"),
        entry("wrn-34-10", CIFAR10, 46_160_474, WideResNet(5, 10), "wide ResNet, 34 layers"),
    ]
};

const fn entry(
    name: &'static str,
    (input, classes): Data,
    parameters: usize,
    family: Family,
    description: &'static str,
) -> Architecture {
    Architecture { name, description, input, classes, parameters, family }
}

/// The architectures that have a name of their own. [`Architecture::build`] also takes `wrn-D-K`
/// for other depths and widths.
pub fn architectures() -> &'static [Architecture] {
    &ARCHITECTURES
}

impl Architecture {
    /// A model with random weights for images of `input` (channels, height, width).
    ///
    /// The weights depend on the arguments alone. Images are expected in [0, 1]; set
    /// [`Model::preprocessing`] for others.
    pub fn build(name: &str, input: [usize; 3], classes: usize, seed: u64) -> Result<Model> {
        let draft = draft(name, input, classes)?;
        let values = draft.values(seed);
        draft.network.verify(&values)?;
        Ok(Model {
            network: draft.network,
            values,
            preprocessing: Preprocessing::none(input[0]),
            labels: vec![],
            onnx_skeleton: vec![],
        })
    }
}

fn draft(name: &str, input: [usize; 3], classes: usize) -> Result<Draft> {
    let family = Family::named(name)?;
    let [channels, height, width] = input;
    let least = family.least_size();
    if channels == 0 || height < least || width < least {
        return Err(Error::Config(format!(
            "{name} takes images of at least 1 channel and {least}x{least} pixels, not {channels} and {height}x{width}"
        )));
    }
    if classes < 2 {
        return Err(Error::Config(format!("{name} tells at least 2 classes apart, not {classes}")));
    }
    match family {
        Family::SmallCnn => small_cnn::draft(input, classes),
        Family::CifarResNet(blocks) => cifar_resnet::draft(input, classes, blocks),
        Family::ResNet(block, blocks) => resnet::draft(input, classes, block, blocks),
        Family::PreActResNet => preact_resnet::draft(input, classes),
        Family::WideResNet(blocks, width) => wide_resnet::draft(input, classes, blocks, width),
    }
}

impl Family {
    fn named(name: &str) -> Result<Self> {
        if let Some(known) = ARCHITECTURES.iter().find(|a| a.name == name) {
            return Ok(known.family);
        }
        let (depth, width) = wide_resnet::parse(name).ok_or_else(|| unknown(name))?;
        Ok(Self::WideResNet(wide_resnet::blocks(depth, width)?, width.into()))
    }

    /// The smallest height and width at which every halving still has two pixels to halve.
    const fn least_size(self) -> usize {
        match self {
            Self::SmallCnn => small_cnn::LEAST_SIZE,
            Self::CifarResNet(_) => cifar_resnet::LEAST_SIZE,
            Self::ResNet(..) => resnet::LEAST_SIZE,
            Self::PreActResNet => preact_resnet::LEAST_SIZE,
            Self::WideResNet(..) => wide_resnet::LEAST_SIZE,
        }
    }
}

/// Lists the names there are, the most similar first.
fn unknown(name: &str) -> Error {
    let mut names: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
    names.sort_by_key(|known| edits(name, known));
    Error::Config(format!("unknown architecture '{name}'; there are {}, and any wrn-D-K", names.join(", ")))
}

/// The least number of letters to insert, delete or replace between two words (Levenshtein), letter
/// case aside.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    // The distances from the letters of `a` so far to every beginning of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for letter in a.to_lowercase().chars() {
        let mut diagonal = row[0];
        row[0] += 1;
        for (i, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[i + 1];
            row[i + 1] = replaced.min(diagonal + 1).min(row[i] + 1);
        }
    }
    row[b.len()]
}
