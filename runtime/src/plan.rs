//! From a graph to a plan: which nodes run, in which buffers, by which dispatches. Pure data, no
//! device; both executors run the same plan.

use crate::error::{Error, Result};
use crate::graph::{Graph, Storage, Variable};
use crate::ops::{Argument, Launch, Op};
use crate::shape::Shape;

/// What a device allows, in WebGPU's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one buffer as a kernel sees it.
    pub storage_binding: u64,
    pub storage_buffers: u32,
    pub workgroup_threads: u32,
    pub workgroups_per_dimension: u32,
    /// Lanes of a subgroup, where the device supports subgroups and they always have as many.
    pub subgroup_lanes: Option<u32>,
}

impl Limits {
    /// What every WebGPU device offers.
    pub const WEBGPU: Self = Self {
        storage_binding: 128 << 20,
        storage_buffers: 8,
        workgroup_threads: 256,
        workgroups_per_dimension: 65_535,
        subgroup_lanes: None,
    };

    /// Host memory.
    pub const HOST: Self = Self {
        storage_binding: u64::MAX,
        storage_buffers: u32::MAX,
        workgroup_threads: u32::MAX,
        workgroups_per_dimension: u32::MAX,
        subgroup_lanes: None,
    };
}

/// Where an operand lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    Variable(Variable),
    /// An index into [`Plan::temporaries`].
    Temporary(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operand {
    pub slot: Slot,
    pub shape: Shape,
}

/// One node with its buffers.
#[derive(Clone, Debug)]
pub struct Step {
    pub op: Op,
    pub inputs: Vec<Operand>,
    pub outputs: Vec<Operand>,
    /// Temporaries that serve as the operation's scratch buffers.
    pub scratch: Vec<usize>,
    pub launch: Launch,
    pub label: String,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Elements of each temporary buffer; values whose lifetimes do not overlap share one.
    pub temporaries: Vec<usize>,
    pub flops: u64,
}

impl Plan {
    /// Plans the nodes of `graph` that some variable depends on.
    pub fn new(graph: &Graph, limits: &Limits) -> Result<Self> {
        let live = live_nodes(graph);
        let last_use = last_uses(graph, &live);
        let mut pool = Pool::default();
        let mut slots: Vec<Option<Slot>> = graph
            .values
            .iter()
            .map(|value| match value.storage {
                Storage::Variable(variable) => Some(Slot::Variable(variable)),
                Storage::Temporary => None,
            })
            .collect();
        let mut steps = Vec::new();
        let mut flops = 0;
        for (index, node) in graph.nodes.iter().enumerate().filter(|&(i, _)| live[i]) {
            for output in &node.outputs {
                if slots[output.index()].is_none() {
                    let len = graph.shape(*output).len();
                    slots[output.index()] = Some(Slot::Temporary(pool.take(len)));
                }
            }
            let operands = |values: &[crate::graph::ValueId]| -> Vec<Operand> {
                values
                    .iter()
                    .map(|v| Operand {
                        slot: slots[v.index()].expect("a value is defined before it is used"),
                        shape: graph.shape(*v),
                    })
                    .collect()
            };
            let (inputs, outputs) = (operands(&node.inputs), operands(&node.outputs));
            let shapes = |operands: &[Operand]| operands.iter().map(|o| o.shape).collect::<Vec<_>>();
            let (input_shapes, output_shapes) = (shapes(&inputs), shapes(&outputs));
            let launch = node.op.launch(&input_shapes, &output_shapes, limits);
            flops += node.op.flops(&input_shapes, &output_shapes);
            let scratch: Vec<usize> = launch.scratch.iter().map(|&len| pool.take(len)).collect();
            let step =
                Step { op: node.op.clone(), inputs, outputs, scratch, launch, label: node.label.clone() };
            check(&step, limits)?;
            step.scratch.iter().for_each(|&t| pool.give(t));
            for value in node.inputs.iter().chain(&node.outputs) {
                // A value that nothing reads dies where it is born.
                let dead = last_use[value.index()].unwrap_or(index) == index;
                if let (Some(Slot::Temporary(t)), true) = (slots[value.index()], dead) {
                    pool.give(t);
                }
            }
            steps.push(step);
        }
        let mut plan = Self { steps, temporaries: pool.lens, flops };
        plan.largest_first();
        Ok(plan)
    }

    /// Numbers the temporaries by size. Plans that share them, one after the other, then pair large ones
    /// with large ones.
    fn largest_first(&mut self) {
        let mut order: Vec<usize> = (0..self.temporaries.len()).collect();
        order.sort_by_key(|&t| std::cmp::Reverse(self.temporaries[t]));
        let mut number = vec![0; order.len()];
        for (new, &old) in order.iter().enumerate() {
            number[old] = new;
        }
        self.temporaries.sort_by_key(|&len| std::cmp::Reverse(len));
        for step in &mut self.steps {
            for operand in step.inputs.iter_mut().chain(&mut step.outputs) {
                if let Slot::Temporary(t) = &mut operand.slot {
                    *t = number[*t];
                }
            }
            for t in &mut step.scratch {
                *t = number[*t];
            }
        }
    }

    /// Bytes of all temporary buffers.
    pub fn temporary_bytes(&self) -> u64 {
        self.temporaries.iter().map(|&len| len as u64 * 4).sum()
    }
}

/// The nodes that a variable's new value depends on.
pub(crate) fn live_nodes(graph: &Graph) -> Vec<bool> {
    let mut needed = vec![false; graph.values.len()];
    let mut live = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        live[i] = node
            .outputs
            .iter()
            .any(|v| needed[v.index()] || matches!(graph.values[v.index()].storage, Storage::Variable(_)));
        if live[i] {
            node.inputs.iter().for_each(|v| needed[v.index()] = true);
        }
    }
    live
}

