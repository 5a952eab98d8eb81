//! ONNX files in.
//!
//! The importer reads the raw protobuf messages, node by node, because libraries that type a model
//! first fold BatchNorm away and lose the names that an export needs. Reading goes in this order:
//!
//! 1. `external` copies values from files beside the model into it;
//! 2. `walk` visits the nodes that the logits depend on; `evaluate` computes the `constants`,
//!    which do not depend on the image, `layers` and `layout` turn the rest into layers of a [`Network`];
//! 3. `parameters` names the weights and remembers where each goes back;
//! 4. the values are taken out of the file; what is left is the skeleton that an export fills in.
//!
//! `proto` is the checked access to the messages that all of them share, `reference` runs the
//! original file through tract.

mod constants;
mod evaluate;
mod external;
mod layers;
mod layout;
mod parameters;
mod proto;
mod reference;
mod walk;

use std::path::Path;

use prost::Message;
use tract_onnx::pb::{ModelProto, TensorProto};

use crate::error::{Error, Result};
use crate::model::{Model, Preprocessing};
use crate::network::{Network, Parameter};
use crate::shape::Tensor;

use constants::TensorId;
pub(crate) use parameters::Layout;
use parameters::{Binding, Home};
pub use reference::{reference_logits, reference_logits_bytes};
use walk::{Walked, walk};

/// Whether the file still has BatchNorm layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchNormState {
    /// It has; `training_mode` of them were exported in training mode and are read as inference.
    Found {
        /// BatchNorm layers in all.
        layers: usize,
        /// How many of them the file marks as training.
        training_mode: usize,
    },
    /// It has none, and its convolutions have the biases and names that folding leaves behind.
    Folded,
    /// It has none.
    None,
}

impl std::fmt::Display for BatchNormState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Found { layers, training_mode: 0 } => write!(f, "{layers} BatchNorm"),
            Self::Found { layers, training_mode } => {
                write!(f, "{layers} BatchNorm, {training_mode} of them in training mode, read as inference")
            }
            Self::Folded => {
                write!(f, "BatchNorm folded into the convolutions: statistics cannot be updated")
            }
            Self::None => write!(f, "no BatchNorm"),
        }
    }
}

/// What an importer noticed about a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportNotes {
    /// Whether BatchNorm layers can be trained.
    pub batch_norm: BatchNormState,
    /// Version of the ONNX operator set.
    pub opset: i64,
    /// Who wrote the file, such as `pytorch 2.8.0`.
    pub producer: String,
    /// The batch size that the file fixes; Adamant uses its own all the same.
    pub fixed_batch: Option<usize>,
    /// Anything else worth a line, such as a Dropout left in training mode.
    pub notes: Vec<String>,
}

/// Reads a classifier from an ONNX file.
///
/// The preprocessing is none and there are no labels: the file knows neither.
pub fn import(path: &Path) -> Result<Model> {
    import_with_notes(path).map(|(model, _)| model)
}

/// Reads a classifier from an ONNX file, and says what kind of file it was.
pub fn import_with_notes(path: &Path) -> Result<(Model, ImportNotes)> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    finish(load(&bytes, path, path.parent())?, path)
}

/// Reads a classifier from an ONNX file in memory, which must hold all its values itself.
pub fn import_bytes(bytes: &[u8], path_for_messages: &Path) -> Result<Model> {
    finish(load(bytes, path_for_messages, None)?, path_for_messages).map(|(model, _)| model)
}

/// Decodes a file and completes it with its external values.
fn load(bytes: &[u8], path: &Path, directory: Option<&Path>) -> Result<ModelProto> {
    let mut model = decode(bytes, path)?;
    if let Some(graph) = &mut model.graph {
        external::inline(graph, directory, path)?;
    }
    Ok(model)
}

fn decode(bytes: &[u8], path: &Path) -> Result<ModelProto> {
    ModelProto::decode(bytes)
        .map_err(|e| Error::import(path, format!("not an ONNX model, or a truncated one ({e})")))
}

