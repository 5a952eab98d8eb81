//! Makes a graph cheaper without changing what it computes: fewer passes over the activations.
//!
//! - A BatchNorm with fixed statistics is folded into the convolution before it, and its gradient into
//!   the gradient of that convolution.
//! - The input gradient of a convolution of stride 1 becomes a convolution, with the weight turned.
//! - Slices one after the other are one slice, and so are paddings.
//! - Bias, residual and activation (or the mask of its gradient) are applied where a convolution stores, residual and
//!   activation where a BatchNorm does that is left.
//!
//! Attacks take almost all of their time in graphs where all of this applies.

use std::collections::HashMap;

use crate::graph::{Graph, Node, Storage, Value, ValueId};
use crate::ops::{
    Activation, Conv2d, Conv2dGradInput, FoldBatchNorm, FusedBatchNorm, FusedBatchNormTrain, FusedConv2d, Op,
    Relu, TransposeWeight,
};
use crate::plan::live_nodes;
use crate::shape::Shape;

/// An equivalent graph of fewer nodes.
pub(crate) fn fuse(graph: &Graph) -> Graph {
    let mut work = Rewrite::new(graph);
    work.fold_batch_norms();
    work.slices_and_pads();
    let mut work = Rewrite::new(&work.finish());
    work.gradients_as_convolutions();
    let mut work = Rewrite::new(&work.finish());
    work.epilogues();
    work.finish()
}

/// A graph whose nodes are being replaced. Positions are those of the graph it started from.
struct Rewrite {
    values: Vec<Value>,
    nodes: Vec<Option<Node>>,
    /// Nodes to insert before a position.
    before: Vec<(usize, Node)>,
    producer: HashMap<ValueId, usize>,
    readers: HashMap<ValueId, Vec<usize>>,
}

