//! The CPU executor: runs a plan step by step through the operations' CPU twins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::graph::Variable;
use crate::ops::{Elements, View, ViewMut};
use crate::plan::{Operand, Plan, Slot, Step};
use crate::profile::StepTime;
use crate::shape::Shape;

/// Host memory, and the threads of the global rayon pool.
#[derive(Default)]
pub struct Cpu {
    variables: Vec<Vec<f32>>,
    /// Temporaries, shared by all plans: they run one after the other.
    temporaries: Vec<Vec<f32>>,
    /// Weights that all programs share: the variable is there until one has rearranged it, and then that alone.
    shared: HashMap<u32, Option<Arc<Elements>>>,
    /// Bytes of the weights that programs keep rearranged, each for itself.
    rearranged_bytes: u64,
    /// What each step took, while somebody wants to know.
    pub(crate) times: Option<Vec<StepTime>>,
}

/// A plan, and what its operations keep from one run to the next.
pub(crate) struct CpuProgram {
    plan: Plan,
    /// For each step: the rearranged weight, where it stays the same from run to run.
    kept: Vec<Kept>,
    /// For each step: the variables that nothing reads any more once its weight is rearranged.
    spent: Vec<Vec<Variable>>,
    /// Bytes of the weights that are kept.
    bytes: u64,
}

enum Kept {
    /// The weight may change from run to run.
    Nothing,
    NotYet,
    /// It was kept before the weight changed.
    Outdated,
    Weight(Arc<Elements>),
    /// A step before this one, of this number, keeps the same.
    Before(usize),
    /// All programs have it in common.
    Shared(Variable),
}

/// The weight that a step may keep rearranged, because it is one of `fixed` and the plan does not write it.
fn fixed_weight(plan: &Plan, step: &Step, fixed: &[Variable]) -> Option<Variable> {
    let weight = step.inputs[step.op.weight_input()?];
    let Slot::Variable(variable) = weight.slot else { return None };
    let written = |s: &Step| s.outputs.iter().any(|o| o.slot == weight.slot);
    (fixed.contains(&variable) && !plan.steps.iter().any(written)).then_some(variable)
}

/// For each step whose weight a program of `plan` keeps rearranged: that, and the first step with the same.
fn kept_weights(plan: &Plan, fixed: &[Variable]) -> Vec<Option<(Variable, usize)>> {
    // What follows a convolution does not change how its weight is arranged.
    let same = |a: &Step, b: &Step| {
        a.op.convolution() == b.op.convolution() && a.outputs[0].shape == b.outputs[0].shape
    };
    let mut kept: Vec<Option<(Variable, usize)>> = Vec::with_capacity(plan.steps.len());
    for (i, step) in plan.steps.iter().enumerate() {
        let weight = fixed_weight(plan, step, fixed).map(|variable| {
            let is_before = |&j: &usize| kept[j] == Some((variable, j)) && same(&plan.steps[j], step);
            (variable, (0..i).find(is_before).unwrap_or(i))
        });
        kept.push(weight);
    }
    kept
}

/// Bytes of the weights that a program of `plan` keeps rearranged, without the padding of small ones.
pub(crate) fn rearranged_bytes(plan: &Plan, fixed: &[Variable]) -> u64 {
    let bytes = |(i, kept): (usize, Option<(Variable, usize)>)| {
        let step = &plan.steps[i];
        let inputs: Vec<Shape> = step.inputs.iter().map(|i| i.shape).collect();
        let (_, first) = kept?;
        (first == i).then(|| step.op.rearranged_len(&inputs, step.outputs[0].shape) as u64 * 4)
    };
    kept_weights(plan, fixed).into_iter().enumerate().filter_map(bytes).sum()
}

/// Those of `made` that a program of `plan` reads as weights that it keeps rearranged, and not otherwise: from
/// when it has them until the prologue makes them anew, they need not be there.
pub(crate) fn only_rearranged(plan: &Plan, fixed: &[Variable], made: &[Variable]) -> Vec<Variable> {
    let mut reads: HashMap<Variable, bool> = HashMap::new();
    for step in &plan.steps {
        let kept = fixed_weight(plan, step, fixed).and(step.op.weight_input());
        for (i, input) in step.inputs.iter().enumerate() {
            if let Slot::Variable(variable) = input.slot {
                *reads.entry(variable).or_insert(true) &= kept == Some(i);
            }
        }
    }
    made.iter().copied().filter(|v| reads.get(v) == Some(&true)).collect()
}

