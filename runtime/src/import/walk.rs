//! The walk over the nodes of a graph, in their order.
//!
//! Every value of the graph is either an activation, which depends on the image and comes from a
//! layer, or a constant, which the evaluator computes. Only nodes that the output depends on are
//! visited.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use prost::Message;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dimension;
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

use super::constants::{self, Constant, Data, TensorId};
use super::evaluate::{self, Budget};
use super::parameters::{Binding, Parameters};
use super::proto::{self, Attributes, Fault, Step, damaged, node_name, unsupported};
use super::{BatchNormState, ImportNotes};
use crate::error::{Error, Result};
use crate::network::{Layer, Network, Source};
use crate::ops::{Conv2d, Op};
use crate::shape::Shape;

/// The first operator set whose BatchNormalization and Dropout mean what they mean today.
const OLDEST_OPSET: i64 = 7;
/// The newest operator set that was tested.
const NEWEST_OPSET: i64 = 23;

/// Axes of [`Shape`].
pub(super) const HEIGHT: usize = 1;
pub(super) const WIDTH: usize = 2;
pub(super) const CHANNELS: usize = 3;

/// A value that depends on the image.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Activation {
    pub source: Source,
    pub shape: Shape,
    /// The dimensions that ONNX sees after the batch, as axes of `shape`; the others have size 1.
    /// N x C x H x W is all three, a flattened N x C only the channels.
    pub axes: &'static [usize],
}

pub(super) const IMAGE: &[usize] = &[CHANNELS, HEIGHT, WIDTH];
pub(super) const ROWS: &[usize] = &[CHANNELS, HEIGHT];
pub(super) const COLUMNS: &[usize] = &[CHANNELS, WIDTH];
pub(super) const FLAT: &[usize] = &[CHANNELS];

impl Activation {
    /// Number of dimensions that ONNX sees, with the batch.
    pub(super) fn rank(&self) -> usize {
        self.axes.len() + 1
    }

    /// The dimensions that ONNX sees after the batch.
    pub(super) fn dims(&self) -> Vec<usize> {
        self.axes.iter().map(|&a| self.shape.0[a]).collect()
    }
}

/// A value of the graph.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Activation(Activation),
    Constant(Constant<'a>),
    /// Comes from a node that was reported as unsupported.
    Unknown,
}

/// What a file holds.
pub(super) struct Walked {
    pub network: Network,
    /// One for each parameter of the network, in its order.
    pub bindings: Vec<Binding>,
    pub notes: ImportNotes,
}

/// The state of the walk.
pub(super) struct Walk<'a> {
    pub graph: &'a GraphProto,
    pub opset: i64,
    pub batch: Option<usize>,
    image: Shape,
    pub values: HashMap<&'a str, Value<'a>>,
    /// How many inputs of live nodes, and graph outputs, read a value.
    pub uses: HashMap<&'a str, usize>,
    pub layers: Vec<Layer>,
    pub shapes: Vec<Shape>,
    /// The value that each layer defines.
    pub outputs: Vec<&'a str>,
    pub parameters: Parameters<'a>,
    pub notes: Vec<String>,
    /// The index of the node being read.
    pub index: usize,
    budget: Budget,
    training_mode: usize,
}

/// Reads a model whose external data is inlined. With `stripped`, f32 tensors may lack values.
pub(super) fn walk(model: &ModelProto, path: &Path, stripped: bool) -> Result<Walked> {
    let fault = |message: String| Error::import(path, message);
    let graph = model.graph.as_ref().ok_or_else(|| fault("holds no graph: not an ONNX model".into()))?;
    let opset = opset(model).map_err(fault)?;
    let (input, batch) = image_input(graph).map_err(fault)?;
    let output = logits_output(graph).map_err(fault)?;
    let live = live_nodes(graph, output).map_err(fault)?;

    let mut walk = Walk {
        graph,
        opset,
        batch,
        image: input.1.shape,
        values: HashMap::new(),
        uses: HashMap::from([(output, 1)]),
        layers: Vec::new(),
        shapes: Vec::new(),
        outputs: Vec::new(),
        parameters: Parameters::default(),
        notes: Vec::new(),
        index: 0,
        budget: Budget::of(model.encoded_len()),
        training_mode: 0,
    };
    if opset > NEWEST_OPSET {
        walk.notes.push(format!("operator set {opset} is newer than the newest tested, {NEWEST_OPSET}"));
    }
    walk.add_initializers(stripped).map_err(|f| fault(message(f)))?;
    walk.values.insert(&input.0.name, Value::Activation(input.1));
    for &index in &live {
        for name in graph.node[index].input.iter().filter(|n| !n.is_empty()) {
            *walk.uses.entry(name).or_default() += 1;
        }
    }

    let mut refused = Vec::new();
    for &index in &live {
        let node = &graph.node[index];
        walk.index = index;
        let describe = |reason: &str| format!("{} '{}' ({reason})", node.op_type, node_name(node));
        let value = match walk.node(node) {
            Ok(value) => value,
            Err(Fault::Damaged(message)) => {
                return Err(fault(format!("{} node '{}': {message}", node.op_type, node_name(node))));
            }
            Err(Fault::Unsupported(reason)) => {
                let hint = if node.output.iter().any(|o| o == output) { output_hint(node) } else { None };
                refused.push(describe(hint.unwrap_or(&reason)));
                Value::Unknown
            }
            Err(Fault::Unknown) => Value::Unknown,
        };
        for (slot, name) in node.output.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let defined = if slot == 0 { value.clone() } else { Value::Unknown };
            if slot > 0 && walk.uses.contains_key(name.as_str()) {
                refused.push(describe(&format!("its output '{name}' is used")));
            }
            if walk.values.insert(name, defined).is_some() {
                return Err(fault(format!("value '{name}' is defined twice")));
            }
        }
    }
    if !refused.is_empty() {
        return Err(Error::Unsupported { path: path.to_owned(), nodes: refused });
    }
    let Some(Value::Activation(logits)) = walk.values.get(output) else {
        return Err(fault(format!("the output '{output}' does not depend on the image")));
    };
    let source = logits.source;
    Ok(walk.finish(model, source))
}

