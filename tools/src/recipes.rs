//! `adamant recipes`: the presets, as a list or as TOML to edit.

use adamant::finetune::{PRESETS, Recipe};
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
            PRESETS.iter().map(|p| output::wrap(&format!("{:<14}{}", p.name, p.summary), 14) + "\n").collect()
        }
    };
    output::print(&text)?;
    Ok(Outcome::Done)
}