impl CpuProgram {
    /// `fixed` are the variables that change seldom; [`CpuProgram::forget`] says when. `spent` are those of them
    /// that [`only_rearranged`] found.
    pub(crate) fn new(plan: Plan, fixed: &[Variable], spent: &[Variable], cpu: &Cpu) -> Self {
        let keep = |(i, weight): (usize, Option<(Variable, usize)>)| match weight {
            Some((variable, _)) if cpu.is_shared(variable) => Kept::Shared(variable),
            Some((_, first)) if first < i => Kept::Before(first),
            Some(_) => Kept::NotYet,
            None => Kept::Nothing,
        };
        let kept: Vec<Kept> = kept_weights(&plan, fixed).into_iter().enumerate().map(keep).collect();
        let mut after = vec![Vec::new(); plan.steps.len()];
        for &variable in spent {
            let rearranges = |(step, kept): (&Step, &Kept)| {
                step.inputs.iter().any(|i| i.slot == Slot::Variable(variable))
                    && !matches!(kept, Kept::Before(_))
            };
            if let Some(last) = plan.steps.iter().zip(&kept).rposition(rearranges) {
                after[last].push(variable);
            }
        }
        Self { plan, kept, spent: after, bytes: 0 }
    }

    /// The fixed variables have changed.
    pub(crate) fn forget(&mut self) {
        for kept in &mut self.kept {
            if matches!(kept, Kept::Weight(_)) {
                *kept = Kept::Outdated;
            }
        }
    }
}

impl Cpu {
    pub(crate) fn variable(&mut self, len: usize) -> Variable {
        self.variables.push(vec![0.0; len]);
        Variable { id: self.variables.len() as u32 - 1, len }
    }

    /// Lets programs compiled from now on have this weight in common. Each reads it once, by an operation that
    /// rearranges it, and that in the same order in all of them; nothing else reads it on the device.
    pub(crate) fn share(&mut self, weight: Variable) {
        self.shared.insert(weight.id, None);
    }

    pub(crate) fn is_shared(&self, variable: Variable) -> bool {
        self.shared.contains_key(&variable.id)
    }

    pub(crate) fn variable_bytes(&self) -> u64 {
        let shared = self.shared.values().flatten().map(|weight| weight.bytes());
        self.variables.iter().map(|v| v.len() as u64 * 4).sum::<u64>() + shared.sum::<u64>()
    }

    pub(crate) fn temporary_bytes(&self) -> u64 {
        self.temporaries.iter().map(|t| t.len() as u64 * 4).sum()
    }

    pub(crate) const fn rearranged_bytes(&self) -> u64 {
        self.rearranged_bytes
    }

    /// Gives the memory of a variable back. It is there again, of zeros, when a program writes it.
    pub(crate) fn release(&mut self, variable: Variable) {
        self.variables[variable.id as usize] = Vec::new();
    }

    /// Gives back what a program kept that runs no more.
    pub(crate) fn release_program(&mut self, program: &CpuProgram) {
        self.rearranged_bytes -= program.bytes;
    }

    /// Gives the memory of all temporaries back, until a program needs them.
    pub(crate) fn release_temporaries(&mut self) {
        self.temporaries.clear();
    }

    pub(crate) fn write(&mut self, variable: Variable, values: &[f32]) {
        let data = &mut self.variables[variable.id as usize];
        // What was rearranged is no longer it.
        if let Some(shared) = self.shared.get_mut(&variable.id) {
            *shared = None;
            data.resize(variable.len, 0.0);
        }
        data[..values.len()].copy_from_slice(values);
    }

    pub(crate) fn read(&self, variable: Variable) -> Vec<f32> {
        self.variables[variable.id as usize].clone()
    }

