//! From a graph to a plan: which nodes run, in which buffers, by which dispatches. Pure data, no
//! device; both executors run the same plan.

use crate::choices::Choices;
use crate::error::{Error, Result};
use crate::graph::{Graph, Storage, Variable};
use crate::ops::{Argument, Launch, Op, TEXELS};
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
    /// Whether kernels run on a processor, where a barrier costs much and workgroup memory gains nothing.
    pub software: bool,
    /// Whether loads from textures are many times as fast as loads from storage buffers: on llvmpipe without AVX-512.
    pub slow_buffers: bool,
}

impl Limits {
    /// What every WebGPU device offers.
    pub const WEBGPU: Self = Self {
        storage_binding: 128 << 20,
        storage_buffers: 8,
        workgroup_threads: 256,
        workgroups_per_dimension: 65_535,
        subgroup_lanes: None,
        software: false,
        slow_buffers: false,
    };

    /// Host memory.
    pub const HOST: Self = Self {
        storage_binding: u64::MAX,
        storage_buffers: u32::MAX,
        workgroup_threads: u32::MAX,
        workgroups_per_dimension: u32::MAX,
        subgroup_lanes: None,
        software: true,
        slow_buffers: false,
    };
}

/// Where an operand lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    Variable(Variable),
    /// An index into [`Temporaries::buffers`].
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

/// Working memory that programs share, one after the other.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Temporaries {
    /// Elements of each buffer; values whose lifetimes do not overlap share one.
    pub buffers: Vec<usize>,
    /// Rows of [`TEXELS`] texels of each texture. The first holds the first of every dispatch that has some, the second
    /// the second, and so on: each is copied right before it is read.
    pub textures: Vec<usize>,
}

impl Temporaries {
    /// What is large enough for both.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let larger = |a: &[usize], b: &[usize]| {
            let len = |t: &[usize], i: usize| t.get(i).copied().unwrap_or(0);
            (0..a.len().max(b.len())).map(|i| len(a, i).max(len(b, i))).collect()
        };
        Self {
            buffers: larger(&self.buffers, &other.buffers),
            textures: larger(&self.textures, &other.textures),
        }
    }

    pub fn bytes(&self) -> u64 {
        let elements: usize = self.buffers.iter().sum();
        let rows: usize = self.textures.iter().sum();
        (elements + rows * 4 * TEXELS) as u64 * 4
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub temporaries: Temporaries,
    pub flops: u64,
}

impl Plan {
    /// Plans the nodes of `graph` that some variable depends on, with the kernels that are likely to be the
    /// fastest.
    pub fn new(graph: &Graph, limits: &Limits) -> Result<Self> {
        Self::with(graph, limits, &Choices::default())
    }

