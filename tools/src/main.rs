//! `adamant`: makes pretrained image classifiers robust to adversarial examples.
//!
//! `args` is what the user typed; each subcommand has a file of its own. Standard output is data,
//! standard error is progress.

mod analyse;
mod args;
mod attack;
mod bench;
mod classify;
mod commands;
mod compare;
mod completions;
mod corruptions;
mod data;
mod demo;
mod devices;
mod evaluate;
mod evaluation;
mod export;
mod extra;
mod finetune;
mod inspect;
mod keygen;
mod measure;
mod merge;
mod model;
mod output;
mod package;
mod picture;
mod progress;
mod recipes;
mod report;
mod resume;
mod saved;
mod settings;
mod train;
mod training;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use commands::Outcome;
use progress::Console;

fn main() -> ExitCode {
    bench::note_start();
    devices::quiet_drivers();
    let cli = Cli::parse();
    let console = Console::new(cli.quiet, cli.verbose);
    match commands::run(&cli.command, &console) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::TargetMissed) => ExitCode::from(1),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&error);
            ExitCode::from(2)
        }
    }
}
