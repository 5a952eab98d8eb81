//! A new ONNX file from the layers of a network.

use std::collections::{HashMap, HashSet};

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

use crate::error::{Error, Result};
use crate::import::{Layout, bytes_of};
use crate::network::{Layer, Network, Role, Source};
use crate::ops::{Conv2d, Op, Window};
use crate::package::{Precision, Quantized, encode_f16};
use crate::shape::{Shape, Tensor};

/// IR version 8 goes with operator set 17.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// Writes a network as ONNX: input `input` (batch x C x H x W), output `logits` (batch x classes).
///
/// Weights are stored in `precision`, and a node behind each makes f32 of it: `Cast` of halves, `DequantizeLinear`
/// of eight bits with a scale for each output channel. The numbers that come out are those of a package.
pub(super) fn generate(network: &Network, values: &[Tensor], precision: Precision) -> Result<Vec<u8>> {
    let shapes = network.layer_shapes(1)?;
    let classes = network.classes()?;
    let mut writer = Writer::new(network, values, &shapes, precision);
    for index in 0..network.layers.len() {
        writer.layer(index)?;
    }
    writer.logits();
    if let Some(message) = writer.fault {
        return Err(Error::Config(message));
    }
    let [c, h, w] = network.input;
    let graph = GraphProto {
        name: "adamant".into(),
        node: writer.nodes,
        initializer: writer.initializers,
        input: vec![value_info("input", &[c, h, w])],
        output: vec![value_info("logits", &[classes])],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: "adamant".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        ..ModelProto::default()
    };
    Ok(model.encode_to_vec())
}

/// A parameter as PyTorch's `state_dict` and ONNX have it.
pub(super) struct Stored {
    pub name: String,
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
    pub role: Role,
}

/// The parameters of a network in the dimensions that [`generate`] gives them.
pub(super) fn parameters(network: &Network, values: &[Tensor]) -> Result<Vec<Stored>> {
    let shapes = network.layer_shapes(1)?;
    let mut writer = Writer::new(network, values, &shapes, Precision::F32);
    for index in 0..network.layers.len() {
        writer.layer(index)?;
    }
    let found = network.parameters.iter().filter_map(|parameter| {
        let stored = writer.initializers.iter().find(|t| t.name == parameter.name)?;
        Some(Stored {
            name: parameter.name.clone(),
            dims: stored.dims.iter().map(|&d| d as usize).collect(),
            values: stored.raw_data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            role: parameter.role,
        })
    });
    Ok(found.collect())
}

/// A float input or output with a dynamic batch.
fn value_info(name: &str, dims: &[usize]) -> ValueInfoProto {
    let dimension = |value| Dimension { value: Some(value), ..Dimension::default() };
    let mut dim = vec![dimension(dimension::Value::DimParam("batch".into()))];
    dim.extend(dims.iter().map(|&d| dimension(dimension::Value::DimValue(d as i64))));
    let tensor =
        type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim }) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind as i32, ..AttributeProto::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i, ..attribute(name, AttributeType::Int) }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f, ..attribute(name, AttributeType::Float) }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&v| v as i64).collect();
    AttributeProto { ints, ..attribute(name, AttributeType::Ints) }
}

/// An initialiser.
fn tensor(name: &str, dims: &[usize], data_type: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: data_type as i32,
        raw_data,
        ..TensorProto::default()
    }
}

/// An ONNX value.
#[derive(Clone)]
struct Written {
    name: String,
    /// Whether it is batch x channels, and not batch x channels x height x width.
    flat: bool,
}

struct Writer<'a> {
    precision: Precision,
    /// The first weight that the precision cannot hold.
    fault: Option<String>,
    network: &'a Network,
    values: &'a [Tensor],
    shapes: &'a [Shape],
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// The output of each layer so far.
    outputs: Vec<Written>,
    /// Names that are taken.
    names: HashSet<String>,
    /// The initialiser of a parameter under certain dimensions.
    stored: HashMap<(usize, Vec<usize>), String>,
}

impl<'a> Writer<'a> {
    fn new(network: &'a Network, values: &'a [Tensor], shapes: &'a [Shape], precision: Precision) -> Self {
        let names = ["input", "logits"].map(str::to_owned).into_iter();
        Self {
            precision,
            fault: None,
            network,
            values,
            shapes,
            nodes: Vec::new(),
            initializers: Vec::new(),
            outputs: Vec::new(),
            names: names.chain(network.parameters.iter().map(|p| p.name.clone())).collect(),
            stored: HashMap::new(),
        }
    }

