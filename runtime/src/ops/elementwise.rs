//! Elementwise helpers and the simplest operations.

use pulp::Arch;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity};
use crate::shape::Shape;

/// Elements that one CPU task takes: enough to outweigh starting it.
const TASK: usize = 16 * 1024;

/// Does `work` with the widest vectors that the processor has, where the compiler makes vectors of it.
#[inline(always)]
pub(super) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// min(max(x, low), high) as two selections: NaN stays what it is, unlike with f32::max, and loops become vectors.
#[inline(always)]
pub(super) fn between(low: f32, high: f32, x: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// `out[i] = f(a[i])`.
pub(super) fn map(a: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    out.par_chunks_mut(TASK).zip(a.par_chunks(TASK)).for_each(|(out, a)| {
        vectorized(
            #[inline(always)]
            || {
                for (out, &a) in out.iter_mut().zip(a) {
                    *out = f(a);
                }
            },
        );
    });
}

/// `out[i] = f(a[i], b[i])`.
pub(super) fn zip(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    out.par_chunks_mut(TASK).zip(a.par_chunks(TASK)).zip(b.par_chunks(TASK)).for_each(|((out, a), b)| {
        vectorized(
            #[inline(always)]
            || {
                for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                    *out = f(a, b);
                }
            },
        );
    });
}

/// Calls `f(first element, part)` for parts of `out` whose lengths are multiples of `unit`.
pub(super) fn in_parts(out: &mut [f32], unit: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let task = TASK.div_ceil(unit) * unit;
    out.par_chunks_mut(task).enumerate().for_each(|(i, part)| {
        vectorized(
            #[inline(always)]
            || f(i * task, part),
        );
    });
}

params! {
    pub(super) struct LenParams { len: u32, }
}

params! {
    struct ScaleParams { len: u32, factor: f32, }
}

/// `factor * x`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scale {
    pub factor: f32,
}

const SCALE: Kernel =
    Kernel { name: "scale", sources: &[adamant_shaders::INDEX, adamant_shaders::SCALE], workgroup: 64 };

impl Operation for Scale {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let parameters = ScaleParams { len: inputs[0].len() as u32, factor: self.factor };
        Launch::single(
            SCALE,
            &[Argument::Input(0), Argument::Output(0)],
            &parameters,
            inputs[0].len().div_ceil(4),
        )
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        map(inputs[0].data, outputs[0].data, |x| self.factor * x);
    }
}

/// A copy, usually into a variable that outlives the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Copy;

impl Operation for Copy {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let parameters = ScaleParams { len: inputs[0].len() as u32, factor: 1.0 };
        Launch::single(
            SCALE,
            &[Argument::Input(0), Argument::Output(0)],
            &parameters,
            inputs[0].len().div_ceil(4),
        )
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        outputs[0].data.copy_from_slice(inputs[0].data);
    }
}

/// A constant in every element.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Fill {
    pub value: f32,
    pub shape: Shape,
}

params! {
    struct FillParams { len: u32, value: f32, }
}

const FILL: Kernel =
    Kernel { name: "fill", sources: &[adamant_shaders::INDEX, adamant_shaders::FILL], workgroup: 64 };

impl Operation for Fill {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [] = arity(inputs)?;
        Ok(vec![self.shape])
    }

    fn launch(&self, _inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let parameters = FillParams { len: outputs[0].len() as u32, value: self.value };
        Launch::single(FILL, &[Argument::Output(0)], &parameters, outputs[0].len())
    }

    fn run(&self, _inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        outputs[0].data.fill(self.value);
    }
}

/// Adds its input to a variable: sums over many batches that never leave the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accumulate;

const ACCUMULATE: Kernel = Kernel {
    name: "accumulate",
    sources: &[adamant_shaders::INDEX, adamant_shaders::ACCUMULATE],
    workgroup: 64,
};

impl Operation for Accumulate {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let parameters = LenParams { len: inputs[0].len() as u32 };
        Launch::single(ACCUMULATE, &[Argument::Input(0), Argument::Output(0)], &parameters, inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        for (into, from) in outputs[0].data.iter_mut().zip(inputs[0].data) {
            *into += from;
        }
    }
}