    pub(crate) fn run(&mut self, program: &mut CpuProgram) -> Result<()> {
        let plan = &program.plan;
        for (i, &len) in plan.temporaries.buffers.iter().enumerate() {
            if i == self.temporaries.len() {
                self.temporaries.push(Vec::new());
            }
            if self.temporaries[i].len() < len {
                self.temporaries[i].resize(len, 0.0);
            }
        }
        for (i, (step, spent)) in plan.steps.iter().zip(&program.spent).enumerate() {
            // A browser's threads have no clock.
            let start = self.times.is_some().then(Instant::now);
            // Outputs leave their places while the step runs, so that inputs can be borrowed.
            let mut taken: Vec<Vec<f32>> = step.outputs.iter().map(|o| self.take(o.slot)).collect();
            let kept_by = if let Kept::Before(first) = program.kept[i] { first } else { i };
            let kept = &mut program.kept[kept_by];
            let mut weight = match kept {
                Kept::Weight(weight) => Some(Arc::clone(weight)),
                Kept::Shared(variable) => self.shared[&variable.id].clone(),
                Kept::Nothing | Kept::NotYet | Kept::Outdated | Kept::Before(_) => None,
            };
            // The weight itself may be gone once it is kept rearranged.
            let gone = if weight.is_some() { step.op.weight_input() } else { None };
            let view = |(i, input): (usize, &Operand)| View {
                shape: input.shape,
                data: if gone == Some(i) { &[] } else { self.view(input) },
            };
            let inputs: Vec<View<'_>> = step.inputs.iter().enumerate().map(view).collect();
            let mut outputs: Vec<ViewMut<'_>> = step
                .outputs
                .iter()
                .zip(&mut taken)
                .map(|(o, data)| ViewMut { shape: o.shape, data: &mut data[..o.shape.len()] })
                .collect();
            let rearranges = weight.is_none() && !matches!(kept, Kept::Nothing);
            if rearranges {
                weight = Some(Arc::new(step.op.rearrange(&inputs, outputs[0].shape)));
            }
            match &weight {
                Some(weight) => step.op.run_rearranged(&inputs, weight, &mut outputs),
                None => step.op.run(&inputs, &mut outputs),
            }
            if let Some(weight) = weight.filter(|_| rearranges) {
                spent.iter().for_each(|variable| self.variables[variable.id as usize] = Vec::new());
                if let Kept::Shared(variable) = kept {
                    self.variables[variable.id as usize] = Vec::new();
                    self.shared.insert(variable.id, Some(weight));
                } else {
                    let new_bytes = if matches!(kept, Kept::NotYet) { weight.bytes() } else { 0 };
                    self.rearranged_bytes += new_bytes;
                    program.bytes += new_bytes;
                    *kept = Kept::Weight(weight);
                }
            }
            for (output, data) in step.outputs.iter().zip(taken) {
                *self.buffer(output.slot) = data;
            }
            if let (Some(times), Some(start)) = (&mut self.times, start) {
                times.push(StepTime::new(step, start.elapsed().as_secs_f64()));
            }
        }
        Ok(())
    }

    /// The contents of a buffer that is about to be written.
    fn take(&mut self, slot: Slot) -> Vec<f32> {
        let mut data = std::mem::take(self.buffer(slot));
        if let Slot::Variable(variable) = slot {
            // It may have been released.
            data.resize(variable.len, 0.0);
        }
        data
    }

    fn buffer(&mut self, slot: Slot) -> &mut Vec<f32> {
        match slot {
            Slot::Variable(v) => &mut self.variables[v.id as usize],
            Slot::Temporary(t) => &mut self.temporaries[t],
        }
    }

    fn view(&self, operand: &Operand) -> &[f32] {
        let data = match operand.slot {
            Slot::Variable(v) => &self.variables[v.id as usize],
            Slot::Temporary(t) => &self.temporaries[t],
        };
        &data[..operand.shape.len()]
    }
}

#[cfg(test)]
mod tests {
    use crate::architectures::Architecture;
    use crate::device::{Device, Program};
    use crate::graph::Graph;
    use crate::model::Model;
    use crate::ops::{Conv2d, Copy, Op};
    use crate::session::{Images, Session};
    use crate::shape::Shape;

