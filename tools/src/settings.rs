//! What a run was started with: the recipe, and the table `[run]` beside it. A checkpoint and
//! config.toml hold both.

use adamant::finetune::{On, Recipe};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::args::RunArgs;
use crate::data::Validation;

/// The table `[run]`: everything that a repetition needs besides the recipe.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunSettings {
    pub command: String,
    /// The model that training started from, or the name of an architecture.
    pub model: String,
    /// BLAKE3 hash of the model's file; empty for an architecture.
    pub model_blake3: String,
    pub data: String,
    /// What the recipe was taken for, in the order in which its tables `[on.KEY]` were put over it.
    #[serde(default)]
    pub on: Vec<On>,
    pub split: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    pub validate: String,
    /// Data and part of every batch, as `--extra` takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<String>,
    /// BLAKE3 hash of the labels that the start of the run gave the extra images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudo_labels: Option<String>,
    pub seed: u64,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    pub device: String,
    pub adamant_version: String,
}

/// A recipe and what it runs on.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    pub recipe: Recipe,
    pub run: RunSettings,
}

impl Settings {
    pub fn to_toml(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Config<'a> {
            run: &'a RunSettings,
        }
        let run = toml::to_string(&Config { run: &self.run })?;
        Ok(format!("{}\n{run}", self.recipe.to_toml()))
    }

    /// Reads the settings that a checkpoint carries.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            run: RunSettings,
        }
        let Config { run } = toml::from_str(text).context("the checkpoint was not written by a run")?;
        Ok(Self { recipe: Recipe::parse(text, "of the checkpoint", &[])?, run })
    }

    /// Refuses options that contradict those that the run was started with.
    pub fn check_resumed(
        &self,
        recipe: Option<&str>,
        args: &RunArgs,
        model: &str,
        model_blake3: &str,
    ) -> Result<()> {
        let run = &self.run;
        // A file is known by its content, wherever it lies; an architecture by its name.
        let same_name = !model_blake3.is_empty() || run.model == model;
        if run.model_blake3 != model_blake3 || !same_name {
            bail!("{}: the run there was started from another model, {}", args.out.display(), run.model);
        }
        let validate = |v: Validation| v.to_string();
        let limit = run.limit.map_or("none".to_owned(), |n| n.to_string());
        let given = [
            ("--data", Some(args.data.clone()), run.data.clone()),
            ("--limit", args.limit.map(|n| n.to_string()), limit),
            ("--split", args.split.map(|s| s.name().to_owned()), run.split.clone()),
            ("--validate", args.validate.map(validate), run.validate.clone()),
            (
                "--extra",
                args.extra.as_ref().map(ToString::to_string),
                run.extra.clone().unwrap_or_else(|| "none".to_owned()),
            ),
            ("--seed", args.seed.map(|n| n.to_string()), run.seed.to_string()),
        ];
        for (flag, given, started) in given {
            if let Some(given) = given.filter(|g| *g != started) {
                bail!(
                    "{flag} {given}: the run in {} was started with {started}; a resumed run keeps its settings, \
                     another needs another --out",
                    args.out.display()
                );
            }
        }
        let asked = args.preprocessing.resolve(run.mean.len())?;
        if asked.is_some_and(|asked| asked.mean != run.mean || asked.std != run.std) {
            bail!(
                "--mean, --std: the run in {} was started with {:?} and {:?}; leave them out",
                args.out.display(),
                run.mean,
                run.std
            );
        }
        if args.pseudo_labels && run.pseudo_labels.is_none() {
            bail!("--pseudo-labels: the run in {} was started without", args.out.display());
        }
        let changes = args.epochs.is_some() || args.eps.is_some() || !recipe_changes(args).is_empty();
        if recipe.is_some() || changes {
            let base = match recipe {
                Some(name) => Recipe::load_on(name, &run.on, &[])?,
                None => self.recipe.clone(),
            };
            let asked = changed(base, args)?;
            if asked != self.recipe {
                bail!(
                    "the run in {} was started with other settings of the recipe (its config.toml has them); \
                     leave out --recipe, --set, --layers, --epochs, --eps and --batch, or choose another --out",
                    args.out.display()
                );
            }
        }
        Ok(())
    }
}

/// The recipe called `name` as it is on this, with `--epochs`, `--eps`, `--set` and their like.
pub fn recipe(name: &str, on: &[On], args: &RunArgs) -> Result<Recipe> {
    changed(Recipe::load_on(name, on, &[])?, args)
}

/// Refuses what is wrong on all kinds of data, before any is opened.
pub fn check(name: &str, args: &RunArgs) -> Result<()> {
    let Err(everywhere) = recipe(name, &[], args) else { return Ok(()) };
    let mut places = On::DATA.iter().flat_map(|&data| [vec![data], vec![data, On::Batchnorm]]);
    if places.any(|on| recipe(name, &on, args).is_ok()) { Ok(()) } else { Err(everywhere) }
}

/// For what of `on` the recipe called `name` has numbers of their own, in words.
pub fn particulars(name: &str, on: &[On]) -> Result<Option<String>> {
    let base = Recipe::load(name, &[])?;
    let mut found = Vec::new();
    for &on in on {
        if Recipe::load_on(name, &[on], &[])? != base {
            found.push(format!("[on.{on}]"));
        }
    }
    Ok((!found.is_empty()).then(|| format!("{}, as in its {}", base.name, found.join(" and "))))
}

fn changed(mut recipe: Recipe, args: &RunArgs) -> Result<Recipe> {
    if let Some(epochs) = args.epochs {
        recipe = recipe.stretched(epochs);
    }
    if let Some(eps) = args.eps {
        recipe = recipe.at_radius(eps);
    }
    Ok(Recipe::parse(&recipe.to_toml(), &recipe.name, &recipe_changes(args))?)
}

/// The place of the first of `--set` that changes nothing in this recipe, and why.
pub fn unread(recipe: &Recipe, settings: &[String]) -> Option<(usize, String)> {
    settings.iter().enumerate().find_map(|(place, setting)| {
        let key = setting.split('=').next().unwrap_or_default().trim();
        let why = recipe.why_unread(key)?;
        Some((place, format!("--set {setting} changes nothing in {}: {why}", recipe.name)))
    })
}

/// `--set` and its short forms, as settings of a recipe.
fn recipe_changes(args: &RunArgs) -> Vec<String> {
    let mut changes = args.settings.clone();
    changes.extend(args.layers.map(|layers| format!("layers={layers}")));
    if let Some(crate::args::BatchSize::Images(n)) = args.batch {
        changes.push(format!("data.batch={n}"));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_as_they_are_written() {
        let settings = Settings {
            recipe: Recipe::load("aft", &["attack.steps=3".to_owned()]).unwrap(),
            run: RunSettings {
                command: "finetune".into(),
                model: "dir/a \"model\".onnx".into(),
                model_blake3: "00".into(),
                data: "cifar10:data".into(),
                on: vec![On::Cifar10, On::Batchnorm],
                split: "train".into(),
                limit: None,
                validate: "train:500".into(),
                extra: Some("folder:more:0.5".into()),
                pseudo_labels: None,
                seed: i64::MAX as u64,
                mean: vec![0.5],
                std: vec![0.25],
                device: "cpu".into(),
                adamant_version: "0.1.0".into(),
            },
        };
        let text = settings.to_toml().unwrap();
        assert_eq!(Settings::parse(&text).unwrap(), settings);
        // A run's config.toml is a recipe file as well.
        assert_eq!(Recipe::parse(&text, "config", &[]).unwrap(), settings.recipe);
        assert!(Settings::parse(&settings.recipe.to_toml()).is_err());
    }
}