fn last_uses(graph: &Graph, live: &[bool]) -> Vec<Option<usize>> {
    let mut last = vec![None; graph.values.len()];
    for (i, node) in graph.nodes.iter().enumerate().filter(|&(i, _)| live[i]) {
        node.inputs.iter().for_each(|v| last[v.index()] = Some(i));
    }
    last
}

/// Temporary buffers and which of them are free.
#[derive(Default)]
struct Pool {
    lens: Vec<usize>,
    free: Vec<usize>,
}

impl Pool {
    /// The smallest free buffer that fits; else the largest free one, grown; else a new one.
    fn take(&mut self, len: usize) -> usize {
        let fits = self.free.iter().filter(|&&t| self.lens[t] >= len).min_by_key(|&&t| self.lens[t]);
        let found = fits.or_else(|| self.free.iter().max_by_key(|&&t| self.lens[t])).copied();
        match found {
            Some(t) => {
                self.free.retain(|&f| f != t);
                self.lens[t] = self.lens[t].max(len);
                t
            }
            None => {
                self.lens.push(len);
                self.lens.len() - 1
            }
        }
    }

    fn give(&mut self, t: usize) {
        if !self.free.contains(&t) {
            self.free.push(t);
        }
    }
}

/// Refuses what the device cannot run, before anything is allocated.
fn check(step: &Step, limits: &Limits) -> Result<()> {
    let name = if step.label.is_empty() { step.op.name() } else { &step.label };
    for operand in step.inputs.iter().chain(&step.outputs) {
        let bytes = operand.shape.len() as u64 * 4;
        if bytes > limits.storage_binding {
            let batch = operand.shape.batch().max(1) as u64;
            let fits = limits.storage_binding / (bytes / batch).max(1);
            return Err(Error::Limit(format!(
                "'{name}' ({}): a tensor of {:?} takes {} MiB, the device binds {} MiB at once; a batch of {fits} fits",
                step.op.name(),
                operand.shape,
                bytes >> 20,
                limits.storage_binding >> 20,
            )));
        }
    }
    if let Some(&len) = step.launch.scratch.iter().find(|&&len| len as u64 * 4 > limits.storage_binding) {
        return Err(Error::Limit(format!(
            "'{name}' ({}): working memory of {} MiB, the device binds {} MiB at once; try a smaller batch",
            step.op.name(),
            (len as u64 * 4) >> 20,
            limits.storage_binding >> 20,
        )));
    }
    for dispatch in &step.launch.dispatches {
        let buffers = dispatch.arguments.len() as u64;
        let groups = dispatch.threads.div_ceil(dispatch.kernel.workgroup.into());
        let rows = groups.div_ceil(limits.workgroups_per_dimension.into());
        if buffers > limits.storage_buffers.into()
            || dispatch.kernel.workgroup > limits.workgroup_threads
            || dispatch.threads > u64::from(u32::MAX)
            || rows > limits.workgroups_per_dimension.into()
        {
            return Err(Error::Limit(format!(
                "'{name}': kernel {} needs {buffers} buffers and {} threads, more than the device offers; try a smaller batch",
                dispatch.kernel.name, dispatch.threads
            )));
        }
        // One buffer may not be read-only and writable in one dispatch.
        let slot = |a: &Argument| match *a {
            Argument::Input(i) => step.inputs[i].slot,
            Argument::Output(i) => step.outputs[i].slot,
            Argument::Scratch(i) => Slot::Temporary(step.scratch[i]),
        };
        let inputs = dispatch.arguments.iter().filter(|a| matches!(a, Argument::Input(_)));
        for input in inputs.map(slot) {
            let others = dispatch.arguments.iter().filter(|a| !matches!(a, Argument::Input(_)));
            if others.map(slot).any(|s| s == input) {
                return Err(Error::Limit(format!("'{name}' reads and writes one buffer in one dispatch")));
            }
        }
    }
    Ok(())
}
