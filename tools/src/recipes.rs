//! `adamant recipes`: the presets, as a list or as TOML to edit.

use adamant::finetune::{PRESETS, Preset, Recipe};
use anyhow::Result;

use crate::args::RecipesArgs;
use crate::{Outcome, output};

pub fn run(args: &RecipesArgs) -> Result<Outcome> {
    let text = match &args.name {
        // The preset as it was written: its comments say what it is.
        Some(name) => match PRESETS.iter().find(|p| p.name == name) {
            Some(preset) => preset.toml.to_owned(),
            None => Recipe::load(name, &[])?.to_toml(),
        },
        None => {
            let column = PRESETS.iter().map(|p| p.name.len() + 2).max().unwrap_or(0);
            let line = |p: &Preset| output::wrap(&format!("{:<column$}{}", p.name, p.summary), column) + "\n";
            PRESETS.iter().map(line).collect()
        }
    };
    output::print(&text)?;
    Ok(Outcome::Done)
}
