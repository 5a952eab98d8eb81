//! Weights that stay as compact on a device as a package stores them, for inference: convolutions read f16 or
//! bytes, and widen them as they go.

use crate::error::{Error, Result};
use crate::graph::{Graph, Storage, Variable};
use crate::model::Model;
use crate::network::{Network, Source};
use crate::ops::{CompactConv2d, FusedConv2d, Op, WeightFormat};
use crate::package::Precision;
use crate::shape::Shape;

/// Which parameters are compact, by position.
pub(crate) struct Compact {
    formats: Vec<WeightFormat>,
}

impl Compact {
    /// No parameter.
    pub fn none(network: &Network) -> Self {
        Self { formats: vec![WeightFormat::F32; network.parameters.len()] }
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
        let format_of = |parameter: usize| {
            let reads = |s: &Source| *s == Source::Parameter(parameter);
            let mut readers = network.layers.iter().filter(|layer| layer.inputs.iter().any(reads));
            let as_weight = readers.all(|layer| {
                let others = layer.inputs.iter().enumerate().filter(|&(i, _)| i != 1);
                matches!(layer.op, Op::Conv2d(_)) && !others.into_iter().any(|(_, s)| reads(s))
            });
            let is_weight = network.parameters[parameter].role == crate::network::Role::Weight;
            if is_folded && is_weight && as_weight { format } else { WeightFormat::F32 }
        };
        Self { formats: (0..network.parameters.len()).map(format_of).collect() }
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
            .map_err(|message| Error::Config(format!("parameter {parameter} {message}")))?;
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

    /// Lets the convolutions of a graph read the compact weights among `parameters`.
    ///
    /// # Errors
    /// [`Error::Config`] where something else reads one: a gradient, say.
    pub fn apply(&self, mut graph: Graph, parameters: &[Variable]) -> Result<Graph> {
        let find = |graph: &Graph, value: crate::graph::ValueId| {
            let Storage::Variable(variable) = graph.values[value.index()].storage else { return None };
            let at = parameters.iter().position(|p| p.id == variable.id)?;
            (self.formats[at] != WeightFormat::F32).then(|| (self.formats[at], parameters[at]))
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
                        "{} needs weights in full, and they are held compact, for inference alone",
                        op.name()
                    )));
                }
            };
            let (format, variable) = find(&graph, node.inputs[1]).expect("it was just found");
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
            if parameter.role == crate::network::Role::Weight {
                let bytes = precision.encode(value.shape, &value.data).expect("it fits");
                value.data = precision.decode(value.shape, &bytes).expect("it was just written");
            }
        }
        model
    }

    #[test]
    fn compact_weights_give_the_bits_of_widened_ones_and_take_a_part_of_the_memory() {
        let weights = |m: &Model| {
            let of = m.network.parameters.iter().filter(|p| p.role == crate::network::Role::Weight);
            of.map(|p| p.shape.len() as u64 * 4).sum::<u64>()
        };
        for (precision, part) in [(Precision::F16, 0.51), (Precision::Int8, 0.28)] {
            let model = packed(precision);
            let mut full = Session::new(Device::cpu(), &model, COUNT).expect("it fits");
            let mut compact = Session::inference(Device::cpu(), &model, COUNT, precision).expect("it fits");
            assert_eq!(logits(&mut compact), logits(&mut full), "{precision:?}");
            // Once as they came, once rearranged.
            let saved = full.device().allocated_bytes() - compact.device().allocated_bytes();
            let least = 2.0 * (1.0 - part) * weights(&model) as f64;
            assert!(saved as f64 >= least, "{precision:?}: {saved} bytes saved, not {least}");
        }
    }

    #[test]
    fn what_needs_weights_in_full_says_so() {
        let model = packed(Precision::Int8);
        let mut session = Session::inference(Device::cpu(), &model, COUNT, Precision::Int8).expect("it fits");
        logits(&mut session);
        let fault = session.gradient(COUNT, Loss::CrossEntropy).expect_err("it has no gradient");
        assert!(fault.to_string().contains("inference alone"), "{fault}");
    }

    #[test]
    fn a_model_with_batch_norms_stays_in_full() {
        let model = Architecture::build("resnet8", [3, 9, 7], 5, 3).expect("it is known");
        let mut full = Session::new(Device::cpu(), &model, COUNT).expect("it fits");
        let mut same = Session::inference(Device::cpu(), &model, COUNT, Precision::F16).expect("it fits");
        assert_eq!(logits(&mut same), logits(&mut full));
        assert_eq!(same.device().allocated_bytes(), full.device().allocated_bytes());
    }
}
