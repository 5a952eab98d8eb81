//! Weights as inference holds them: as compact on a device as a package stores them (convolutions read f16 or bytes,
//! and widen them as they go), and once, also where the CPU executor reads them in another order.

use crate::error::{Error, Result};
use crate::graph::{Graph, Storage, Variable};
use crate::model::Model;
use crate::network::{Layer, Network, Role, Source};
use crate::ops::{CompactConv2d, FusedConv2d, Op, WeightFormat};
use crate::package::Precision;
use crate::shape::Shape;

/// How a session holds its parameters, by position.
pub(crate) struct Compact {
    formats: Vec<WeightFormat>,
    /// Whether a convolution reads the parameter as its weight, and nothing else reads it: not even the host.
    weights: Vec<bool>,
}

impl Compact {
    /// All in full, for whoever reads them.
    pub fn none(network: &Network) -> Self {
        let count = network.parameters.len();
        Self { formats: vec![WeightFormat::F32; count], weights: vec![false; count] }
    }

    /// The weights that `precision` stores compact, where convolutions alone read them: a BatchNorm after one
    /// would be folded into them.
    pub fn of(model: &Model, precision: Precision) -> Self {
        let network = &model.network;
        let format = match precision {
            Precision::F32 => WeightFormat::F32,
            Precision::F16 => WeightFormat::F16,
            Precision::Int8 => WeightFormat::Int8,
        };
        let is_folded = !network.layers.iter().any(|layer| matches!(layer.op, Op::BatchNorm(_)));
        // How many convolutions read a parameter, where they alone do so, and as their weight.
        let readers = |parameter: usize| {
            let reads = |s: &Source| *s == Source::Parameter(parameter);
            let readers = network.layers.iter().filter(|layer| layer.inputs.iter().any(reads));
            let as_weight = |layer: &Layer| {
                let mut others = layer.inputs.iter().enumerate().filter(|&(i, _)| i != 1);
                matches!(layer.op, Op::Conv2d(_)) && !others.any(|(_, s)| reads(s))
            };
            let is_weight = network.parameters[parameter].role == Role::Weight;
            let alone = is_folded && is_weight && readers.clone().all(as_weight);
            alone.then(|| readers.count())
        };
        let readers: Vec<Option<usize>> = (0..network.parameters.len()).map(readers).collect();
        let format_of = |readers: &Option<usize>| readers.map_or(WeightFormat::F32, |_| format);
        Self {
            formats: readers.iter().map(format_of).collect(),
            weights: readers.iter().map(|&readers| readers == Some(1)).collect(),
        }
    }

    /// Whether programs alone read a parameter, each once and in the same way.
    pub fn is_shared(&self, parameter: usize) -> bool {
        self.weights[parameter]
    }

    /// What a variable for a parameter holds.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that the format cannot hold.
    pub fn words(&self, parameter: usize, shape: Shape, data: &[f32]) -> Result<Vec<f32>> {
        let precision = match self.formats[parameter] {
            WeightFormat::F32 => return Ok(data.to_vec()),
            WeightFormat::F16 => Precision::F16,
            WeightFormat::Int8 => Precision::Int8,
        };
        let mut bytes = precision
            .encode(shape, data)
            .map_err(|message| Error::Config(format!("parameter {parameter} {message}")))?
            .into_owned();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Ok(bytes.as_chunks().0.iter().map(|&b| f32::from_bits(u32::from_le_bytes(b))).collect())
    }

    /// What stands for the variable of a parameter in a graph, as if it held f32, until [`Compact::apply`].
    pub fn stand_in(&self, parameter: usize, variable: Variable, shape: Shape) -> Variable {
        match self.formats[parameter] {
            WeightFormat::F32 => variable,
            WeightFormat::F16 | WeightFormat::Int8 => Variable { len: shape.len(), ..variable },
        }
    }

