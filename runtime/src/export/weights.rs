//! Weights as safetensors, for whatever reads a PyTorch `state_dict`.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};

use super::generate;
use crate::error::{Error, Result};
use crate::import::bytes_of;
use crate::model::Model;
use crate::network::Role;
use crate::package::{Precision, encode_f16};

/// The parameters of `model` as the bytes of a safetensors file, under their names and in PyTorch's layouts:
/// output channels x input channels x height x width, and outputs x inputs.
///
/// Weights are halves for [`Precision::F16`], and else f32: those of an int8 package are the numbers that it
/// computes with, since no loader of a `state_dict` knows scales. The metadata's entry `adamant` has a line each for
/// `version`, `mean` and `std` (one number a channel) and `labels`. Equal models are equal bytes.
///
/// # Errors
/// [`Error::Config`] naming a weight that the precision cannot hold, [`Error::Shape`] when a layer has no ONNX form.
pub fn to_safetensors(model: &Model, precision: Precision) -> Result<Vec<u8>> {
    model.network.verify(&model.values)?;
    let parameters = generate::parameters(&model.network, &model.values)?;
    let mut stored = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        let half = precision == Precision::F16 && parameter.role == Role::Weight;
        let (dtype, bytes) = match half {
            true => (Dtype::F16, encode_f16(&parameter.values)),
            false => (Dtype::F32, Ok(bytes_of(&parameter.values))),
        };
        let bytes = bytes.map_err(|m| Error::Config(format!("tensor '{}' {m}", parameter.name)))?;
        stored.push((parameter.name, dtype, parameter.dims, bytes));
    }
    let fault = |e: safetensors::SafeTensorError| Error::Config(format!("safetensors: {e}"));
    let views = stored
        .iter()
        .map(|(name, dtype, dims, bytes)| Ok((name, TensorView::new(*dtype, dims.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(fault)?;
    let numbers = |v: &[f32]| v.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    // One entry: several would be written in another order each time.
    let about = format!(
        "version={}\nmean={}\nstd={}\nlabels={}",
        env!("CARGO_PKG_VERSION"),
        numbers(&model.preprocessing.mean),
        numbers(&model.preprocessing.std),
        model.labels.join(",")
    );
    let metadata = HashMap::from([("adamant".to_owned(), about)]);
    safetensors::serialize(views, Some(metadata)).map_err(fault)
}