fn message(fault: Fault) -> String {
    match fault {
        Fault::Unsupported(m) | Fault::Damaged(m) => m,
        Fault::Unknown => "an unknown value".into(),
    }
}

/// Whether a node of this domain is one of the ONNX standard.
fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn opset(model: &ModelProto) -> Result<i64, String> {
    let Some(found) = model.opset_import.iter().find(|o| is_standard(&o.domain)) else {
        return Err("names no ONNX operator set".into());
    };
    match found.version {
        v if v < OLDEST_OPSET => {
            Err(format!("uses operator set {v}; export it with operator set {OLDEST_OPSET} or later"))
        }
        v => Ok(v),
    }
}

/// The one input that is not an initialiser, and the batch size when the file fixes it.
fn image_input(graph: &GraphProto) -> Result<((&ValueInfoProto, Activation), Option<usize>), String> {
    let stored: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs: Vec<_> = graph.input.iter().filter(|i| !stored.contains(i.name.as_str())).collect();
    let &[input] = inputs.as_slice() else {
        let names: Vec<_> = inputs.iter().map(|i| format!("'{}'", i.name)).collect();
        return Err(format!(
            "has {} inputs ({}); a classifier has one, the image",
            names.len(),
            names.join(", ")
        ));
    };
    let name = &input.name;
    let Some(Type::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(format!("input '{name}' has no tensor type"));
    };
    if tensor.elem_type != tract_onnx::pb::tensor_proto::DataType::Float as i32 {
        let kind = proto::type_name(tensor.elem_type);
        return Err(format!("input '{name}' is {kind}; export the model in float32"));
    }
    let dims: Vec<Option<usize>> = tensor
        .shape
        .iter()
        .flat_map(|s| &s.dim)
        .map(|d| match d.value {
            Some(Dimension::DimValue(v)) if v > 0 => usize::try_from(v).ok(),
            _ => None,
        })
        .collect();
    match dims[..] {
        [batch, Some(c), Some(h), Some(w)] => {
            let shape = Shape([1, h, w, c]);
            if shape.checked_len().is_none() || [c, h, w].iter().any(|&d| d > 1 << 20) {
                return Err(format!("input '{name}' is an image of {c} x {h} x {w}, which is too large"));
            }
            let image = Activation { source: Source::Image, shape, axes: IMAGE };
            Ok(((input, image), batch))
        }
        [_, _, _, _] => Err(format!(
            "input '{name}' has a dynamic number of channels, height or width; export the model with a \
             fixed image size (the batch may stay dynamic)"
        )),
        _ => Err(format!(
            "input '{name}' has {} dimensions; an image has four: batch, channels, height, width",
            dims.len()
        )),
    }
}

/// The name of the logits. Running statistics that a training export also returns do not count.
fn logits_output(graph: &GraphProto) -> Result<&str, String> {
    let statistics: HashSet<&str> = graph
        .node
        .iter()
        .filter(|n| n.op_type == "BatchNormalization")
        .flat_map(|n| n.output.iter().skip(1).map(String::as_str))
        .collect();
    let outputs: Vec<&str> =
        graph.output.iter().map(|o| o.name.as_str()).filter(|n| !statistics.contains(n)).collect();
    match outputs[..] {
        [one] => Ok(one),
        _ => Err(format!(
            "has {} outputs ({}); a classifier has one, the logits",
            outputs.len(),
            outputs.join(", ")
        )),
    }
}

