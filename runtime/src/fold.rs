//! A model for inference alone: BatchNorms with fixed statistics become part of the convolutions before
//! them.

use crate::model::Model;
use crate::network::{Layer, Network, Parameter, Role, Source};
use crate::ops::{FoldBatchNorm, Op, Operation, View, ViewMut};
use crate::shape::{Shape, Tensor};

impl Model {
    /// The same classifier without the BatchNorms that directly follow a convolution. It has fewer
    /// parameters and another structure than the ONNX file it came from; trained further, it has no
    /// statistics to follow.
    pub fn folded(&self) -> Self {
        let mut folding = Folding { network: self.network.clone(), values: self.values.clone(), folded: 0 };
        for layer in 0..folding.network.layers.len() {
            folding.fold(layer);
        }
        if folding.folded == 0 {
            return self.clone();
        }
        let (network, values) = folding.finish();
        Self { network, values, onnx_skeleton: Vec::new(), ..self.clone() }
    }
}

struct Folding {
    network: Network,
    values: Vec<Tensor>,
    folded: usize,
}

impl Folding {
    /// How often something is read.
    fn readers(&self, source: Source) -> usize {
        let inputs = self.network.layers.iter().flat_map(|l| &l.inputs);
        inputs.chain([&self.network.output]).filter(|&&s| s == source).count()
    }

    /// Folds the BatchNorm at `at` into the convolution that it alone reads; then nothing reads it.
    fn fold(&mut self, at: usize) {
        let layers = &self.network.layers;
        let Op::BatchNorm(norm) = layers[at].op else { return };
        let &[Source::Layer(conv), ref vectors @ ..] = layers[at].inputs.as_slice() else { return };
        let &[x, Source::Parameter(weight), ref bias @ ..] = layers[conv].inputs.as_slice() else { return };
        let alone = |s: &Source| self.readers(*s) == 1;
        let is_conv = matches!(layers[conv].op, Op::Conv2d(_));
        let own = alone(&Source::Layer(conv)) && alone(&Source::Parameter(weight)) && bias.iter().all(alone);
        if !is_conv || !own {
            return;
        }
        let parameter = |s: &Source| match *s {
            Source::Parameter(p) => Some(p),
            Source::Image | Source::Layer(_) => None,
        };
        let operands = [Source::Parameter(weight)];
        let operands: Option<Vec<usize>> =
            operands.iter().chain(vectors).chain(bias).map(parameter).collect();
        let Some(operands) = operands else { return };

        let channels = Shape::vector(self.network.parameters[weight].shape.channels());
        let mut new_weight = Tensor::zeros(self.network.parameters[weight].shape);
        let mut new_bias = Tensor::zeros(channels);
        let views: Vec<View<'_>> = operands.iter().map(|&p| view(&self.values[p])).collect();
        let mut outputs =
            [&mut new_weight, &mut new_bias].map(|t| ViewMut { shape: t.shape, data: t.data.as_mut_slice() });
        FoldBatchNorm { epsilon: norm.epsilon }.run(&views, &mut outputs);

        let bias = match bias.first().and_then(parameter) {
            Some(bias) => bias,
            None => {
                let name = &self.network.parameters[weight].name;
                let mut name = format!("{}.bias", name.strip_suffix(".weight").unwrap_or(name));
                while self.network.parameters.iter().any(|p| p.name == name) {
                    name += "_folded";
                }
                self.network.parameters.push(Parameter { name, shape: channels, role: Role::Bias });
                self.values.push(Tensor::zeros(channels));
                self.values.len() - 1
            }
        };
        self.values[weight] = new_weight;
        self.values[bias] = new_bias;
        self.network.layers[conv].inputs = vec![x, Source::Parameter(weight), Source::Parameter(bias)];
        let inputs = self.network.layers.iter_mut().flat_map(|l| &mut l.inputs);
        for source in inputs.chain([&mut self.network.output]).filter(|s| **s == Source::Layer(at)) {
            *source = Source::Layer(conv);
        }
        self.folded += 1;
    }