impl Rewrite {
    fn new(graph: &Graph) -> Self {
        let live = live_nodes(graph);
        let nodes: Vec<Option<Node>> =
            graph.nodes.iter().zip(live).map(|(node, live)| live.then(|| node.clone())).collect();
        let mut producer = HashMap::new();
        let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
        for (i, node) in nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            for &output in &node.outputs {
                if graph.values[output.index()].storage == Storage::Temporary {
                    producer.insert(output, i);
                }
            }
            for &input in &node.inputs {
                readers.entry(input).or_default().push(i);
            }
        }
        Self { values: graph.values.clone(), nodes, before: Vec::new(), producer, readers }
    }

    fn finish(mut self) -> Graph {
        self.before.sort_by_key(|&(position, _)| position);
        let mut inserted = self.before.into_iter().peekable();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (position, node) in self.nodes.into_iter().enumerate() {
            while let Some((_, node)) = inserted.next_if(|&(at, _)| at <= position) {
                nodes.push(node);
            }
            nodes.extend(node);
        }
        let mut graph = Graph::new();
        graph.values = self.values;
        graph.nodes = nodes;
        graph
    }

    fn temporary(&mut self, shape: Shape) -> ValueId {
        self.values.push(Value { shape, storage: Storage::Temporary });
        ValueId(u32::try_from(self.values.len() - 1).expect("fewer than 2^32 values"))
    }

    fn shape(&self, value: ValueId) -> Shape {
        self.values[value.index()].shape
    }

    fn is_temporary(&self, value: ValueId) -> bool {
        self.values[value.index()].storage == Storage::Temporary
    }

    /// The position of the one node that reads `value`, and reads it once.
    fn only_reader(&self, value: ValueId) -> Option<usize> {
        match self.readers.get(&value)?.as_slice() {
            &[reader] if self.is_temporary(value) => Some(reader),
            _ => None,
        }
    }

    /// Whether nothing writes one of `values` after position `from` and before `to`: a node that reads
    /// them may then move from one to the other.
    fn unchanged(&self, values: &[ValueId], from: usize, to: usize) -> bool {
        let variable = |v: ValueId| match self.values[v.index()].storage {
            Storage::Variable(variable) => Some(variable),
            Storage::Temporary => None,
        };
        let read: Vec<_> = values.iter().filter_map(|&v| variable(v)).collect();
        let mut between = self.nodes[from + 1..to].iter().flatten();
        !between.any(|node| node.outputs.iter().any(|&o| variable(o).is_some_and(|v| read.contains(&v))))
    }

    fn fold_batch_norms(&mut self) {
        // The folded weight of each (weight, scale, variance), and where it was made.
        let mut folded: HashMap<[ValueId; 3], (ValueId, usize)> = HashMap::new();
        for i in 0..self.nodes.len() {
            match self.nodes[i].as_ref().map(|n| &n.op) {
                Some(Op::BatchNorm(_)) => self.fold_forward(i, &mut folded),
                Some(Op::BatchNormGrad(_)) => self.fold_gradient(i, &folded),
                _ => {}
            }
        }
    }

    fn fold_forward(&mut self, i: usize, folded: &mut HashMap<[ValueId; 3], (ValueId, usize)>) {
        let Some(norm) = self.nodes[i].clone() else { return };
        let Op::BatchNorm(attributes) = norm.op else { return };
        let &[x, scale, shift, mean, variance] = norm.inputs.as_slice() else { return };
        let Some(&position) = self.producer.get(&x) else { return };
        let Some(conv) = self.nodes[position].clone() else { return };
        let alone = self.only_reader(x) == Some(i) && norm.outputs.iter().all(|&o| self.is_temporary(o));
        if !matches!(conv.op, Op::Conv2d(_))
            || !alone
            || !self.unchanged(&[scale, shift, mean, variance], position, i)
        {
            return;
        }
        let weight = conv.inputs[1];
        let channels = Shape::vector(self.shape(weight).channels());
        let outputs = vec![self.temporary(self.shape(weight)), self.temporary(channels)];
        let mut inputs = vec![weight, scale, shift, mean, variance];
        inputs.extend(conv.inputs.get(2));
        let op = Op::FoldBatchNorm(FoldBatchNorm { epsilon: attributes.epsilon });
        self.before.push((position, Node { op, inputs, outputs: outputs.clone(), label: norm.label }));
        folded.insert([weight, scale, variance], (outputs[0], position));
        let inputs = vec![conv.inputs[0], outputs[0], outputs[1]];
        self.nodes[position] = Some(Node { inputs, outputs: norm.outputs, ..conv });
        self.nodes[i] = None;
    }

    fn fold_gradient(&mut self, i: usize, folded: &HashMap<[ValueId; 3], (ValueId, usize)>) {
        let Some(norm) = self.nodes[i].clone() else { return };
        let &[dy, scale, variance] = norm.inputs.as_slice() else { return };
        let Some(position) = self.only_reader(norm.outputs[0]) else { return };
        let Some(gradient) = &self.nodes[position] else { return };
        if !matches!(gradient.op, Op::Conv2dGradInput(_)) || gradient.inputs[0] != norm.outputs[0] {
            return;
        }
        let weight = gradient.inputs[1];
        let Some(&(weight_now, made)) = folded.get(&[weight, scale, variance]) else { return };
        if self.unchanged(&[weight, scale, variance], made, position) {
            let inputs = vec![dy, weight_now];
            self.nodes[position] = Some(Node { inputs, ..gradient.clone() });
            self.nodes[i] = None;
        }
    }

    fn slices_and_pads(&mut self) {
        for i in 0..self.nodes.len() {
            let Some(node) = self.nodes[i].clone() else { continue };
            let Some(before) = node.inputs.first().and_then(|v| self.producer.get(v)).copied() else {
                continue;
            };
            let Some(first) = self.nodes[before].clone() else { continue };
            let op = match (&first.op, &node.op) {
                (Op::Slice(a), Op::Slice(b)) => a.then(b).map(Op::Slice),
                (Op::Pad(a), Op::Pad(b)) => a.then(b).map(Op::Pad),
                _ => None,
            };
            let Some(op) = op else { continue };
            if self.only_reader(node.inputs[0]) == Some(i) && self.unchanged(&first.inputs, before, i) {
                self.nodes[before] = None;
                self.nodes[i] = Some(Node { op, inputs: first.inputs, ..node });
            }
        }
    }

    fn gradients_as_convolutions(&mut self) {
        for i in 0..self.nodes.len() {
            let Some(node) = self.nodes[i].clone() else { continue };
            let Op::Conv2dGradInput(gradient) = &node.op else { continue };
            let &[dy, weight] = node.inputs.as_slice() else { continue };
            let Some(conv) = transposed(gradient, self.shape(weight)) else { continue };
            let [height, width, channels, filters] = self.shape(weight).0;
            let turned = Shape([height, width, filters / conv.groups, channels * conv.groups]);
            let outputs = vec![self.temporary(turned)];
            let op = Op::TransposeWeight(TransposeWeight { groups: conv.groups });
            let inputs = vec![dy, outputs[0]];
            self.before.push((i, Node { op, inputs: vec![weight], outputs, label: node.label.clone() }));
            self.nodes[i] = Some(Node { op: Op::Conv2d(conv), inputs, ..node });
        }
    }

    fn epilogues(&mut self) {
        for i in 0..self.nodes.len() {
            match self.nodes[i].as_ref().map(|n| &n.op) {
                Some(Op::Conv2d(_)) => self.after_convolution(i),
                Some(Op::BatchNorm(_) | Op::BatchNormTrain(_)) => self.after_batch_norm(i),
                _ => {}
            }
        }
    }

    fn after_convolution(&mut self, i: usize) {
        let Some(node) = self.nodes[i].clone() else { return };
        let Op::Conv2d(conv) = node.op else { return };
        let mut fused = FusedConv2d::plain(conv, node.inputs.len() == 3);
        let mut inputs = node.inputs.clone();
        let mut output = node.outputs[0];
        let mut last = i;
        if let Some((at, other)) = self.next_add(output, last) {
            fused.residual = true;
            inputs.push(other);
            (output, last) = (self.output(at), at);
        }
        if let Some((at, activation, mask)) = self.next_activation(output) {
            fused.activation = activation;
            inputs.extend(mask);
            (output, last) = (self.output(at), at);
        }
        if last == i || !self.is_temporary(output) || !self.unchanged(&node.inputs, i, last) {
            return;
        }
        self.remove_links(node.outputs[0], output);
        self.nodes[i] = None;
        let fused = Node { op: Op::FusedConv2d(fused), inputs, outputs: vec![output], label: node.label };
        self.nodes[last] = Some(fused);
    }

    /// It stays in its place, before those that read its statistics: what it adds has to be there by then.
    fn after_batch_norm(&mut self, i: usize) {
        let Some(node) = self.nodes[i].clone() else { return };
        let Node { op, mut inputs, mut outputs, label } = node;
        let (y, mut residual, mut relu) = (outputs[0], false, None);
        if let Some((at, other)) = self.next_add(y, i)
            && self.producer.get(&other).is_none_or(|&made| made < i)
            && self.unchanged(&[other], i, at)
        {
            residual = true;
            inputs.push(other);
            outputs[0] = self.output(at);
        }
        if let Some((at, Activation::Relu { max }, _)) = self.next_activation(outputs[0]) {
            relu = Some(Relu { max });
            outputs[0] = self.output(at);
        }
        if outputs[0] == y {
            return;
        }
        let op = match op {
            Op::BatchNorm(norm) => Op::FusedBatchNorm(FusedBatchNorm { norm, residual, relu }),
            Op::BatchNormTrain(norm) => Op::FusedBatchNormTrain(FusedBatchNormTrain { norm, residual, relu }),
            _ => return,
        };
        self.remove_links(y, outputs[0]);
        self.nodes[i] = Some(Node { op, inputs, outputs, label });
    }

    /// Removes the nodes, each the only reader of the one before, that make `to` of `from`.
    fn remove_links(&mut self, from: ValueId, to: ValueId) {
        let mut value = from;
        while value != to {
            let at = self.only_reader(value).expect("each link of the chain has one reader");
            value = self.output(at);
            self.nodes[at] = None;
        }
    }

    fn output(&self, position: usize) -> ValueId {
        self.nodes[position].as_ref().expect("the node is still there").outputs[0]
    }

    /// The sum that `value`, made at position `made`, goes into, and its other term. Of two
    /// convolutions the later one takes the sum.
    fn next_add(&self, value: ValueId, made: usize) -> Option<(usize, ValueId)> {
        let at = self.only_reader(value)?;
        let node = self.nodes[at].as_ref()?;
        let &[a, b] = node.inputs.as_slice() else { return None };
        let other = if a == value { b } else { a };
        let is_later_conv =
            |&p: &usize| p > made && matches!(self.nodes[p].as_ref().map(|n| &n.op), Some(Op::Conv2d(_)));
        let taken = self.producer.get(&other).is_some_and(is_later_conv) && self.only_reader(other).is_some();
        let fits = matches!(node.op, Op::Add(_)) && other != value && !taken;
        (fits && self.is_temporary(node.outputs[0])).then_some((at, other))
    }

    /// The activation, or the gradient of one, that `value` goes into; for a gradient also its mask.
    fn next_activation(&self, value: ValueId) -> Option<(usize, Activation, Option<ValueId>)> {
        let at = self.only_reader(value)?;
        let node = self.nodes[at].as_ref()?;
        let found = match &node.op {
            Op::Relu(relu) => (Activation::Relu { max: relu.max }, None),
            Op::ReluGrad(relu) if node.inputs[1] == value => {
                (Activation::ReluGrad { max: relu.max }, Some(node.inputs[0]))
            }
            _ => return None,
        };
        self.is_temporary(node.outputs[0]).then_some((at, found.0, found.1))
    }
}

