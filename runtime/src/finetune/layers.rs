//! Which layers train: the key `layers`. What does not train stays as it is, to the bit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::{Network, Role, Source};
use crate::ops::Op;

/// The layers that an optimiser changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrainedLayers {
    #[default]
    All,
    /// Every bias, and scale and shift of every BatchNorm, whose running statistics follow (Frankle et al.,
    /// "Training BatchNorm and only BatchNorm", 2021; Zaken et al., "BitFit", 2022).
    BiasNorm,
    /// The head, which is what follows the last block, and so many blocks before it. A block ends in a residual
    /// sum; in a network without any, every weighted layer is one.
    Last(usize),
}

/// What a selection means for one network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Selection {
    /// Whether an optimiser changes it, for each parameter.
    pub trained: Vec<bool>,
    /// Whether nothing changes it, running statistics included, for each parameter.
    pub kept: Vec<bool>,
    /// Whether a layer's running statistics stay and normalise, for each layer.
    pub frozen_layers: Vec<bool>,
}

impl TrainedLayers {
    pub(super) fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// Finds what trains in `network`.
    ///
    /// # Errors
    /// [`Error::Config`] when the network has fewer blocks, or nothing of what is asked for.
    pub(crate) fn of(self, network: &Network) -> Result<Selection> {
        let first = match self {
            Self::All | Self::BiasNorm => 0,
            Self::Last(count) => {
                let starts = block_starts(network);
                let at = count.checked_add(1).and_then(|taken| starts.len().checked_sub(taken));
                at.map(|at| starts[at]).ok_or_else(|| {
                    Error::Config(format!(
                        "layers = last:{count}: the model has {} blocks before its head",
                        starts.len().saturating_sub(1)
                    ))
                })?
            }
        };
        // A parameter that a frozen layer reads as well must not change under it.
        let frozen = |p: usize| {
            network.layers[..first].iter().any(|layer| layer.inputs.contains(&Source::Parameter(p)))
        };
        let wanted = |role: Role| match self {
            Self::BiasNorm => matches!(role, Role::Bias | Role::Scale | Role::Shift),
            Self::All | Self::Last(_) => role.trains(),
        };
        let parameters = network.parameters.iter().enumerate();
        let trained: Vec<bool> = parameters.map(|(p, of)| wanted(of.role) && !frozen(p)).collect();
        if !trained.contains(&true) {
            return Err(Error::Config(format!("layers = {self}: the model has no such parameter to train")));
        }
        let statistic = |role| matches!(role, Role::RunningMean | Role::RunningVariance);
        let kept = network.parameters.iter().enumerate();
        let kept = kept.map(|(p, of)| !trained[p] && (!statistic(of.role) || frozen(p))).collect();
        Ok(Selection { trained, kept, frozen_layers: (0..network.layers.len()).map(|l| l < first).collect() })
    }
}

/// The first layer of each block, in order, and at the end that of the head.
fn block_starts(network: &Network) -> Vec<usize> {
    let layers = &network.layers;
    let is_layer = |s: &Source| matches!(s, Source::Layer(_));
    let sums: Vec<usize> = (0..layers.len())
        .filter(|&l| matches!(layers[l].op, Op::Add(_)) && layers[l].inputs.iter().all(is_layer))
        .collect();
    match sums.first() {
        Some(&first) => {
            let starts = std::iter::once(branch(network, first));
            starts.chain(sums.iter().map(|sum| sum + 1)).collect()
        }
        None => (0..layers.len()).filter(|&l| matches!(layers[l].op, Op::Conv2d(_))).collect(),
    }
}

/// The first layer after the last one before `sum` whose output alone reaches beyond it: where the branches
/// that meet in the sum begin.
fn branch(network: &Network, sum: usize) -> usize {
    let alone = |cut: usize| {
        network.layers[cut..].iter().flat_map(|l| &l.inputs).all(|source| match *source {
            Source::Image => false,
            Source::Layer(from) => from + 1 >= cut,
            Source::Parameter(_) => true,
        })
    };
    (1..sum).rev().find(|&cut| alone(cut)).unwrap_or(0)
}

impl fmt::Display for TrainedLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::BiasNorm => f.write_str("bias-norm"),
            Self::Last(count) => write!(f, "last:{count}"),
        }
    }
}

impl FromStr for TrainedLayers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("last:").map(str::parse)) {
            ("all", _) => Ok(Self::All),
            ("bias-norm", _) => Ok(Self::BiasNorm),
            (_, Some(Ok(count))) => Ok(Self::Last(count)),
            _ => Err(format!("layers = {text}: write all, bias-norm or last:N, N blocks and the head")),
        }
    }
}

