//! `[on.KEY]`: what a recipe sets otherwise on certain data or networks.
//!
//! A paper's numbers are those of one data set; where it gives others for another, its recipe has them in a table
//! of that name, `[on.mnist.attack]` say, whose keys are put over its own. CIFAR-100 has the numbers of CIFAR-10
//! in every paper that is here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::spelling::did_you_mean;

/// What a run is on. The order is that in which tables are put over a recipe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    Mnist,
    Cifar10,
    Cifar100,
    Svhn,
    Imagenet,
    /// A network whose BatchNorm was not folded into its convolutions.
    Batchnorm,
}

/// Names as they are in `[on.NAME]`.
const NAMES: &[(&str, On)] = &[
    ("mnist", On::Mnist),
    ("cifar10", On::Cifar10),
    ("cifar100", On::Cifar100),
    ("svhn", On::Svhn),
    ("imagenet", On::Imagenet),
    ("batchnorm", On::Batchnorm),
];

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(_, on)| on == self).map_or("", |(name, _)| name))
    }
}

impl On {
    /// Every kind of data.
    pub const DATA: [Self; 5] = [Self::Mnist, Self::Cifar10, Self::Cifar100, Self::Svhn, Self::Imagenet];

    /// What training `network` on images of the data set called `data` is on. Data of another name are taken for
    /// those of their shape: sides of more than 64 pixels for ImageNet's, one channel for MNIST's, others for those
    /// of CIFAR with at least as many classes.
    pub fn of(data: &str, network: &Network) -> Vec<Self> {
        let [channels, height, width] = network.input;
        let known = NAMES.iter().find(|(name, on)| *name == data && *on != Self::Batchnorm);
        let data = match known {
            Some((_, on)) => *on,
            None if height.max(width) > 64 => Self::Imagenet,
            None if channels == 1 => Self::Mnist,
            None if network.classes().is_ok_and(|classes| classes > 10) => Self::Cifar100,
            None => Self::Cifar10,
        };
        let norm = network.has_batch_norm().then_some(Self::Batchnorm);
        [Some(data), norm].into_iter().flatten().collect()
    }
}

/// Takes the tables `[on.KEY]` out of a recipe's, in order.
pub(super) fn take(recipe: &mut toml::Table) -> Result<Vec<(On, toml::Table)>, String> {
    let tables = match recipe.remove("on") {
        None => return Ok(Vec::new()),
        Some(toml::Value::Table(tables)) => tables,
        Some(_) => return Err("'on' is a table of tables, as in [on.mnist.attack]".to_owned()),
    };
    let mut found = Vec::new();
    for (name, changes) in tables {
        let Some((_, on)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            return Err(format!("unknown key 'on.{name}'{}", did_you_mean(&name, &names)));
        };
        match changes {
            toml::Value::Table(changes) => found.push((*on, changes)),
            _ => return Err(format!("'on.{name}' is a table, as in [on.{name}.attack]")),
        }
    }
    found.sort_by_key(|(on, _)| *on);
    Ok(found)
}

/// Sets the keys of `changes` in `table`, and leaves the others.
pub(super) fn put_over(table: &mut toml::Table, changes: &toml::Table) {
    for (key, value) in changes {
        match (table.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(changes)) => put_over(inner, changes),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::Architecture;
    use crate::finetune::{PRESETS, Recipe};

    const EVERY: [On; 6] = [On::Mnist, On::Cifar10, On::Cifar100, On::Svhn, On::Imagenet, On::Batchnorm];

    #[test]
    fn data_are_known_by_their_name_or_their_shape() {
        let network = |input, classes| Architecture::build("resnet8", input, classes, 0).unwrap().network;
        let small = network([3, 32, 32], 10);
        assert_eq!(On::of("svhn", &small), [On::Svhn, On::Batchnorm]);
        assert_eq!(On::of("batchnorm", &small), [On::Cifar10, On::Batchnorm]);
        assert_eq!(On::of("folder", &small), [On::Cifar10, On::Batchnorm]);
        assert_eq!(On::of("folder", &network([3, 32, 32], 11)), [On::Cifar100, On::Batchnorm]);
        assert_eq!(On::of("folder", &network([1, 28, 20], 2)), [On::Mnist, On::Batchnorm]);
        assert_eq!(On::of("folder", &network([1, 32, 65], 2)), [On::Imagenet, On::Batchnorm]);
        let model = Architecture::build("resnet8", [3, 32, 32], 10, 0).unwrap();
        assert_eq!(On::of("cifar10", &model.folded().network), [On::Cifar10]);
    }

    #[test]
    fn names_are_those_of_the_tables() {
        for on in EVERY {
            assert_eq!(toml::Value::try_from(on).unwrap(), toml::Value::String(on.to_string()));
        }
    }

    /// Every preset has the numbers of its data sets, and `--set` comes after them.
    #[test]
    fn tables_are_put_over_a_recipe() {
        for preset in PRESETS {
            for on in EVERY {
                Recipe::load_on(preset.name, &[on], &[]).unwrap();
            }
            assert_eq!(
                Recipe::load_on(preset.name, &[On::Cifar100], &[]).unwrap(),
                Recipe::load(preset.name, &[]).unwrap(),
                "{}",
                preset.name
            );
        }
        let settings = ["attack.steps=7".to_owned()];
        let madry = Recipe::load_on("madry", &[On::Mnist], &settings).unwrap();
        assert_eq!((madry.attack.eps.0, madry.attack.steps, madry.data.batch), (0.3, 7, 50));
        assert_eq!(madry.schedule, Recipe::load("madry", &[]).unwrap().schedule);
        // The radius of dra is 0.1 on MNIST throughout its 50 epochs (Hou et al., Table I).
        let dra = Recipe::load_on("dra", &[On::Mnist], &[]).unwrap();
        let radii: Vec<f32> = (0..dra.epochs)
            .map(|e| dra.epsilon.radius(dra.attack.eps.0, e.into(), dra.epochs.into()))
            .collect();
        assert_eq!(radii, vec![0.1; 50]);
        let both = Recipe::load_on("adamant", &[On::Imagenet, On::Batchnorm], &[]).unwrap();
        assert_eq!((both.attack.eps.0, both.optimizer.clip), (4.0 / 255.0, Some(20.0)));
        assert_eq!(Recipe::parse(&both.to_toml(), "again", &[]).unwrap(), both);
    }

    #[test]
    fn what_is_wrong_in_a_table_is_named() {
        let refused = |table: &str, words: &[&str]| {
            let text = Recipe::load("aft", &[]).unwrap().to_toml() + table;
            // Also where the table is not used.
            let message = Recipe::parse(&text, "mine.toml", &[]).unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        };
        refused("[on.minst.attack]\neps = 0.3\n", &["on.minst", "did you mean 'mnist'"]);
        refused("[on.svhn.attack]\nstep_size = 1\n", &["on.svhn", "attack.step_size"]);
        refused("[on.svhn.attack]\npart = 0.5\n", &["on.svhn", "attack.part"]);
        refused("[on]\nsvhn = 3\n", &["on.svhn", "table"]);
    }
}