/// The nodes that `output` depends on, in file order.
fn live_nodes(graph: &GraphProto, output: &str) -> Result<Vec<usize>, String> {
    let mut producer = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            if producer.insert(name.as_str(), index).is_some() {
                return Err(format!("value '{name}' is defined twice"));
            }
        }
    }
    let mut live = vec![false; graph.node.len()];
    let mut pending = vec![output];
    while let Some(name) = pending.pop() {
        if let Some(&index) = producer.get(name)
            && !std::mem::replace(&mut live[index], true)
        {
            pending.extend(graph.node[index].input.iter().map(String::as_str));
        }
    }
    Ok((0..live.len()).filter(|&i| live[i]).collect())
}

/// What to do about an operation after the logits.
fn output_hint(node: &NodeProto) -> Option<&'static str> {
    matches!(node.op_type.as_str(), "Softmax" | "LogSoftmax" | "Sigmoid" | "ArgMax")
        .then_some("remove it from the exported model: Adamant needs the logits")
}

impl<'a> Walk<'a> {
    fn add_initializers(&mut self, stripped: bool) -> Step<()> {
        for (index, tensor) in self.graph.initializer.iter().enumerate() {
            let constant = Constant::from_tensor(&tensor.name, tensor, TensorId::Initializer(index))?;
            if proto::is_float(tensor) && !(stripped && proto::is_stripped(tensor)) {
                proto::check_floats(tensor, &constant.dims)?;
            }
            if self.values.insert(&tensor.name, Value::Constant(constant)).is_some() {
                return damaged(format!("two initialisers are named '{}'", tensor.name));
            }
        }
        for sparse in &self.graph.sparse_initializer {
            if let Some(values) = &sparse.values {
                let data = Data::Other("a sparse tensor".into());
                let constant = Constant { name: &values.name, dims: vec![], data, tensor: None };
                self.values.insert(&values.name, Value::Constant(constant));
            }
        }
        Ok(())
    }

    /// The value of the node's first output.
    fn node(&mut self, node: &'a NodeProto) -> Step<Value<'a>> {
        if !is_standard(&node.domain) {
            return unsupported(format!("domain '{}'", node.domain));
        }
        if node.op_type == "Constant" {
            return constants::constant_node(node, self.index).map(Value::Constant);
        }
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(match self.values.get(name.as_str()) {
                _ if name.is_empty() => None,
                Some(value) => Some(value.clone()),
                None => {
                    return damaged(format!(
                        "nothing before it defines its input '{name}' (a missing initialiser, nodes out of order, \
                         or a cycle)"
                    ));
                }
            });
        }
        let node = Node { proto: node, attributes: Attributes(node), inputs };
        match node.all_constant() {
            Some(inputs) if evaluate::can_evaluate(&node.proto.op_type) => {
                self.evaluate(node.proto, &inputs).map(Value::Constant)
            }
            _ => self.layer(&node),
        }
    }

