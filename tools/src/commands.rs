//! Which file does which command.

use anyhow::Result;

use crate::args::Command;
use crate::progress::Console;
use crate::{
    analyse, attack, bench, classify, compare, completions, demo, devices, evaluate, export, finetune,
    inspect, keygen, merge, package, recipes, report, train, verify,
};

/// How a command ended that did all its work.
pub enum Outcome {
    Done,
    /// The work is done, but a target that the user stated was not met.
    TargetMissed,
}

pub fn run(command: &Command, console: &Console) -> Result<Outcome> {
    match command {
        Command::Demo(args) => demo::run(args, console),
        Command::Devices(args) => devices::run(args, console),
        Command::Inspect(args) => inspect::run(args, console),
        Command::Train(args) => train::run(args, console),
        Command::Finetune(args) => finetune::run(args, console),
        Command::Compare(args) => compare::run(args, console),
        Command::Evaluate(args) => evaluate::run(args, console),
        Command::Merge(args) => merge::run(args, console),
        Command::Report(args) => report::run(args, console),
        Command::Analyse(args) => analyse::run(args, console),
        Command::Attack(args) => attack::run(args, console),
        Command::Package(args) => package::run(args, console),
        Command::Verify(args) => verify::run(args, console),
        Command::Keygen(args) => keygen::run(args),
        Command::Classify(args) => classify::run(args, console),
        Command::Export(args) => export::run(args, console),
        Command::Recipes(args) => recipes::run(args),
        Command::Bench(args) => bench::run(args, console),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => completions::man(args),
    }
}
