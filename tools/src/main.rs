//! `adamant`: makes pretrained image classifiers robust to adversarial examples.
//!
//! `args` is what the user typed; each subcommand has a file of its own. Standard output is data,
//! standard error is progress.

mod args;
mod attack;
mod classify;
mod data;
mod demo;
mod devices;
mod evaluate;
mod export;
mod finetune;
mod inspect;
mod measure;
mod model;
mod output;
mod package;
mod progress;
mod recipes;
mod settings;
mod train;
mod training;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Cli, Command};
use progress::Console;

/// How a command ended that did all its work.
enum Outcome {
    Done,
    /// The work is done, but a target that the user stated was not met.
    TargetMissed,
}

fn main() -> ExitCode {
    devices::quiet_drivers();
    let cli = Cli::parse();
    let console = Console::new(cli.quiet, cli.verbose);
    match run(&cli.command, &console) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::TargetMissed) => ExitCode::from(1),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&error);
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command, console: &Console) -> Result<Outcome> {
    match command {
        Command::Demo(args) => demo::run(args, console),
        Command::Devices(args) => devices::run(args, console),
        Command::Inspect(args) => inspect::run(args, console),
        Command::Train(args) => train::run(args, console),
        Command::Finetune(args) => finetune::run(args, console),
        Command::Evaluate(args) => evaluate::run(args, console),
        Command::Attack(args) => attack::run(args, console),
        Command::Package(args) => package::run(args, console),
        Command::Verify(args) => verify::run(args, console),
        Command::Classify(args) => classify::run(args, console),
        Command::Export(args) => export::run(args, console),
        Command::Recipes(args) => recipes::run(args),
    }
}
