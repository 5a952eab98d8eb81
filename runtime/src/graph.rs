//! A computation for one batch size: forward, gradients, attack steps and updates alike.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::ops::Op;
use crate::shape::Shape;

/// A buffer that lives on a device between runs: a parameter, a batch of images, a counter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Variable {
    pub(crate) id: u32,
    pub(crate) len: usize,
}

impl Variable {
    /// Number of four-byte elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a value lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storage {
    /// In a device buffer that outlives the run.
    Variable(Variable),
    /// In a buffer that the plan assigns; written by exactly one node.
    Temporary,
}

#[derive(Clone, Debug)]
pub struct Value {
    pub shape: Shape,
    pub storage: Storage,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    pub inputs: Vec<ValueId>,
    /// Temporaries that the node defines, or variables that it updates in place.
    pub outputs: Vec<ValueId>,
    /// The layer that it belongs to, for messages and timing tables.
    pub label: String,
}

/// Nodes in execution order. A node may read a variable that a later node updates; it then sees
/// the value from before the update.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    label: String,
}

impl Graph {
    pub fn new() -> Self {
        Self::default()
    }

    /// The label that nodes added from now on carry.
    pub fn set_label(&mut self, label: &str) {
        label.clone_into(&mut self.label);
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn shape(&self, value: ValueId) -> Shape {
        self.values[value.index()].shape
    }

    /// Makes (the front of) a device buffer a value of this graph.
    ///
    /// # Panics
    /// When the buffer is shorter than the shape.
    pub fn variable(&mut self, variable: Variable, shape: Shape) -> ValueId {
        assert!(shape.len() <= variable.len, "{shape:?} does not fit a buffer of {}", variable.len);
        self.push_value(Value { shape, storage: Storage::Variable(variable) })
    }

    fn push_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(u32::try_from(self.values.len() - 1).expect("fewer than 2^32 values"))
    }

    fn output_shapes(&self, op: &Op, inputs: &[ValueId]) -> Result<Vec<Shape>> {
        let shapes: Vec<Shape> = inputs.iter().map(|&v| self.shape(v)).collect();
        let outputs = op.output_shapes(&shapes).map_err(|message| self.fault(op, message))?;
        match outputs.iter().find(|s| s.checked_len().is_none()) {
            Some(shape) => Err(self.fault(op, format!("output {shape:?} is too large"))),
            None => Ok(outputs),
        }
    }

    fn fault(&self, op: &Op, message: String) -> Error {
        let node = if self.label.is_empty() { op.name().to_owned() } else { self.label.clone() };
        Error::Shape { node, message }
    }

    /// Adds a node and returns its one output.
    pub fn add(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        let outputs = self.add_all(op, inputs)?;
        debug_assert_eq!(outputs.len(), 1, "use add_all for a node with several outputs");
        Ok(outputs[0])
    }

    /// Adds a node and returns all its outputs.
    pub fn add_all(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        let shapes = self.output_shapes(&op, inputs)?;
        let outputs: Vec<ValueId> = shapes
            .into_iter()
            .map(|shape| self.push_value(Value { shape, storage: Storage::Temporary }))
            .collect();
        self.push_node(op, inputs, &outputs);
        Ok(outputs)
    }

    /// Adds a node that writes the variables `targets`, in place where it also reads them.
    pub fn update(&mut self, op: Op, inputs: &[ValueId], targets: &[ValueId]) -> Result<()> {
        let shapes = self.output_shapes(&op, inputs)?;
        let found: Vec<Shape> = targets.iter().map(|&t| self.shape(t)).collect();
        // An operation that cannot tell its outputs from its inputs alone returns no shapes for them.
        if shapes.len() > found.len() || shapes.iter().zip(&found).any(|(a, b)| a.len() != b.len()) {
            return Err(self.fault(&op, format!("updates {found:?} but produces {shapes:?}")));
        }
        debug_assert!(
            targets.iter().all(|t| matches!(self.values[t.index()].storage, Storage::Variable(_))),
            "only variables are updated in place"
        );
        self.push_node(op, inputs, targets);
        Ok(())
    }