    /// Lets the convolutions of a graph read the compact and the shared weights among `parameters`.
    ///
    /// # Errors
    /// [`Error::Config`] where something else reads one: a gradient, say.
    pub fn apply(&self, mut graph: Graph, parameters: &[Variable]) -> Result<Graph> {
        let find = |graph: &Graph, value: crate::graph::ValueId| {
            let Storage::Variable(variable) = graph.values[value.index()].storage else { return None };
            let at = parameters.iter().position(|p| p.id == variable.id)?;
            let special = self.weights[at] || self.formats[at] != WeightFormat::F32;
            special.then(|| (self.formats[at], parameters[at]))
        };
        for i in 0..graph.nodes.len() {
            let node = &graph.nodes[i];
            let compact: Vec<usize> =
                (0..node.inputs.len()).filter(|&k| find(&graph, node.inputs[k]).is_some()).collect();
            let conv = match (&node.op, compact.as_slice()) {
                (_, []) => continue,
                (Op::Conv2d(conv), [1]) => FusedConv2d::plain(*conv, node.inputs.len() == 3),
                (Op::FusedConv2d(conv), [1]) => *conv,
                (op, _) => {
                    return Err(Error::Config(format!(
                        "{} needs weights in full, and they are held for inference alone",
                        op.name()
                    )));
                }
            };
            let (format, variable) = find(&graph, node.inputs[1]).expect("it was just found");
            if format == WeightFormat::F32 {
                continue;
            }
            let weight = graph.shape(node.inputs[1]);
            let words = graph.variable(variable, Shape::vector(format.words(weight)));
            graph.nodes[i].op = Op::CompactConv2d(CompactConv2d { conv, weight, format });
            graph.nodes[i].inputs[1] = words;
        }
        Ok(graph)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::Architecture;
    use crate::device::Device;
    use crate::loss::Loss;
    use crate::session::{Images, Session};

    const COUNT: usize = 3;

    fn model() -> Model {
        let mut model = Architecture::build("resnet8", [3, 9, 7], 5, 3).expect("it is known");
        // Running statistics that do something, then gone.
        for (i, value) in model.values.iter_mut().enumerate() {
            value.data.iter_mut().enumerate().for_each(|(k, v)| *v += 0.01 * ((i * 7 + k) % 11) as f32);
        }
        model.folded()
    }

    fn logits(session: &mut Session) -> Vec<f32> {
        let images: Vec<f32> = (0..COUNT * 3 * 9 * 7).map(|i| (i % 97) as f32 / 96.0).collect();
        session.load(&images, &[0; COUNT], &[0; COUNT]).expect("it fits");
        session.logits(COUNT, Images::Clean).expect("it runs")
    }

    /// The model as a package of that precision gives it.
    fn packed(precision: Precision) -> Model {
        let mut model = model();
        for (value, parameter) in model.values.iter_mut().zip(&model.network.parameters) {
            if parameter.role == Role::Weight {
                let bytes = precision.encode(value.shape, &value.data).expect("it fits");
                value.data = precision.decode(value.shape, &bytes).expect("it was just written");
            }
        }
        model
    }

    /// Bytes of the weights of a model in full.
    fn weights(model: &Model) -> f64 {
        let of = model.network.parameters.iter().filter(|p| p.role == Role::Weight);
        of.map(|p| p.shape.len() as f64 * 4.0).sum()
    }

    #[test]
    fn weights_of_inference_give_the_bits_of_others_and_are_there_once() {
        for (precision, part) in [(Precision::F32, 1.0), (Precision::F16, 0.51), (Precision::Int8, 0.28)] {
            let model = packed(precision);
            let mut full = Session::new(Device::cpu(), &model, COUNT).expect("it fits");
            let mut compact = Session::inference(Device::cpu(), &model, COUNT, precision).expect("it fits");
            assert_eq!(logits(&mut compact), logits(&mut full), "{precision:?}");
            // There: once as they came, once rearranged. Here: once, five classes in the tile of up to 32.
            let saved = full.device().allocated_bytes() as f64 - compact.device().allocated_bytes() as f64;
            let least = (2.0 - part) * weights(&model) - 64.0 * 27.0 * 4.0;
            assert!(saved >= least, "{precision:?}: {saved} bytes saved, not {least}");
        }
    }

    #[test]
    fn all_programs_share_the_weights_and_hear_of_their_change() {
        let model = packed(Precision::F32);
        let session =
            |model: &Model| Session::inference(Device::cpu(), model, COUNT, Precision::F32).expect("it fits");
        let images: Vec<f32> = (0..COUNT * 3 * 9 * 7).map(|i| (i % 97) as f32 / 96.0).collect();
        let first = |session: &mut Session| {
            session.load(&images[..3 * 9 * 7], &[0], &[0]).expect("it fits");
            session.logits(1, Images::Clean).expect("it runs")
        };
        let mut one = session(&model);
        let (all, bytes) = (logits(&mut one), one.device().allocated_bytes());
        assert_eq!(first(&mut one), all[..5]);
        let more = (one.device().allocated_bytes() - bytes) as f64;
        assert!(more < 0.1 * weights(&model), "{more} bytes for another batch size");
        let mut halved = model;
        halved.values.iter_mut().flat_map(|t| &mut t.data).for_each(|w| *w *= 0.5);
        let expected = logits(&mut session(&halved));
        assert_ne!(expected, all);
        one.write_parameters(&halved.values).expect("they fit");
        assert_eq!(first(&mut one), expected[..5]);
        assert_eq!(logits(&mut one), expected);
    }

    #[test]
    fn a_weight_that_two_convolutions_read_serves_both() {
        let mut model = packed(Precision::F32);
        // Two convolutions of one shape: the second reads what the first reads.
        let of = |layer: &Layer| match (&layer.op, layer.inputs.as_slice()) {
            (Op::Conv2d(_), &[_, Source::Parameter(weight), ..]) => Some(weight),
            _ => None,
        };
        let network = &mut model.network;
        let convs: Vec<(usize, usize)> =
            network.layers.iter().enumerate().filter_map(|(i, l)| Some((i, of(l)?))).collect();
        let shape = |weight: usize| network.parameters[weight].shape;
        let (a, b) = (0..convs.len() - 1)
            .map(|i| (convs[i], convs[i + 1]))
            .find(|(a, b)| shape(a.1) == shape(b.1))
            .expect("a block of a ResNet has such");
        network.layers[b.0].inputs[1] = Source::Parameter(a.1);
        model.values[b.1].data.fill(9.0);
        let mut full = Session::new(Device::cpu(), &model, COUNT).expect("it fits");
        let mut shared = Session::inference(Device::cpu(), &model, COUNT, Precision::F32).expect("it fits");
        let expected = logits(&mut full);
        assert_eq!(logits(&mut shared), expected);
        assert_eq!(logits(&mut shared), expected);
    }

    #[test]
    fn what_needs_weights_in_full_says_so() {
        for precision in [Precision::F32, Precision::Int8] {
            let model = packed(precision);
            let mut session = Session::inference(Device::cpu(), &model, COUNT, precision).expect("it fits");
            logits(&mut session);
            let fault = session.gradient(COUNT, Loss::CrossEntropy).expect_err("it has no gradient");
            assert!(fault.to_string().contains("inference alone"), "{fault}");
        }
    }

    /// What is folded is no longer of few bits, and so in full; but once.
    #[test]
    fn batch_norms_are_folded_once_and_for_all() {
        let model = Architecture::build("resnet8", [3, 9, 7], 5, 3).expect("it is known");
        let mut full = Session::new(Device::cpu(), &model, COUNT).expect("it fits");
        let mut folded = Session::inference(Device::cpu(), &model, COUNT, Precision::F16).expect("it fits");
        assert_eq!(logits(&mut folded), logits(&mut full));
        let saved = full.device().allocated_bytes() as f64 - folded.device().allocated_bytes() as f64;
        assert!(saved >= 0.95 * weights(&model), "{saved} bytes saved of {}", weights(&model));
    }
}