    /// Two convolutions of one kind keep a weight once, and one of another kind for itself, also when it changes.
    #[test]
    fn convolutions_that_arrange_a_weight_alike_keep_it_once() {
        let mut device = Device::cpu();
        let (x_shape, w_shape) = (Shape([1, 8, 8, 32]), Shape([3, 3, 32, 32]));
        let values =
            |len: usize| -> Vec<f32> { (0..len).map(|i| (i * 7919 % 1009) as f32 / 504.0).collect() };
        let x = device.variable_from(&values(x_shape.len())).expect("it fits");
        let w = device.variable_from(&values(w_shape.len())).expect("it fits");
        let one = Conv2d { pads: [1; 4], ..Conv2d::LINEAR };
        let two = Conv2d { stride: [2, 2], ..one };
        let mut graph = Graph::new();
        let (xs, ws) = (graph.variable(x, x_shape), graph.variable(w, w_shape));
        let mut outputs = Vec::new();
        for conv in [one, two, one, two] {
            let y = graph.add(Op::Conv2d(conv), &[xs, ws]).expect("the shapes fit");
            let variable = device.variable(graph.shape(y).len()).expect("it fits");
            let target = graph.variable(variable, graph.shape(y));
            graph.update(Op::Copy(Copy), &[y], &[target]).expect("the shapes fit");
            outputs.push(variable);
        }
        let mut plain = device.compile(&graph).expect("it fits");
        let mut keeping = device.compile_with(&graph, &[w]).expect("it fits");
        device.run(&mut plain).expect("it runs");
        let without = device.allocated_bytes();
        for factor in [1.0, 0.5] {
            device.write(w, &values(w_shape.len()).iter().map(|w| w * factor).collect::<Vec<f32>>());
            let run = |program: &mut Program, device: &mut Device| {
                device.run(program).expect("it runs");
                outputs.iter().map(|&y| device.read(y).expect("it is there")).collect::<Vec<_>>()
            };
            let expected = run(&mut plain, &mut device);
            assert_ne!(expected[0], vec![0.0; expected[0].len()]);
            // Once to arrange it, once as it is kept.
            assert_eq!(run(&mut keeping, &mut device), expected, "times {factor}");
            assert_eq!(run(&mut keeping, &mut device), expected, "times {factor}, again");
        }
        // Winograd's 16 elements for the first kind, 9 for the other.
        assert_eq!(device.allocated_bytes() - without, (16 + 9) * 32 * 32 * 4);
    }

    /// Folded weights are there once, rearranged, and come back when the weights change.
    #[test]
    fn made_weights_are_not_kept_beside_their_rearranged_copies() {
        let model = Architecture::build("resnet8", [3, 16, 16], 10, 1).expect("it is known");
        let parameters: usize = model.values.iter().map(|t| t.data.len() * 4).sum();
        let mut halved = model.values.clone();
        halved.iter_mut().flat_map(|t| &mut t.data).for_each(|w| *w *= 0.5);
        let images: Vec<f32> = (0..2 * 3 * 16 * 16).map(|i| (i % 251) as f32 / 250.0).collect();
        let session = |model: &Model| {
            let mut session = Session::new(Device::cpu(), model, 2).expect("it fits");
            session.load(&images, &[0, 1], &[0, 1]).expect("they fit");
            session
        };
        let mut one = session(&model);
        let before = one.device().variable_bytes();
        let first = one.logits(2, Images::Clean).expect("it runs");
        let more = (one.device().variable_bytes() - before) as usize;
        assert!(more * 20 < parameters, "{more} bytes stay beside {parameters} of weights");
        assert_eq!(one.logits(2, Images::Clean).expect("it runs again"), first);
        one.write_parameters(&halved).expect("they fit");
        let expected = session(&Model { values: halved, ..model }).logits(2, Images::Clean).expect("it runs");
        let found = one.logits(2, Images::Clean).expect("it runs");
        assert_eq!(found, expected);
        assert_ne!(found, first);
    }
}