    /// The same graph in which each sum over runs, of which nothing else in the graph knows, is added to as soon as
    /// there is what to add: the many gradients of a part of a batch are then not kept until the last of them is
    /// there.
    pub(crate) fn with_early_sums(mut self) -> Self {
        let variable = |v: &ValueId| match self.values[v.index()].storage {
            Storage::Variable(variable) => Some(variable),
            Storage::Temporary => None,
        };
        let mut touched: HashMap<Variable, usize> = HashMap::new();
        for variable in self.nodes.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs)).filter_map(variable)
        {
            *touched.entry(variable).or_default() += 1;
        }
        let is_early = |node: &Node| {
            matches!(node.op, Op::Accumulate(_))
                && variable(&node.inputs[0]).is_none()
                && variable(&node.outputs[0]).is_some_and(|v| touched[&v] == 1)
        };
        let early: Vec<bool> = self.nodes.iter().map(is_early).collect();
        let mut waiting: HashMap<ValueId, Vec<Node>> = HashMap::new();
        let mut rest = Vec::with_capacity(self.nodes.len());
        for (node, early) in self.nodes.into_iter().zip(early) {
            match early {
                true => waiting.entry(node.inputs[0]).or_default().push(node),
                false => rest.push(node),
            }
        }
        self.nodes = Vec::new();
        for node in rest {
            let outputs = node.outputs.clone();
            self.nodes.push(node);
            self.nodes.extend(outputs.iter().filter_map(|output| waiting.remove(output)).flatten());
        }
        self
    }

    fn push_node(&mut self, op: Op, inputs: &[ValueId], outputs: &[ValueId]) {
        self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            label: self.label.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::ops::{Accumulate, Copy, Scale};
    use crate::plan::{Limits, Plan};

    #[test]
    fn sums_are_taken_early_unless_somebody_looks() {
        let shape = Shape::vector(50);
        let mut device = Device::cpu();
        let mut new = |value: f32| device.variable_from(&[value; 50]).expect("it fits");
        let (x, sums, seen, out) = (new(1.0), [new(10.0), new(20.0), new(30.0)], new(40.0), new(0.0));
        let mut graph = Graph::new();
        let image = graph.variable(x, shape);
        let scaled = |g: &mut Graph, factor| g.add(Op::Scale(Scale { factor }), &[image]).expect("it fits");
        let gradients = [2.0, 3.0, 4.0].map(|factor| scaled(&mut graph, factor));
        let other = scaled(&mut graph, 5.0);
        let [seen_value, out_value] = [seen, out].map(|v| graph.variable(v, shape));
        for (sum, gradient) in sums.into_iter().zip(gradients) {
            let sum = graph.variable(sum, shape);
            graph.update(Op::Accumulate(Accumulate), &[gradient], &[sum]).expect("it fits");
        }
        // What reads it before has to see the value from before.
        graph.update(Op::Copy(Copy), &[seen_value], &[out_value]).expect("it fits");
        graph.update(Op::Accumulate(Accumulate), &[other], &[seen_value]).expect("it fits");

        let early = graph.clone().with_early_sums();
        assert_eq!(early.nodes.len(), graph.nodes.len());
        let bytes = |g: &Graph| Plan::new(g, &Limits::HOST).expect("it fits").temporaries.bytes();
        assert_eq!((bytes(&graph), bytes(&early)), (4 * 200, 200));
        let mut program = device.compile(&early).expect("it fits");
        device.run(&mut program).expect("it runs");
        let mut value = |v| device.read(v).expect("it is there")[49];
        assert_eq!(sums.map(&mut value), [12.0, 23.0, 34.0]);
        assert_eq!((value(seen), value(out)), (45.0, 40.0));
    }
}
