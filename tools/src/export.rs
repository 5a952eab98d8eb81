//! `adamant export`: a model as ONNX, for any other runtime, or its weights as safetensors.

use adamant::package::{Precision, write_atomically};
use anyhow::Result;

use crate::args::{ExportArgs, ExportFormat};
use crate::model::Loaded;
use crate::progress::Console;
use crate::{Outcome, output};

pub fn run(args: &ExportArgs, console: &Console) -> Result<Outcome> {
    let loaded = Loaded::read(&args.model)?;
    let model = &loaded.model;
    let precision = args.precision.map_or(loaded.precision, |p| p.precision());
    let is_safetensors = args.out.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
    let format = args.format.unwrap_or(match is_safetensors {
        true => ExportFormat::Safetensors,
        false => ExportFormat::Onnx,
    });
    let bytes = match format {
        ExportFormat::Onnx => adamant::to_onnx_as(model, precision)?,
        ExportFormat::Safetensors => adamant::to_safetensors(model, precision)?,
    };
    write_atomically(&args.out, &bytes)?;
    let anew = precision != Precision::F32 && !model.onnx_skeleton.is_empty();
    if format == ExportFormat::Onnx && anew {
        console.note(
            "the file is written anew, to hold compact weights; --precision f32 keeps the structure of the one \
             that was imported",
        );
    }
    let preprocessing = &model.preprocessing;
    let identity = adamant::Preprocessing::none(model.network.input[0]);
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
