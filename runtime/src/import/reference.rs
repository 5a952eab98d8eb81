//! tract's own CPU run of an ONNX file: the independent check of Adamant's forward pass.

use std::path::Path;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};
use tract_onnx::prelude::{
    Datum, Framework, InferenceFact, InferenceModelExt, IntoRunnable, Tensor, TractError, TractResult, tvec,
};

use super::walk::walk;
use super::{load, proto};
use crate::error::{Error, Result};

/// The logits that tract computes on the CPU from the ONNX file at `path`.
///
/// `images` are `batch` normalised images, N x C x H x W; the result holds the logits of one
/// image after the other. A file with a fixed batch size is run as often as it takes. tract reads
/// BatchNormalization as inference, whatever `training_mode` says, just as [`crate::import::import`] does.
pub fn reference_logits(path: &Path, images: &[f32], batch: usize) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    run(load(&bytes, path, path.parent())?, path, images, batch)
}

/// [`reference_logits`] of an ONNX file in memory, such as [`crate::export::to_onnx`] makes.
pub fn reference_logits_bytes(
    bytes: &[u8],
    path_for_messages: &Path,
    images: &[f32],
    batch: usize,
) -> Result<Vec<f32>> {
    run(load(bytes, path_for_messages, None)?, path_for_messages, images, batch)
}

fn run(model: ModelProto, path: &Path, images: &[f32], batch: usize) -> Result<Vec<f32>> {
    // The walk refuses damaged files before tract sees them.
    let walked = walk(&model, path, false)?;
    let [c, h, w] = walked.network.input;
    let classes = walked.network.classes()?;
    let pixels = c * h * w;
    if batch.checked_mul(pixels) != Some(images.len()) {
        let message = format!("{} values are not {batch} images of {c} x {h} x {w}", images.len());
        return Err(Error::Config(message));
    }
    let size = walked.notes.fixed_batch.unwrap_or(batch).max(1);
    // A file may fix any batch size; one that does not fit in memory is not worth running.
    if size.checked_mul(pixels).is_none_or(|n| n > 1 << 30) {
        return Err(Error::Limit(format!("a batch of {size} images is too large for the reference run")));
    }
    let chunks = images.chunks(size * pixels);
    let model = simplified(model);
    // tract panics on some spellings that it does not know; that is an answer like any other.
    let logits = std::panic::catch_unwind(|| compute(&model, [size, c, h, w], chunks))
        .unwrap_or_else(|_| Err(TractError::msg("it panicked")))
        .map_err(|e| Error::import(path, format!("tract cannot run it: {e:#}")))?;
    if logits.len() < batch * classes {
        return Err(Error::import(
            path,
            format!("tract returned {} logits for {batch} images", logits.len()),
        ));
    }
    Ok(logits[..batch * classes].to_vec())
}

/// Rewrites what tract reads wrongly, without changing what it means.
fn simplified(mut model: ModelProto) -> ModelProto {
    let Some(graph) = &mut model.graph else {
        return model;
    };
    for node in &mut graph.node {
        match node.op_type.as_str() {
            // The statistics that a training export also returns.
            "BatchNormalization" => node.output.truncate(1),
            // Axes that are not in ascending order.
            "Squeeze" if node.input.len() == 2 => {
                let axes = graph.initializer.iter().find(|t| t.name == node.input[1]);
                if let Some(Ok(Some(mut values))) = axes.map(proto::ints)
                    && !values.is_sorted()
                {
                    values.sort_unstable();
                    let name = format!("{} sorted for {}", node.input[1], proto::node_name(node));
                    node.input[1].clone_from(&name);
                    graph.initializer.push(TensorProto {
                        name,
                        dims: vec![values.len() as i64],
                        data_type: DataType::Int64 as i32,
                        int64_data: values,
                        ..TensorProto::default()
                    });
                }
            }
            _ => {}
        }
    }
    model
}

fn compute<'a>(
    model: &ModelProto,
    shape: [usize; 4],
    chunks: impl Iterator<Item = &'a [f32]>,
) -> TractResult<Vec<f32>> {
    let mut model = tract_onnx::onnx()
        .with_ignore_output_shapes(true)
        .with_ignore_value_info(true)
        .model_for_proto_model(model)?;
    model.set_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), shape))?;
    let plan = model.into_optimized()?.into_runnable()?;
    let mut logits = Vec::new();
    for chunk in chunks {
        let mut values = chunk.to_vec();
        // A fixed batch is filled up; the caller cuts off what that adds.
        values.resize(shape.iter().product(), 0.0);
        let outputs = plan.run(tvec!(Tensor::from_shape(&shape, &values)?.into()))?;
        logits.extend_from_slice(outputs[0].try_as_plain_ram()?.as_slice::<f32>()?);
    }
    Ok(logits)
}