fn finish(mut proto: ModelProto, path: &Path) -> Result<(Model, ImportNotes)> {
    let Walked { network, bindings, notes } = walk(&proto, path, false)?;
    let mut values = Vec::with_capacity(bindings.len());
    for Binding { parameter, layout, home, value } in bindings {
        let value = value
            .ok_or_else(|| Error::import(path, format!("tensor '{}' holds no values", parameter.name)))?;
        values.push(value);
        // A tensor that comes back rounded is kept, to be left alone if the parameter did not change.
        if let Home::Tensor(id) = home
            && layout.is_exact()
            && let Some(tensor) = stored(&mut proto, id)
        {
            tensor.raw_data = Vec::new();
            tensor.float_data = Vec::new();
        }
    }
    network.verify(&values).map_err(|e| Error::import(path, e.to_string()))?;
    let preprocessing = Preprocessing::none(network.input[0]);
    let model =
        Model { network, values, preprocessing, labels: Vec::new(), onnx_skeleton: proto.encode_to_vec() };
    Ok((model, notes))
}

/// The tensor that `id` names.
fn stored(model: &mut ModelProto, id: TensorId) -> Option<&mut TensorProto> {
    let graph = model.graph.as_mut()?;
    match id {
        TensorId::Initializer(index) => graph.initializer.get_mut(index),
        TensorId::Node(index) => {
            graph.node.get_mut(index)?.attribute.iter_mut().find(|a| a.name == "value")?.t.as_mut()
        }
    }
}

/// Writes parameters into the skeleton of the file that they came from.
///
/// `values` holds one tensor for each of the network's parameters.
pub(crate) fn fill_skeleton(skeleton: &[u8], network: &Network, values: &[Tensor]) -> Result<Vec<u8>> {
    let path = Path::new("the ONNX skeleton of the model");
    let mut model = decode(skeleton, path)?;
    let bindings = walk(&model, path, true)?.bindings;
    let value_of = |parameter: &Parameter| {
        let found = network.parameters.iter().position(|p| p == parameter);
        found.and_then(|i| values.get(i)).ok_or_else(|| {
            Error::import(path, format!("the network has no parameter '{}' like the file's", parameter.name))
        })
    };
    // Parameters that share a tensor come second: they compare themselves with what it then holds.
    for Binding { parameter, layout, home, value } in &bindings {
        let wanted = value_of(parameter)?;
        if let Home::Tensor(id) = home
            && value.as_ref() != Some(wanted)
            && let Some(tensor) = stored(&mut model, *id)
        {
            tensor.raw_data = bytes_of(&layout.write(wanted));
            tensor.float_data.clear();
        }
    }
    for Binding { parameter, layout, home, value } in &bindings {
        let Home::Own { dims, users, shared } = home else {
            continue;
        };
        let wanted = value_of(parameter)?;
        let written = layout.write(wanted);
        let current = match shared.and_then(|id| stored(&mut model, id)) {
            Some(tensor) => proto::floats(tensor).ok(),
            None => value.as_ref().map(|v| layout.write(v)),
        };
        if current.as_deref() != Some(written.as_slice()) {
            add_initializer(&mut model, parameter, dims, bytes_of(&written), users);
        }
    }
    Ok(model.encode_to_vec())
}

/// Gives a parameter an initialiser of its own and makes `users` (node, input) read it.
fn add_initializer(
    model: &mut ModelProto,
    parameter: &Parameter,
    dims: &[usize],
    raw_data: Vec<u8>,
    users: &[(usize, usize)],
) {
    let Some(graph) = &mut model.graph else {
        return;
    };
    graph.initializer.push(TensorProto {
        name: parameter.name.clone(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: tract_onnx::pb::tensor_proto::DataType::Float as i32,
        raw_data,
        ..TensorProto::default()
    });
    for &(node, input) in users {
        graph.node[node].input[input].clone_from(&parameter.name);
    }
}

/// Values as ONNX stores them: little-endian.
pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[cfg(test)]
#[path = "import/tests.rs"]
mod tests;
