//! The CPU executor: runs a plan step by step through the operations' CPU twins.

use std::time::Instant;

use crate::error::Result;
use crate::graph::Variable;
use crate::ops::{View, ViewMut};
use crate::plan::{Operand, Plan, Slot, Step};
use crate::profile::StepTime;

/// Host memory, and the threads of the global rayon pool.
#[derive(Default)]
pub struct Cpu {
    variables: Vec<Vec<f32>>,
    /// Temporaries, shared by all plans: they run one after the other.
    temporaries: Vec<Vec<f32>>,
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
    Weight(Vec<f32>),
}

impl CpuProgram {
    /// `fixed` are the variables that change seldom; [`CpuProgram::forget`] says when.
    pub(crate) fn new(plan: Plan, fixed: &[Variable]) -> Self {
        let is_fixed = |step: &Step| {
            step.op.weight_input().is_some_and(|i| match step.inputs[i].slot {
                Slot::Variable(variable) => {
                    let written = |s: &Step| s.outputs.iter().any(|o| o.slot == step.inputs[i].slot);
                    fixed.contains(&variable) && !plan.steps.iter().any(written)
                }
                Slot::Temporary(_) => false,
            })
        };
        let kept =
            plan.steps.iter().map(|s| if is_fixed(s) { Kept::NotYet } else { Kept::Nothing }).collect();
        Self { plan, kept }
    }

    /// The fixed variables have changed.
    pub(crate) fn forget(&mut self) {
        for kept in &mut self.kept {
            if matches!(kept, Kept::Weight(_)) {
                *kept = Kept::NotYet;
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
            if matches!(kept, Kept::NotYet) {
                *kept = Kept::Weight(step.op.rearrange(&inputs, outputs[0].shape));
            }
            match kept {
                Kept::Weight(weight) => step.op.run_rearranged(&inputs, weight, &mut outputs),
                _ => step.op.run(&inputs, &mut outputs),
            }
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