    /// The same, with the kernels that were chosen.
    pub fn with(graph: &Graph, limits: &Limits, choices: &Choices) -> Result<Self> {
        let live = live_nodes(graph);
        let last_use = last_uses(graph, &live);
        let mut spans: Vec<Span> = Vec::new();
        // Until buffers are chosen, a temporary's slot holds the position of its span.
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
                    // A value that nothing reads dies where it is born.
                    let last = last_use[output.index()].unwrap_or(index);
                    slots[output.index()] = Some(Slot::Temporary(spans.len()));
                    spans.push(Span { len: graph.shape(*output).len(), first: index, last });
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
            let mut launches = node.op.launches(&input_shapes, &output_shapes, limits);
            let launch = launches.swap_remove(choices.pick(&node.op, &input_shapes, &launches));
            flops += node.op.flops(&input_shapes, &output_shapes);
            let mut scratch = Vec::with_capacity(launch.scratch.len());
            for &len in &launch.scratch {
                scratch.push(spans.len());
                spans.push(Span { len, first: index, last: index });
            }
            let step =
                Step { op: node.op.clone(), inputs, outputs, scratch, launch, label: node.label.clone() };
            check(&step, limits)?;
            steps.push(step);
        }
        let (buffers, lens) = share(&spans);
        for step in &mut steps {
            for operand in step.inputs.iter_mut().chain(&mut step.outputs) {
                if let Slot::Temporary(t) = &mut operand.slot {
                    *t = buffers[*t];
                }
            }
            for t in &mut step.scratch {
                *t = buffers[*t];
            }
        }
        let temporaries = Temporaries { buffers: lens, textures: textures(&steps) };
        Ok(Self { steps, temporaries, flops })
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

/// The rows of each texture that is large enough for all steps.
fn textures(steps: &[Step]) -> Vec<usize> {
    let mut rows = Vec::new();
    for step in steps {
        for dispatch in &step.launch.dispatches {
            for (i, input) in dispatch.textured_inputs().into_iter().enumerate() {
                rows.resize(rows.len().max(i + 1), 0);
                rows[i] = rows[i].max(step.inputs[input].shape.len().div_ceil(4 * TEXELS));
            }
        }
    }
    rows
}

/// A temporary's elements, and the first and last node that touch it.
struct Span {
    len: usize,
    first: usize,
    last: usize,
}

/// The buffer of each span, and the elements of each buffer, largest first. Spans that do not overlap
/// share one: largest spans first, each into the smallest buffer that is free throughout (Pisarchyk and
/// Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
fn share(spans: &[Span]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(spans[i].len));
    let mut buffers: Vec<Vec<&Span>> = Vec::new();
    let mut assigned = vec![0; spans.len()];
    for i in order {
        let span = &spans[i];
        let is_free = |held: &Vec<&Span>| held.iter().all(|s| s.last < span.first || span.last < s.first);
        // Buffers become smaller towards the end, and all so far are large enough.
        let found = buffers.iter().rposition(is_free).unwrap_or_else(|| {
            buffers.push(Vec::new());
            buffers.len() - 1
        });
        buffers[found].push(span);
        assigned[i] = found;
    }
    // The first span of a buffer is its largest.
    (assigned, buffers.iter().map(|held| held[0].len).collect())
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
        let is_buffer = |a: &&Argument| !matches!(a, Argument::Texture(_));
        let buffers = dispatch.arguments.iter().filter(is_buffer).count() as u64;
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
        // What was copied to a texture stays as it is until the step is done.
        let textured = dispatch.textured_inputs();
        if step.outputs.iter().any(|o| textured.iter().any(|&i| step.inputs[i].slot == o.slot)) {
            return Err(Error::Limit(format!("'{name}' writes what it reads as a texture")));
        }
        // One buffer may not be read-only and writable in one dispatch.
        let slot = |a: &Argument| match *a {
            Argument::Input(i) | Argument::Texture(i) => step.inputs[i].slot,
            Argument::Output(i) => step.outputs[i].slot,
            Argument::Scratch(i) => Slot::Temporary(step.scratch[i]),
        };
        let inputs = dispatch.arguments.iter().filter(|a| matches!(a, Argument::Input(_)));
        for input in inputs.map(slot) {
            let others =
                dispatch.arguments.iter().filter(|a| matches!(a, Argument::Output(_) | Argument::Scratch(_)));
            if others.map(slot).any(|s| s == input) {
                return Err(Error::Limit(format!("'{name}' reads and writes one buffer in one dispatch")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_overlap_have_buffers_of_their_own() {
        // Pseudo-random spans, checked against the definition.
        let number = |i: usize, k: usize| crate::random::threefry([7, 0], [i as u32, k as u32])[0] as usize;
        let spans: Vec<Span> = (0..200)
            .map(|i| {
                let first = number(i, 0) % 100;
                Span { len: 1 + number(i, 1) % 50, first, last: first + number(i, 2) % 20 }
            })
            .collect();
        let (assigned, lens) = share(&spans);
        for (i, a) in spans.iter().enumerate() {
            assert!(a.len <= lens[assigned[i]]);
            for (j, b) in spans.iter().enumerate().take(i) {
                let apart = a.last < b.first || b.last < a.first;
                assert!(apart || assigned[i] != assigned[j], "{i} and {j} share {}", assigned[i]);
            }
        }
        assert!(lens.is_sorted_by(|a, b| a >= b));
        // No packing is below the largest sum that lives at once; this one is near it.
        let at = |t| spans.iter().filter(|s| (s.first..=s.last).contains(&t)).map(|s| s.len).sum::<usize>();
        let least = (0..120).map(at).max().unwrap_or(0);
        let taken: usize = lens.iter().sum();
        assert!(least <= taken && taken * 10 <= least * 13, "{taken} for at least {least}");
    }
}
