//! `adamant export`: a model as ONNX, for any other runtime.

use anyhow::Result;

use crate::args::ExportArgs;
use crate::model::Loaded;
use crate::progress::Console;
use crate::{Outcome, output};

pub fn run(args: &ExportArgs, console: &Console) -> Result<Outcome> {
    let loaded = Loaded::read(&args.model)?;
    adamant::export(&loaded.model, &args.out)?;
    let preprocessing = &loaded.model.preprocessing;
    let identity = adamant::Preprocessing::none(loaded.model.network.input[0]);
    if *preprocessing != identity {
        console.note(&format!(
            "the file takes normalised images, (x - mean) / std, as the one that was imported did; mean {:?}, \
             std {:?}",
            preprocessing.mean, preprocessing.std
        ));
    }
    output::print(&format!("{}\n", args.out.display()))?;
    Ok(Outcome::Done)
}