    /// `base`, or `base` with a number when that name is taken.
    fn unique(&mut self, base: &str) -> String {
        let numbered = (2u64..).map(|n| format!("{base}_{n}"));
        let mut candidates = std::iter::once(base.to_owned()).chain(numbered);
        candidates.find(|name| self.names.insert(name.clone())).expect("numbers do not run out")
    }

    fn shape_of(&self, source: Source) -> Shape {
        match source {
            Source::Image => {
                let [c, h, w] = self.network.input;
                Shape([1, h, w, c])
            }
            Source::Layer(i) => self.shapes[i],
            Source::Parameter(i) => self.network.parameters[i].shape,
        }
    }

    fn written(&self, source: Source) -> Written {
        match source {
            Source::Layer(i) => self.outputs[i].clone(),
            _ => Written { name: "input".into(), flat: false },
        }
    }

    /// Adds a node and returns the name of its output, which is the node's own.
    fn node(
        &mut self,
        op_type: &str,
        name: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let name = self.unique(name);
        self.nodes.push(NodeProto {
            op_type: op_type.into(),
            name: name.clone(),
            input,
            output: vec![name.clone()],
            attribute,
            ..NodeProto::default()
        });
        name
    }

    fn integers(&mut self, name: &str, values: &[usize]) -> String {
        let name = self.unique(name);
        let raw = values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect();
        self.initializers.push(tensor(&name, &[values.len()], DataType::Int64, raw));
        name
    }

    fn number(&mut self, name: &str, value: f32) -> String {
        let name = self.unique(name);
        self.initializers.push(tensor(&name, &[], DataType::Float, bytes_of(&[value])));
        name
    }

    /// The initialiser of a parameter, written once however many layers read it.
    fn parameter(&mut self, source: Source, dims: &[usize], layout: Layout) -> String {
        let Source::Parameter(index) = source else { unreachable!("verified: weights are parameters") };
        let network = self.network;
        if let Some(name) = self.stored.get(&(index, dims.to_vec())) {
            return name.clone();
        }
        let own = &network.parameters[index].name;
        let first = self.stored.keys().all(|(i, _)| *i != index);
        let name = if first { own.clone() } else { self.unique(own) };
        let value = &self.values[index];
        let stored = match (network.parameters[index].role, self.precision) {
            (Role::Weight, Precision::F16) => self.halves(&name, dims, &layout.write(value)),
            (Role::Weight, Precision::Int8) => self.quantized(&name, dims, layout, value),
            _ => {
                self.initializers.push(tensor(&name, dims, DataType::Float, bytes_of(&layout.write(value))));
                Ok(())
            }
        };
        if let Err(message) = stored {
            self.fault.get_or_insert(format!("tensor '{own}' {message}"));
        }
        self.stored.insert((index, dims.to_vec()), name.clone());
        name
    }