    fn evaluate(&mut self, node: &'a NodeProto, inputs: &[Option<&Constant<'a>>]) -> Step<Constant<'a>> {
        let result = evaluate::evaluate(node, inputs, &mut self.budget)?;
        if result.tensor.is_none() && result.is_float() {
            self.parameters.read.extend(inputs.iter().flatten().filter_map(|c| c.tensor));
        }
        Ok(result)
    }

    /// Adds a layer and returns its output, of which ONNX sees `axes`.
    pub(super) fn push(
        &mut self,
        node: &Node<'a>,
        op: Op,
        inputs: Vec<Source>,
        axes: &'static [usize],
    ) -> Step<Activation> {
        let shapes: Vec<Shape> = inputs.iter().map(|&s| self.shape_of(s)).collect();
        let outputs = op.output_shapes(&shapes).or_else(damaged)?;
        let &[shape] = outputs.as_slice() else {
            return damaged("it has more than one output");
        };
        if shape.is_empty() || shape.checked_len().is_none() {
            return damaged(format!("its output is {shape:?}"));
        }
        self.layers.push(Layer { name: node_name(node.proto).to_owned(), op, inputs });
        self.shapes.push(shape);
        self.outputs.push(node.output());
        Ok(Activation { source: Source::Layer(self.layers.len() - 1), shape, axes })
    }

    fn shape_of(&self, source: Source) -> Shape {
        match source {
            Source::Image => self.image,
            Source::Layer(i) => self.shapes[i],
            Source::Parameter(i) => self.parameters.shape(i),
        }
    }

    pub(super) fn note_training_mode(&mut self) {
        self.training_mode += 1;
    }

    /// Whether the convolutions have biases of which one is not named like a framework's own.
    ///
    /// A layer trained with a bias exports as `conv1.weight` and `conv1.bias`; folding gives them
    /// names such as `onnx::Conv_12` or `conv1.weight_bias`.
    fn looks_folded(&self) -> bool {
        let convolutions =
            self.layers.iter().filter(|l| matches!(&l.op, Op::Conv2d(conv) if *conv != Conv2d::LINEAR));
        let name = |source| match source {
            Source::Parameter(i) => self.parameters.name(i),
            _ => "",
        };
        let mut all_biased = true;
        let mut renamed = false;
        for layer in convolutions {
            match layer.inputs[..] {
                [_, weight, bias] => {
                    let stem = name(weight).strip_suffix(".weight");
                    renamed |= stem.is_none() || stem != name(bias).strip_suffix(".bias");
                }
                _ => all_biased = false,
            }
        }
        all_biased && renamed
    }

    fn finish(self, model: &ModelProto, output: Source) -> Walked {
        let count = |wanted: fn(&Op) -> bool| self.layers.iter().filter(|l| wanted(&l.op)).count();
        let batch_norms = count(|op| matches!(op, Op::BatchNorm(_)));
        let batch_norm = if batch_norms > 0 {
            BatchNormState::Found { layers: batch_norms, training_mode: self.training_mode }
        } else if self.looks_folded() {
            BatchNormState::Folded
        } else {
            BatchNormState::None
        };
        let notes = ImportNotes {
            batch_norm,
            opset: self.opset,
            producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
            fixed_batch: self.batch,
            notes: self.notes,
        };
        let graph = self.graph;
        let mut taken: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        taken.extend(graph.input.iter().map(|i| i.name.as_str()));
        taken.extend(graph.node.iter().flat_map(|n| &n.output).map(String::as_str));
        let bindings = self.parameters.finish(&taken, |id| match id {
            TensorId::Initializer(i) => &graph.initializer[i].name,
            TensorId::Node(i) => &graph.node[i].output[0],
        });
        let network = Network {
            input: [self.image.channels(), self.image.height(), self.image.width()],
            parameters: bindings.iter().map(|b| b.parameter.clone()).collect(),
            layers: self.layers,
            output,
        };
        Walked { network, bindings, notes }
    }
}

/// A node with its inputs looked up.
pub(super) struct Node<'a> {
    pub proto: &'a NodeProto,
    pub attributes: Attributes<'a>,
    inputs: Vec<Option<Value<'a>>>,
}

impl<'a> Node<'a> {
    /// The inputs as constants, if they all are.
    fn all_constant(&self) -> Option<Vec<Option<&Constant<'a>>>> {
        self.inputs
            .iter()
            .map(|input| match input {
                None => Some(None),
                Some(Value::Constant(constant)) => Some(Some(constant)),
                Some(_) => None,
            })
            .collect()
    }

    /// The name of its first output.
    pub(super) fn output(&self) -> &'a str {
        self.proto.output.first().map_or("", String::as_str)
    }

    pub(super) fn input_name(&self, index: usize) -> &'a str {
        self.proto.input.get(index).map_or("", String::as_str)
    }

    pub(super) fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Input `index`, if it is given.
    pub(super) fn value(&self, index: usize) -> Option<&Value<'a>> {
        self.inputs.get(index)?.as_ref()
    }

    /// Input `index`, which depends on the image.
    pub(super) fn activation(&self, index: usize) -> Step<Activation> {
        match self.value(index) {
            Some(Value::Activation(activation)) => Ok(*activation),
            Some(Value::Unknown) => Err(Fault::Unknown),
            Some(Value::Constant(c)) => unsupported(format!("its input '{}' is constant", c.name)),
            None => damaged(format!("input {index} is missing")),
        }
    }

    /// Input `index`, an N x C x H x W activation.
    pub(super) fn image(&self, index: usize) -> Step<Activation> {
        let found = self.activation(index)?;
        match found.rank() {
            4 => Ok(found),
            3 => unsupported("one-dimensional: only images are supported"),
            rank => unsupported(format!("its input has {rank} dimensions, four are expected")),
        }
    }

    /// Input `index`, a constant, if it is given.
    pub(super) fn optional(&self, index: usize) -> Step<Option<Constant<'a>>> {
        match self.value(index) {
            None => Ok(None),
            Some(Value::Constant(constant)) => Ok(Some(constant.clone())),
            Some(Value::Unknown) => Err(Fault::Unknown),
            Some(Value::Activation(_)) => {
                unsupported(format!("its input '{}' depends on the image", self.input_name(index)))
            }
        }
    }

    /// Input `index`, a constant.
    pub(super) fn constant(&self, index: usize) -> Step<Constant<'a>> {
        match self.optional(index)? {
            Some(constant) => Ok(constant),
            None => damaged(format!("input {index} is missing")),
        }
    }
}
