//! `adamant report`: one HTML page from which a person decides whether to ship a model.

mod analysis;
mod chart;
mod comparison;
mod corrupted;
mod inputs;
mod methods;
mod page;
mod pictures;
mod published;
mod warnings;

use adamant::package::write_atomically;
use anyhow::{Context, Result};
pub use inputs::Run;

use crate::args::ReportArgs;
use crate::progress::Console;
use crate::{Outcome, output};

const NAME: &str = "index.html";

pub fn run(args: &ReportArgs, console: &Console) -> Result<Outcome> {
    let inputs = inputs::Inputs::read(&args.inputs)?;
    for measured in &inputs.measured {
        if let Some(missing) = &measured.missing {
            console.note(&format!("{}: {missing}", measured.report.model));
        }
    }
    let page = page::page(&inputs, console.command())?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let path = args.out.join(NAME);
    write_atomically(&path, page.as_bytes())?;
    output::print(&format!("{}\n", path.display()))?;
    Ok(Outcome::Done)
}