/// The convolution over dy that computes an input gradient, where there is one.
fn transposed(gradient: &Conv2dGradInput, weight: Shape) -> Option<Conv2d> {
    let conv = &gradient.conv;
    if conv.stride != [1, 1] {
        return None;
    }
    let reach = |axis: usize| (weight.0[axis] - 1) * conv.dilation[axis];
    let [top, left, bottom, right] = conv.pads;
    let pads = [
        reach(0).checked_sub(top)?,
        reach(1).checked_sub(left)?,
        reach(0).checked_sub(bottom)?,
        reach(1).checked_sub(right)?,
    ];
    Some(Conv2d { pads, ..*conv })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::architectures::Architecture;
    use crate::device::Device;
    use crate::loss::Loss;
    use crate::network::{BatchNormMode, Role};
    use crate::ops::{Add, BatchNormTrain, Copy, RunningStatistics};
    use crate::random::{Purpose, Stream};
    use crate::session::{Images, Session};

    const IMAGES: usize = 3;

    /// An architecture of each kind, and its images.
    const NETWORKS: [(&str, [usize; 3]); 5] = [
        ("resnet8", [3, 12, 10]),
        ("resnet18", [3, 33, 34]),
        ("resnet50", [3, 32, 32]),
        ("preact-resnet18", [3, 16, 16]),
        ("wrn-10-2", [1, 14, 12]),
    ];

    /// A session on a model whose BatchNorms have statistics and weights of their own.
    fn session(arch: &str, input: [usize; 3]) -> Session {
        let mut model = Architecture::build(arch, input, 10, 1).unwrap();
        let stream = Stream::new(1, Purpose::Probe, 0, 0);
        for (row, (values, parameter)) in model.values.iter_mut().zip(&model.network.parameters).enumerate() {
            if !matches!(parameter.role, Role::Weight | Role::Bias) {
                let len = u32::try_from(values.data.len()).unwrap();
                values.data = (0..len).map(|i| 0.5 + stream.uniform(row as u32, i)).collect();
            }
        }
        let mut session = Session::new(Device::cpu(), &model, IMAGES).unwrap();
        let len: usize = input.iter().product();
        let images: Vec<f32> = (0..(IMAGES * len) as u32).map(|i| stream.uniform(u32::MAX, i)).collect();
        session.load(&images, &[1, 2, 3], &[0, 1, 2]).unwrap();
        let adversarial = session.buffers().adversarial;
        session.device().write(adversarial, &images);
        session
    }

    fn count(graph: &Graph) -> BTreeMap<&'static str, usize> {
        let mut found = BTreeMap::new();
        for node in graph.nodes() {
            *found.entry(node.op.name()).or_insert(0) += 1;
        }
        found
    }

    fn gradient_of(session: &mut Session, graph: &Graph) -> Vec<f32> {
        let gradient = session.buffers().gradient;
        session.device().write(gradient, &vec![f32::NAN; gradient.len()]);
        let mut program = session.device().compile(graph).unwrap();
        session.device().run(&mut program).unwrap();
        session.device().read(gradient).unwrap()
    }

    #[test]
    fn the_gradient_of_an_attack_stays_what_it_is() {
        for (arch, input) in NETWORKS {
            let mut session = session(arch, input);
            let mut m = session.graph(IMAGES);
            m.input_gradient(Loss::CrossEntropy).unwrap();
            let fused = fuse(&m.graph);
            assert!(fused.nodes().len() < m.graph.nodes().len(), "{arch}: nothing was fused");
            let (expected, found) = (gradient_of(&mut session, &m.graph), gradient_of(&mut session, &fused));
            let norm = |v: &[f32]| v.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
            let apart: Vec<f32> = found.iter().zip(&expected).map(|(f, e)| f - e).collect();
            let part = norm(&apart) / norm(&expected);
            // Rounding moves a few activations across the corner of a ReLU, and with three images one of
            // them is seen; a wrong rule changes the gradient as a whole. Not a number fails as well.
            assert!(part < 0.05, "{arch}: gradients differ by {part} of their norm");
        }
    }

    #[test]
    fn an_attack_on_a_resnet_is_made_of_convolutions() {
        let session = session("resnet20", [3, 32, 32]);
        let mut m = session.graph(IMAGES);
        m.input_gradient(Loss::CrossEntropy).unwrap();
        let found = count(&fuse(&m.graph));
        for gone in ["BatchNorm", "BatchNormGrad", "Relu"] {
            assert_eq!(found.get(gone), None, "{found:?}");
        }
        // Both slices of a shortcut are one, and so are the paddings that are their gradients.
        assert_eq!((found["Slice"], found["Pad"]), (4, 4), "{found:?}");
        // Those at a stride of two and before the pooling stay.
        assert_eq!((found["ReluGrad"], found["Add"], found["Conv2dGradInput"]), (3, 2, 2), "{found:?}");
    }

    /// The logits by the statistics of the batch, which update the running ones.
    fn training_pass(session: &Session) -> Graph {
        let mut m = session.graph(IMAGES);
        let logits = m.logits(Images::Adversarial, BatchNormMode::BatchUpdate).unwrap();
        let target = m.graph.variable(m.buffers.logits, m.graph.shape(logits));
        m.graph.update(Op::Copy(Copy), &[logits], &[target]).unwrap();
        m.graph
    }

    #[test]
    fn a_pass_with_the_statistics_of_the_batch_keeps_its_bits() {
        for (arch, input) in NETWORKS {
            let mut session = session(arch, input);
            let before = session.read_parameters().unwrap();
            let mut run = |fused: bool| {
                session.write_parameters(&before).unwrap();
                let plain = training_pass(&session);
                let graph = if fused { fuse(&plain) } else { plain };
                let mut program = session.device().compile(&graph).unwrap();
                session.device().run(&mut program).unwrap();
                let bits = |v: Vec<f32>| -> Vec<u32> { v.into_iter().map(f32::to_bits).collect() };
                let logits = session.buffers().logits;
                let logits = bits(session.device().read(logits).unwrap());
                let statistics = session.read_parameters().unwrap();
                (logits, statistics.into_iter().map(|t| bits(t.data)).collect::<Vec<_>>(), count(&graph))
            };
            let (expected, statistics, plain) = run(false);
            let (found, updated, fused) = run(true);
            assert!(
                fused["FusedBatchNormTrain"] > 0 && fused.get("Relu") < plain.get("Relu"),
                "{arch}: {fused:?}"
            );
            assert_eq!(found, expected, "{arch}: logits");
            assert!(updated == statistics, "{arch}: running statistics");
        }
    }

    #[test]
    fn a_resnet_in_training_adds_and_rectifies_where_it_normalises() {
        let session = session("resnet18", [3, 32, 32]);
        let found = count(&fuse(&training_pass(&session)));
        assert_eq!((found.get("Relu"), found.get("Add")), (None, None), "{found:?}");
        // Those of three shortcuts have nothing behind them: of two BatchNorms the later one takes the sum.
        assert_eq!((found["FusedBatchNormTrain"], found["BatchNormTrain"]), (17, 3), "{found:?}");
    }

    #[test]
    fn a_pre_activation_resnet_rectifies_where_it_normalises() {
        let session = session("preact-resnet18", [3, 16, 16]);
        let mut m = session.graph(IMAGES);
        m.input_gradient(Loss::CrossEntropy).unwrap();
        let found = count(&fuse(&m.graph));
        assert_eq!((found.get("Relu"), found.get("BatchNorm")), (None, None), "{found:?}");
        assert!(found["FusedBatchNorm"] > 0, "{found:?}");
    }

    /// A program that updates the statistics that a BatchNorm reads has to keep its order.
    #[test]
    fn nothing_moves_past_an_update() {
        let mut graph = Graph::new();
        let mut device = Device::cpu();
        let mut variable = |shape: Shape| {
            let v = device.variable(shape.len()).unwrap();
            graph.variable(v, shape)
        };
        let (x, w) = (variable(Shape([1, 4, 4, 2])), variable(Shape([1, 1, 2, 2])));
        let [scale, shift, mean, variance, out_mean, out_variance] =
            [(); 6].map(|()| variable(Shape::vector(2)));
        let y = variable(Shape([1, 4, 4, 2]));
        let conv = graph.add(Op::Conv2d(Conv2d::LINEAR), &[x, w]).unwrap();
        let update = Op::RunningStatistics(RunningStatistics { momentum: 0.1, count: 16 });
        graph.update(update, &[out_mean, out_variance], &[mean, variance]).unwrap();
        let norm = crate::ops::BatchNorm { epsilon: 1e-5, momentum: 0.1 };
        let out = graph.add(Op::BatchNorm(norm), &[conv, scale, shift, mean, variance]).unwrap();
        graph.update(Op::Copy(Copy), &[out], &[y]).unwrap();
        assert_eq!(count(&fuse(&graph)), count(&graph));
    }

    /// What a BatchNorm adds is read in its place, and may not be there yet, or be another one later.
    #[test]
    fn nothing_is_added_before_it_is_there() {
        let shape = Shape([1, 4, 4, 2]);
        let mut device = Device::cpu();
        let build = |device: &mut Device, late: bool| {
            let mut graph = Graph::new();
            let mut variable = |graph: &mut Graph, shape: Shape| {
                let v = device.variable(shape.len()).unwrap();
                graph.variable(v, shape)
            };
            let [x, other, y] = [(); 3].map(|()| variable(&mut graph, shape));
            let [scale, shift] = [(); 2].map(|()| variable(&mut graph, Shape::vector(2)));
            let norm = Op::BatchNormTrain(BatchNormTrain { epsilon: 1e-5 });
            let normalized = graph.add_all(norm, &[x, scale, shift]).unwrap()[0];
            let added = if late {
                graph.add(Op::Relu(Relu::PLAIN), &[x]).unwrap()
            } else {
                graph.update(Op::Copy(Copy), &[x], &[other]).unwrap();
                other
            };
            let sum = graph.add(Op::Add(Add), &[normalized, added]).unwrap();
            graph.update(Op::Copy(Copy), &[sum], &[y]).unwrap();
            graph
        };
        for late in [true, false] {
            let graph = build(&mut device, late);
            assert_eq!(count(&fuse(&graph)), count(&graph), "late: {late}");
        }
    }
}