    /// An initialiser of halves and the node that makes `name` of it.
    fn halves(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Result<(), String> {
        let half = self.unique(&format!("{name}.f16"));
        self.initializers.push(tensor(&half, dims, DataType::Float16, encode_f16(values)?));
        self.stored_node("Cast", name, vec![half], int("to", DataType::Float as i64));
        Ok(())
    }

    /// Initialisers of eight bits, scales and zeros, and the node that makes `name` of them.
    fn quantized(
        &mut self,
        name: &str,
        dims: &[usize],
        layout: Layout,
        value: &Tensor,
    ) -> Result<(), String> {
        let channels = value.shape.channels();
        let Quantized { scales, numbers } = Quantized::new(channels, &value.data)?;
        // The layout moves floats, which hold such numbers exactly.
        let numbers = Tensor::new(value.shape, numbers.into_iter().map(f32::from).collect());
        let numbers = layout.write(&numbers).into_iter().map(|q| q as i8 as u8).collect();
        let [quantized, scale, zero] =
            ["quantized", "scale", "zero_point"].map(|part| self.unique(&format!("{name}.{part}")));
        self.initializers.push(tensor(&quantized, dims, DataType::Int8, numbers));
        self.initializers.push(tensor(&scale, &[channels], DataType::Float, bytes_of(&scales)));
        self.initializers.push(tensor(&zero, &[channels], DataType::Int8, vec![0; channels]));
        // Output channels come first in the weights of ONNX's Conv and of a transposed Gemm.
        self.stored_node("DequantizeLinear", name, vec![quantized, scale, zero], int("axis", 0));
        Ok(())
    }

    /// A node whose output has a parameter's name.
    fn stored_node(&mut self, op_type: &str, name: &str, input: Vec<String>, attribute: AttributeProto) {
        self.nodes.push(NodeProto {
            op_type: op_type.into(),
            name: name.into(),
            input,
            output: vec![name.into()],
            attribute: vec![attribute],
            ..NodeProto::default()
        });
    }

    fn vector(&mut self, source: Source) -> String {
        let channels = self.shape_of(source).channels();
        self.parameter(source, &[channels], Layout::VECTOR)
    }

    /// `x` as batch x channels.
    fn flattened(&mut self, x: Written) -> Written {
        if x.flat {
            return x;
        }
        let name = self.node("Flatten", &format!("{}.flatten", x.name), vec![x.name], vec![int("axis", 1)]);
        Written { name, flat: true }
    }

    fn layer(&mut self, index: usize) -> Result<()> {
        let network = self.network;
        let Layer { name, op, inputs } = &network.layers[index];
        let x = self.written(inputs[0]);
        let fault =
            |what: &str| Error::Shape { node: name.clone(), message: format!("{what} has no ONNX form") };
        let one = |x: &Written| vec![x.name.clone()];
        let output = match op {
            Op::Conv2d(conv) if *conv == Conv2d::LINEAR && self.is_linear(inputs) => {
                self.linear(name, inputs, x)
            }
            Op::BatchNorm(norm) => {
                let mut read = one(&x);
                read.extend(inputs[1..].iter().map(|&p| self.vector(p)));
                let attributes = vec![float("epsilon", norm.epsilon), float("momentum", 1.0 - norm.momentum)];
                Written { name: self.node("BatchNormalization", name, read, attributes), flat: x.flat }
            }
            Op::Relu(relu) if relu.max == f32::INFINITY => {
                Written { name: self.node("Relu", name, one(&x), vec![]), flat: x.flat }
            }
            Op::Relu(relu) => {
                let min = self.number(&format!("{name}.min"), 0.0);
                let max = self.number(&format!("{name}.max"), relu.max);
                Written { name: self.node("Clip", name, vec![x.name, min, max], vec![]), flat: x.flat }
            }
            Op::Add(_) => {
                let y = self.written(inputs[1]);
                let (x, y) = if x.flat == y.flat { (x, y) } else { (self.flattened(x), self.flattened(y)) };
                Written { name: self.node("Add", name, vec![x.name, y.name], vec![]), flat: x.flat }
            }
            Op::ChannelAffine(_) => self.affine(name, inputs, x),
            Op::Flatten(_) => {
                Written { name: self.node("Flatten", name, one(&x), vec![int("axis", 1)]), flat: true }
            }
            Op::Pad(pad) => {
                if pad.interior != [0; 3] {
                    return Err(fault("padding between neighbours"));
                }
                let amounts = [pad.before, pad.after].map(|a| self.by_axis(x.flat, a));
                // The batch is the first axis of either half.
                let pads: Vec<usize> = amounts.into_iter().flat_map(|a| [vec![0], a].concat()).collect();
                let pads = self.integers(&format!("{name}.pads"), &pads);
                let value = self.number(&format!("{name}.value"), pad.value);
                Written { name: self.node("Pad", name, vec![x.name, pads, value], vec![]), flat: x.flat }
            }
            Op::Slice(slice) => {
                let end: [usize; 3] =
                    std::array::from_fn(|i| slice.start[i] + (slice.len[i] - 1) * slice.step[i] + 1);
                let mut read = one(&x);
                let axes: Vec<usize> = if x.flat { vec![1] } else { vec![1, 2, 3] };
                for (what, values) in [
                    ("starts", self.by_axis(x.flat, slice.start)),
                    ("ends", self.by_axis(x.flat, end)),
                    ("axes", axes),
                    ("steps", self.by_axis(x.flat, slice.step)),
                ] {
                    read.push(self.integers(&format!("{name}.{what}"), &values));
                }
                Written { name: self.node("Slice", name, read, vec![]), flat: x.flat }
            }
            _ if x.flat => return Err(fault(&format!("{} after flattening", op.name()))),
            Op::Conv2d(conv) => self.convolution(name, inputs, x, conv),
            Op::MaxPool(pool) => {
                let attributes = window(&pool.window, true);
                Written { name: self.node("MaxPool", name, one(&x), attributes), flat: false }
            }
            Op::AvgPool(pool) => {
                let Shape([_, h, w, _]) = self.shape_of(inputs[0]);
                // Operator set 17 has no dilated averages.
                if pool.window.dilation != [1, 1] {
                    return Err(fault("a dilated average"));
                }
                let node = if pool.window == Window::global(h, w) {
                    self.node("GlobalAveragePool", name, one(&x), vec![])
                } else {
                    let mut attributes = window(&pool.window, false);
                    attributes.push(int("count_include_pad", i64::from(pool.count_include_pad)));
                    self.node("AveragePool", name, one(&x), attributes)
                };
                Written { name: node, flat: false }
            }
            _ => return Err(fault(op.name())),
        };
        self.outputs.push(output);
        Ok(())
    }

    /// Height, width, channels in the order of ONNX's axes after the batch.
    fn by_axis(&self, flat: bool, [h, w, c]: [usize; 3]) -> Vec<usize> {
        if flat { vec![c] } else { vec![c, h, w] }
    }

    /// Whether a convolution is a linear layer: one weight a pair of channels on a single pixel.
    fn is_linear(&self, inputs: &[Source]) -> bool {
        let single = |s: Shape, axes: [usize; 2]| axes.iter().all(|&a| s.0[a] == 1);
        single(self.shape_of(inputs[0]), [1, 2]) && single(self.shape_of(inputs[1]), [0, 1])
    }

    fn linear(&mut self, name: &str, inputs: &[Source], x: Written) -> Written {
        let x = self.flattened(x);
        let [_, _, k, m] = self.shape_of(inputs[1]).0;
        let layout = Layout::Linear { transposed: true, factor: 1.0 };
        let mut read = vec![x.name, self.parameter(inputs[1], &[m, k], layout)];
        read.extend(inputs[2..].iter().map(|&bias| self.vector(bias)));
        Written { name: self.node("Gemm", name, read, vec![int("transB", 1)]), flat: true }
    }

    fn convolution(&mut self, name: &str, inputs: &[Source], x: Written, conv: &Conv2d) -> Written {
        let [h, w, i, o] = self.shape_of(inputs[1]).0;
        let mut read = vec![x.name, self.parameter(inputs[1], &[o, i, h, w], Layout::Convolution)];
        read.extend(inputs[2..].iter().map(|&bias| self.vector(bias)));
        let attributes = vec![
            ints("kernel_shape", &[h, w]),
            ints("strides", &conv.stride),
            ints("pads", &conv.pads),
            ints("dilations", &conv.dilation),
            int("group", conv.groups as i64),
        ];
        Written { name: self.node("Conv", name, read, attributes), flat: false }
    }

    fn affine(&mut self, name: &str, inputs: &[Source], x: Written) -> Written {
        let channels = self.shape_of(inputs[0]).channels();
        let dims = if x.flat { vec![1, channels] } else { vec![1, channels, 1, 1] };
        let scale = self.parameter(inputs[1], &dims, Layout::VECTOR);
        let shift = self.parameter(inputs[2], &dims, Layout::VECTOR);
        let scaled = self.node("Mul", &format!("{name}.scaled"), vec![x.name, scale], vec![]);
        Written { name: self.node("Add", name, vec![scaled, shift], vec![]), flat: x.flat }
    }

    /// Makes the network's output the graph's output `logits`.
    fn logits(&mut self) {
        let output = self.written(self.network.output);
        let last = self.flattened(output).name;
        for node in &mut self.nodes {
            for name in node.output.iter_mut().chain(&mut node.input).filter(|n| **n == last) {
                "logits".clone_into(name);
            }
        }
    }
}

fn window(window: &Window, dilated: bool) -> Vec<AttributeProto> {
    let mut attributes = vec![
        ints("kernel_shape", &window.kernel),
        ints("strides", &window.stride),
        ints("pads", &window.pads),
        int("ceil_mode", i64::from(window.ceil)),
    ];
    if dilated {
        attributes.push(ints("dilations", &window.dilation));
    }
    attributes
}
