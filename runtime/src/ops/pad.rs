//! Padding with a constant, and slicing with a step: each other's gradient.
//!
//! Padding by `interior` zeros between neighbours and then slicing with step `interior + 1` gives
//! back the input.

use serde::{Deserialize, Serialize};

use super::elementwise::in_parts;
use super::launch::{Argument, ByFour, Kernel, Launch, by_four, params};
use super::{Operation, View, ViewMut, arity};
use crate::shape::Shape;

/// Axes in the order height, width, channels.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Pad {
    pub before: [usize; 3],
    pub after: [usize; 3],
    /// Values inserted between neighbours.
    pub interior: [usize; 3],
    pub value: f32,
}

/// Axes in the order height, width, channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slice {
    pub start: [usize; 3],
    pub step: [usize; 3],
    pub len: [usize; 3],
}

impl Slice {
    /// This slice and then `next`, as one; none where a number is too large.
    pub(crate) fn then(&self, next: &Self) -> Option<Self> {
        let mut both = *next;
        for a in 0..3 {
            both.start[a] = self.step[a].checked_mul(next.start[a])?.checked_add(self.start[a])?;
            both.step[a] = self.step[a].checked_mul(next.step[a])?;
        }
        Some(both)
    }

    /// The padding that undoes this slice of an image of `size` (height, width, channels), with
    /// zeros where values were left out.
    pub(crate) fn transpose(&self, size: [usize; 3]) -> Pad {
        let end = |a: usize| self.start[a] + (self.len[a] - 1) * self.step[a] + 1;
        Pad {
            before: self.start,
            after: std::array::from_fn(|a| size[a] - end(a)),
            interior: std::array::from_fn(|a| self.step[a] - 1),
            value: 0.0,
        }
    }
}

impl Pad {
    /// This padding and then `next`, as one; none where they pad with different values, or a number is too large.
    pub(crate) fn then(&self, next: &Self) -> Option<Self> {
        let mut both = *next;
        for a in 0..3 {
            let step = next.interior[a].checked_add(1)?;
            both.before[a] = self.before[a].checked_mul(step)?.checked_add(next.before[a])?;
            both.after[a] = self.after[a].checked_mul(step)?.checked_add(next.after[a])?;
            both.interior[a] = self.interior[a].checked_add(1)?.checked_mul(step)? - 1;
        }
        (self.value.to_bits() == next.value.to_bits()).then_some(both)
    }

    /// The slice that keeps exactly the values of an image of `size` that this padding surrounded.
    pub(crate) fn transpose(&self, size: [usize; 3]) -> Slice {
        Slice { start: self.before, step: self.interior.map(|i| i + 1), len: size }
    }
}

params! {
    struct PadParams {
        batch: u32,
        in_h: u32,
        in_w: u32,
        in_c: u32,
        out_h: u32,
        out_w: u32,
        out_c: u32,
        before_h: u32,
        before_w: u32,
        before_c: u32,
        step_h: u32,
        step_w: u32,
        step_c: u32,
        value: f32,
    }
}

impl PadParams {
    /// The kernel and the parameters for `x` and `y`, and how many channels it handles at once.
    fn pick(
        kernels: &ByFour,
        [x, y]: [Shape; 2],
        before: [usize; 3],
        step: [usize; 3],
        value: f32,
    ) -> (Kernel, Self, usize) {
        let in_fours = [x.channels(), y.channels(), before[2]].iter().all(|c| c.is_multiple_of(4));
        let (kernel, at_once) = kernels.pick(if in_fours && step[2] == 1 { 4 } else { 1 });
        let parameters = Self {
            batch: x.batch() as u32,
            in_h: x.height() as u32,
            in_w: x.width() as u32,
            in_c: (x.channels() / at_once) as u32,
            out_h: y.height() as u32,
            out_w: y.width() as u32,
            out_c: (y.channels() / at_once) as u32,
            before_h: before[0] as u32,
            before_w: before[1] as u32,
            before_c: (before[2] / at_once) as u32,
            step_h: step[0] as u32,
            step_w: step[1] as u32,
            step_c: step[2] as u32,
            value,
        };
        (kernel, parameters, at_once)
    }
}

const PAD: ByFour = by_four!("pad", PAD_PARAMS, PAD);
const SLICE: ByFour = by_four!("slice", PAD_PARAMS, SLICE);

/// Attributes come from files, and kernels hold them in 32 bits.
fn in_32_bits(attributes: [[usize; 3]; 3]) -> Result<(), String> {
    match attributes.as_flattened().iter().find(|&&x| x >= u32::MAX as usize) {
        Some(x) => Err(format!("an amount of {x} is too large")),
        None => Ok(()),
    }
}

/// Fours of neighbouring pixels of a row.
fn strips(y: Shape) -> usize {
    y.batch() * y.height() * y.width().div_ceil(4)
}

/// Image, row and column of pixel `i`.
fn pixel(shape: Shape, i: usize) -> [usize; 3] {
    let [_, height, width, _] = shape.0;
    [i / (height * width), i / width % height, i % width]
}