impl TryFrom<String> for TrainedLayers {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TrainedLayers> for String {
    fn from(layers: TrainedLayers) -> Self {
        layers.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::architectures::Architecture;
    use crate::data::Dataset;
    use crate::device::Device;
    use crate::finetune::{Recipe, Trainer, TrainerOptions};
    use crate::session::Session;

    fn trained(arch: &str, layers: &str) -> Vec<String> {
        let [c, h, w] = if arch == "mnist-cnn" { [1, 28, 28] } else { [3, 16, 16] };
        let model = Architecture::build(arch, [c, h, w], 10, 0).expect("it is known");
        let layers: TrainedLayers = layers.parse().expect("it is well formed");
        let found = layers.of(&model.network).expect("there is enough to train");
        let names = model.network.parameters.iter().zip(found.trained);
        names.filter(|(_, trained)| *trained).map(|(p, _)| p.name.clone()).collect()
    }

    #[test]
    fn blocks_end_in_residual_sums() {
        assert_eq!(trained("resnet8", "last:0"), ["linear.weight", "linear.bias"]);
        let (all, last) = (trained("resnet8", "all"), trained("resnet8", "last:1"));
        assert!(last.len() > 2 && all.ends_with(&last), "{last:?}");
        // Three blocks; the stem, a convolution and its BatchNorm, is before all of them.
        let blocks = trained("resnet8", "last:3");
        assert_eq!(all.len() - blocks.len(), 3, "{blocks:?}");
        assert!(all.ends_with(&blocks));
        let model = Architecture::build("resnet8", [3, 16, 16], 10, 0).expect("it is known");
        let message = TrainedLayers::Last(4).of(&model.network).expect_err("three blocks").to_string();
        assert!(message.contains("3 blocks"), "{message}");
    }

    #[test]
    fn a_network_without_sums_is_counted_by_weights() {
        let weights = |layers| trained("mnist-cnn", layers).iter().filter(|n| n.ends_with("weight")).count();
        assert_eq!((weights("last:0"), weights("last:1")), (1, 2));
    }

    #[test]
    fn the_norm_after_the_last_block_is_of_the_head() {
        let head = trained("preact-resnet18", "last:0");
        assert_eq!(head.len(), 4, "scale and shift, weight and bias: {head:?}");
    }

    #[test]
    fn no_weight_is_among_biases_and_norms() {
        let model = Architecture::build("resnet8", [3, 16, 16], 10, 0).expect("it is known");
        let found = TrainedLayers::BiasNorm.of(&model.network).expect("it has some");
        for (parameter, trained) in model.network.parameters.iter().zip(found.trained) {
            let expected = matches!(parameter.role, Role::Bias | Role::Scale | Role::Shift);
            assert_eq!(trained, expected, "{}", parameter.name);
        }
        assert!(found.frozen_layers.iter().all(|frozen| !frozen));
    }

    /// The operations of a training step by the layer that each belongs to.
    fn steps(layers: TrainedLayers) -> Vec<(String, String)> {
        let model = Architecture::build("resnet8", [3, 8, 8], 3, 0).expect("it is known");
        let settings = ["data.batch=4", "attack.steps=1", "data.augment=none"].map(String::from);
        let mut recipe = Recipe::load("aft", &settings).expect("it is well formed");
        recipe.layers = layers;
        let pixels = (0..4 * 192).map(|i| (i * 7 % 251) as u8).collect();
        let names = ["a", "b", "c"].map(String::from).to_vec();
        let train = Dataset::from_pixels("x", [3, 8, 8], names, pixels, vec![0, 1, 2, 0]).expect("it fits");
        let session = Session::new(Device::cpu(), &model, 4).expect("it fits");
        let stop = AtomicBool::new(false);
        let options = TrainerOptions { seed: 0, train, extra: None, validation: None, stop: &stop };
        let mut trainer = Trainer::new(session, recipe, options).expect("it runs");
        trainer.session().device().start_profile();
        trainer.step().expect("it runs");
        let times = trainer.session().device().take_profile();
        times.into_iter().map(|t| (t.op.to_owned(), t.label)).collect()
    }

    #[test]
    fn what_is_frozen_has_no_gradient() {
        let weight_gradients = |layers| {
            let is_one = |(op, _): &&(String, String)| op == "Conv2dGradWeight";
            steps(layers).iter().filter(is_one).count()
        };
        // Stem, three blocks of two with two shortcuts that pad, and the linear layer.
        let (all, last) = (weight_gradients(TrainedLayers::All), weight_gradients(TrainedLayers::Last(1)));
        assert_eq!(last, 3, "two of the last block, one of the head; all are {all}");
        assert!(all > 6, "{all}");
        assert_eq!(weight_gradients(TrainedLayers::Last(0)), 1);
        assert_eq!(weight_gradients(TrainedLayers::BiasNorm), 0);
    }

    #[test]
    fn names_read_back() {
        for text in ["all", "bias-norm", "last:0", "last:12"] {
            assert_eq!(text.parse::<TrainedLayers>().expect("it is well formed").to_string(), text);
        }
        for wrong in ["", "last", "last:", "last:-1", "some"] {
            assert!(wrong.parse::<TrainedLayers>().is_err(), "{wrong}");
        }
    }
}
