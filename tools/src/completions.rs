//! `adamant completions` and `adamant man`: what shells and `man` know of the command line.

use std::fs;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::{Outcome, output};

/// Prints the completion script of a shell.
pub fn run(args: &CompletionsArgs) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "adamant", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}

/// Writes a manual page for the program and one for each command.
pub fn man(args: &ManArgs) -> Result<Outcome> {
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    clap_mangen::generate_to(Cli::command(), &args.out).with_context(|| args.out.display().to_string())?;
    output::print(&format!("{}\n", args.out.join("adamant.1").display()))?;
    Ok(Outcome::Done)
}
