//! The CPU executor: runs a plan step by step through the operations' CPU twins.

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
    /// Bytes of the weights that programs keep rearranged.
    rearranged_bytes: u64,
    /// What each step took, while somebody wants to know.
    pub(crate) times: Option<Vec<StepTime>>,
}

/// A plan, and what its operations keep from one run to the next.
pub(crate) struct CpuProgram {
    plan: Plan,
    /// For each step: the rearranged weight, where it stays the same from run to run.
    kept: Vec<Kept>,
}

enum Kept {
    /// The weight may change from run to run.
    Nothing,
    NotYet,
    /// It was kept before the weight changed.
    Outdated,
    Weight(Elements),
}

/// The shape of the weight that a step may keep rearranged, because it is one of `fixed` and the plan
/// does not write it.
fn fixed_weight(plan: &Plan, step: &Step, fixed: &[Variable]) -> Option<Shape> {
    let weight = step.inputs[step.op.weight_input()?];
    let Slot::Variable(variable) = weight.slot else { return None };
    let written = |s: &Step| s.outputs.iter().any(|o| o.slot == weight.slot);
    (fixed.contains(&variable) && !plan.steps.iter().any(written)).then_some(weight.shape)
}

/// Bytes of the weights that a program of `plan` keeps rearranged, without the padding of small ones.
pub(crate) fn rearranged_bytes(plan: &Plan, fixed: &[Variable]) -> u64 {
    let weights = plan.steps.iter().filter_map(|step| fixed_weight(plan, step, fixed));
    weights.map(|shape| shape.len() as u64 * 4).sum()
}

impl CpuProgram {
    /// `fixed` are the variables that change seldom; [`CpuProgram::forget`] says when.
    pub(crate) fn new(plan: Plan, fixed: &[Variable]) -> Self {
        let keep = |step| match fixed_weight(&plan, step, fixed) {
            Some(_) => Kept::NotYet,
            None => Kept::Nothing,
        };
        let kept = plan.steps.iter().map(keep).collect();
        Self { plan, kept }
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

    pub(crate) fn variable_bytes(&self) -> u64 {
        self.variables.iter().map(|v| v.len() as u64 * 4).sum()
    }

    pub(crate) fn temporary_bytes(&self) -> u64 {
        self.temporaries.iter().map(|t| t.len() as u64 * 4).sum()
    }

    pub(crate) const fn rearranged_bytes(&self) -> u64 {
        self.rearranged_bytes
    }

    pub(crate) fn write(&mut self, variable: Variable, values: &[f32]) {
        self.variables[variable.id as usize][..values.len()].copy_from_slice(values);
    }

    pub(crate) fn read(&self, variable: Variable) -> Vec<f32> {
        self.variables[variable.id as usize].clone()
    }

    pub(crate) fn run(&mut self, program: &mut CpuProgram) -> Result<()> {
        let plan = &program.plan;
        for (i, &len) in plan.temporaries.iter().enumerate() {
            if i == self.temporaries.len() {
                self.temporaries.push(Vec::new());
            }
            if self.temporaries[i].len() < len {
                self.temporaries[i].resize(len, 0.0);
            }
        }
        for (step, kept) in plan.steps.iter().zip(&mut program.kept) {
            let start = Instant::now();
            // Outputs leave their places while the step runs, so that inputs can be borrowed.
            let mut taken: Vec<Vec<f32>> =
                step.outputs.iter().map(|o| std::mem::take(self.buffer(o.slot))).collect();
            let inputs: Vec<View<'_>> =
                step.inputs.iter().map(|input| View { shape: input.shape, data: self.view(input) }).collect();
            let mut outputs: Vec<ViewMut<'_>> = step
                .outputs
                .iter()
                .zip(&mut taken)
                .map(|(o, data)| ViewMut { shape: o.shape, data: &mut data[..o.shape.len()] })
                .collect();
            let mut new_bytes = 0;
            if matches!(kept, Kept::NotYet | Kept::Outdated) {
                let weight = step.op.rearrange(&inputs, outputs[0].shape);
                if matches!(kept, Kept::NotYet) {
                    new_bytes = weight.bytes();
                }
                *kept = Kept::Weight(weight);
            }
            match kept {
                Kept::Weight(weight) => step.op.run_rearranged(&inputs, weight, &mut outputs),
                _ => step.op.run(&inputs, &mut outputs),
            }
            self.rearranged_bytes += new_bytes;
            for (output, data) in step.outputs.iter().zip(taken) {
                *self.buffer(output.slot) = data;
            }
            if let Some(times) = &mut self.times {
                times.push(StepTime::new(step, start.elapsed().as_secs_f64()));
            }
        }
        Ok(())
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