impl Operation for Pad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        in_32_bits([self.before, self.after, self.interior])?;
        let mut y = x;
        for a in 0..3 {
            let size = x.0[a + 1];
            let step = self.interior[a].checked_add(1).ok_or("padding overflows")?;
            y.0[a + 1] = step
                .checked_mul(size.saturating_sub(1))
                .and_then(|last| last.checked_add(size.min(1)))
                .and_then(|s| s.checked_add(self.before[a]))
                .and_then(|s| s.checked_add(self.after[a]))
                .ok_or("padding overflows")?;
        }
        Ok(vec![y])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let step = self.interior.map(|i| i + 1);
        let shapes = [inputs[0], outputs[0]];
        let (kernel, parameters, at_once) = PadParams::pick(&PAD, shapes, self.before, step, self.value);
        let threads = strips(outputs[0]) * outputs[0].channels() / at_once;
        Launch::single(kernel, &[Argument::Input(0), Argument::Output(0)], &parameters, threads)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let (x, shape) = (inputs[0], outputs[0].shape);
        let channels = shape.channels();
        // Where an output coordinate comes from, if not from the padding.
        let source = |axis: usize, at: usize| {
            let inside = at.checked_sub(self.before[axis])?;
            let step = self.interior[axis] + 1;
            (inside.is_multiple_of(step) && inside / step < x.shape.0[axis + 1]).then_some(inside / step)
        };
        in_parts(outputs[0].data, channels, |first, part| {
            for (i, y) in part.chunks_exact_mut(channels).enumerate() {
                y.fill(self.value);
                let [n, p, q] = pixel(shape, first / channels + i);
                if let (Some(i), Some(j)) = (source(0, p), source(1, q)) {
                    let from = ((n * x.shape.height() + i) * x.shape.width() + j) * x.shape.channels();
                    for (c, x) in x.data[from..from + x.shape.channels()].iter().enumerate() {
                        y[self.before[2] + c * (self.interior[2] + 1)] = *x;
                    }
                }
            }
        });
    }
}

impl Operation for Slice {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        in_32_bits([self.start, self.step, self.len])?;
        for a in 0..3 {
            let (start, step, len) = (self.start[a], self.step[a], self.len[a]);
            let last =
                len.checked_sub(1).and_then(|l| l.checked_mul(step)).and_then(|l| l.checked_add(start));
            if step == 0 || last.is_none_or(|last| last >= x.0[a + 1]) {
                return Err(format!(
                    "{len} values from {start} with step {step} leave a size of {}",
                    x.0[a + 1]
                ));
            }
        }
        Ok(vec![Shape([x.batch(), self.len[0], self.len[1], self.len[2]])])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let shapes = [inputs[0], outputs[0]];
        let (kernel, parameters, at_once) = PadParams::pick(&SLICE, shapes, self.start, self.step, 0.0);
        let threads = strips(outputs[0]) * outputs[0].channels() / at_once;
        Launch::single(kernel, &[Argument::Input(0), Argument::Output(0)], &parameters, threads)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let (x, shape) = (inputs[0], outputs[0].shape);
        let channels = shape.channels();
        in_parts(outputs[0].data, channels, |first, part| {
            for (i, y) in part.chunks_exact_mut(channels).enumerate() {
                let [n, p, q] = pixel(shape, first / channels + i);
                let (i, j) = (self.start[0] + p * self.step[0], self.start[1] + q * self.step[1]);
                let from = ((n * x.shape.height() + i) * x.shape.width() + j) * x.shape.channels();
                for (c, y) in y.iter_mut().enumerate() {
                    *y = x.data[from + self.start[2] + c * self.step[2]];
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &impl Operation, x: Shape, data: &[f32]) -> (Shape, Vec<f32>) {
        let shape = op.output_shapes(&[x]).expect("it fits")[0];
        let mut y = vec![f32::NAN; shape.len()];
        op.run(&[View { shape: x, data }], &mut [ViewMut { shape, data: &mut y }]);
        (shape, y)
    }

    #[test]
    fn two_at_once_are_one_after_the_other() {
        let x = Shape([2, 9, 11, 5]);
        let data: Vec<f32> = (0..x.len() as u16).map(f32::from).collect();
        let a = Slice { start: [1, 0, 2], step: [2, 3, 1], len: [4, 4, 3] };
        let b = Slice { start: [0, 1, 1], step: [3, 1, 1], len: [2, 3, 2] };
        let (between, once) = run(&a, x, &data);
        assert_eq!(run(&b, between, &once), run(&a.then(&b).expect("they are small"), x, &data));

        let a = Pad { before: [1, 0, 2], after: [0, 3, 1], interior: [1, 0, 2], value: 0.5 };
        let b = Pad { before: [0, 2, 1], after: [1, 1, 0], interior: [2, 1, 0], value: 0.5 };
        let (between, once) = run(&a, x, &data);
        assert_eq!(run(&b, between, &once), run(&a.then(&b).expect("they are small"), x, &data));

        assert_eq!(a.then(&Pad { value: -0.5, ..b }), None);
        assert_eq!(a.then(&Pad { interior: [usize::MAX; 3], ..b }), None);
    }
}
