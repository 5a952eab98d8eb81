//! What each step of a program took.

use crate::plan::Step;
use crate::shape::Shape;

/// One run of one operation.
#[derive(Clone, PartialEq, Debug)]
pub struct StepTime {
    /// The layer that the step belongs to; empty for what belongs to none.
    pub label: String,
    pub op: &'static str,
    pub seconds: f64,
    /// Multiplications and additions.
    pub flops: u64,
    /// Bytes of all operands, each counted once.
    pub bytes: u64,
}

impl StepTime {
    pub(crate) fn new(step: &Step, seconds: f64) -> Self {
        let operands = step.inputs.iter().chain(&step.outputs);
        Self {
            label: step.label.clone(),
            op: step.op.name(),
            seconds,
            flops: flops(step),
            bytes: operands.map(|o| o.shape.len() as u64 * 4).sum(),
        }
    }
}

/// Multiplications and additions of a step.
pub(crate) fn flops(step: &Step) -> u64 {
    let shapes = |operands: &[crate::plan::Operand]| operands.iter().map(|o| o.shape).collect::<Vec<Shape>>();
    step.op.flops(&shapes(&step.inputs), &shapes(&step.outputs))
}