    /// What is left when layers and parameters that nothing reads are gone.
    fn finish(self) -> (Network, Vec<Tensor>) {
        let unread = |layer: usize| {
            matches!(self.network.layers[layer].op, Op::BatchNorm(_))
                && self.readers(Source::Layer(layer)) == 0
        };
        let kept: Vec<usize> = (0..self.network.layers.len()).filter(|&l| !unread(l)).collect();
        let is_read =
            |p: usize| kept.iter().any(|&l| self.network.layers[l].inputs.contains(&Source::Parameter(p)));
        let parameters: Vec<usize> = (0..self.values.len()).filter(|&p| is_read(p)).collect();
        let renumbered = |source: &Source| match *source {
            Source::Image => Source::Image,
            Source::Layer(l) => Source::Layer(kept.partition_point(|&k| k < l)),
            Source::Parameter(p) => Source::Parameter(parameters.partition_point(|&k| k < p)),
        };
        let layer = |&l: &usize| {
            let layer = &self.network.layers[l];
            Layer { inputs: layer.inputs.iter().map(renumbered).collect(), ..layer.clone() }
        };
        let network = Network {
            input: self.network.input,
            parameters: parameters.iter().map(|&p| self.network.parameters[p].clone()).collect(),
            layers: kept.iter().map(layer).collect(),
            output: renumbered(&self.network.output),
        };
        (network, parameters.iter().map(|&p| self.values[p].clone()).collect())
    }
}

fn view(tensor: &Tensor) -> View<'_> {
    View { shape: tensor.shape, data: &tensor.data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::Architecture;
    use crate::device::Device;
    use crate::random::{Purpose, Stream};
    use crate::session::{Images, Session};

    /// A model whose BatchNorms do something.
    fn model(arch: &str) -> Model {
        let mut model = Architecture::build(arch, [3, 16, 20], 10, 1).expect("it is known");
        let stream = Stream::new(1, Purpose::Probe, 0, 0);
        for (row, (values, parameter)) in model.values.iter_mut().zip(&model.network.parameters).enumerate() {
            if !matches!(parameter.role, Role::Weight | Role::Bias) {
                for (i, value) in values.data.iter_mut().enumerate() {
                    *value = 0.5 + stream.uniform(row as u32, i as u32);
                }
            }
        }
        model
    }

    fn logits(model: &Model) -> Vec<f32> {
        let mut session = Session::new(Device::cpu(), model, 2).expect("it fits");
        let stream = Stream::new(2, Purpose::Probe, 0, 0);
        let len = model.network.image_shape(2).len() as u32;
        let images: Vec<f32> = (0..len).map(|i| stream.uniform(0, i)).collect();
        session.load(&images, &[0, 1], &[0, 1]).expect("they fit");
        session.logits(2, Images::Clean).expect("it runs")
    }

    #[test]
    fn a_folded_model_gives_the_same_logits() {
        for (arch, norms_left) in [("resnet20", 0), ("resnet18", 0), ("preact-resnet18", 9), ("mnist-cnn", 0)]
        {
            let model = if arch == "mnist-cnn" {
                Architecture::build(arch, [1, 28, 28], 10, 1).expect("it is known")
            } else {
                model(arch)
            };
            let folded = model.folded();
            folded.network.verify(&folded.values).expect(arch);
            let norms = folded.network.layers.iter().filter(|l| matches!(l.op, Op::BatchNorm(_))).count();
            assert_eq!(norms, norms_left, "{arch}");
            let (expected, found) = (logits(&model), logits(&folded));
            let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            for (e, f) in expected.iter().zip(&found) {
                assert!((e - f).abs() <= 1e-4 * largest, "{arch}: {e} and {f}");
            }
            assert_eq!(folded.folded(), folded, "{arch}: nothing is left to fold");
        }
    }
}
