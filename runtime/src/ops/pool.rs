//! Max and average pooling. Global average pooling is an average over a window of the whole image.

use serde::{Deserialize, Serialize};

use super::elementwise::in_parts;
use super::launch::{Argument, ByFour, Kernel, Launch, by_four, params};
use super::{Operation, View, ViewMut, arity, same, window_size};
use crate::shape::Shape;

/// A sliding window, vertical before horizontal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    pub dilation: [usize; 2],
    /// Keep a last window that runs over the edge (`ceil_mode`), unless it starts in the padding.
    pub ceil: bool,
}

impl Window {
    /// One window over a whole image.
    pub const fn global(height: usize, width: usize) -> Self {
        Self { kernel: [height, width], stride: [1, 1], pads: [0; 4], dilation: [1, 1], ceil: false }
    }

    fn output(&self, x: Shape) -> Result<Shape, String> {
        let axis = |size: usize, axis: usize| {
            let (before, after) = (self.pads[axis], self.pads[axis + 2]);
            let (kernel, stride, dilation) = (self.kernel[axis], self.stride[axis], self.dilation[axis]);
            if before >= kernel.saturating_mul(dilation) || after >= kernel.saturating_mul(dilation) {
                return Err(format!(
                    "padding {before} and {after} for a window of {kernel}: it must be smaller"
                ));
            }
            let floor = window_size(size, before, after, kernel, stride, dilation)?;
            let covered = (floor - 1) * stride + (kernel - 1) * dilation + 1;
            let more = self.ceil && covered < size + before + after && floor * stride < size + before;
            Ok(floor + usize::from(more))
        };
        Ok(Shape([x.batch(), axis(x.height(), 0)?, axis(x.width(), 1)?, x.channels()]))
    }

    /// The input rows (axis 0) or columns (axis 1) that output `i` sees, padding left out.
    fn taps(&self, axis: usize, i: usize, size: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        let (start, pad, dilation) = (i * self.stride[axis], self.pads[axis], self.dilation[axis]);
        (0..self.kernel[axis])
            .filter_map(move |k| (start + k * dilation).checked_sub(pad))
            .filter(move |&j| j < size)
    }

    /// The number of positions of output `i` inside the padded image.
    fn padded_taps(&self, axis: usize, i: usize, size: usize) -> usize {
        let padded = size + self.pads[axis] + self.pads[axis + 2];
        (0..self.kernel[axis]).filter(|k| i * self.stride[axis] + k * self.dilation[axis] < padded).count()
    }
}

/// Input: x. Ties go to the first position in row-major order, as in PyTorch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MaxPool {
    pub window: Window,
}

/// Inputs: x, dy. Output: dx.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MaxPoolGrad {
    pub window: Window,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AvgPool {
    pub window: Window,
    /// Whether padded positions count in the divisor.
    pub count_include_pad: bool,
}

/// Input: dy. Output: dx.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AvgPoolGrad {
    pub pool: AvgPool,
    /// Height and width of the pooling's input.
    pub input: [usize; 2],
}

params! {
    struct PoolParams {
        batch: u32,
        in_h: u32,
        in_w: u32,
        out_h: u32,
        out_w: u32,
        channels: u32,
        kernel_h: u32,
        kernel_w: u32,
        stride_h: u32,
        stride_w: u32,
        pad_top: u32,
        pad_left: u32,
        pad_bottom: u32,
        pad_right: u32,
        dilation_h: u32,
        dilation_w: u32,
        include_pad: u32,
    }
}

impl PoolParams {
    /// For a kernel that handles `at_once` channels.
    fn new(window: &Window, x: Shape, y: Shape, include_pad: bool, at_once: usize) -> Self {
        Self {
            batch: x.batch() as u32,
            in_h: x.height() as u32,
            in_w: x.width() as u32,
            out_h: y.height() as u32,
            out_w: y.width() as u32,
            channels: (x.channels() / at_once) as u32,
            kernel_h: window.kernel[0] as u32,
            kernel_w: window.kernel[1] as u32,
            stride_h: window.stride[0] as u32,
            stride_w: window.stride[1] as u32,
            pad_top: window.pads[0] as u32,
            pad_left: window.pads[1] as u32,
            pad_bottom: window.pads[2] as u32,
            pad_right: window.pads[3] as u32,
            dilation_h: window.dilation[0] as u32,
            dilation_w: window.dilation[1] as u32,
            include_pad: include_pad.into(),
        }
    }
}

macro_rules! kernel {
    ($name:literal, $($source:ident),+) => {
        Kernel {
            name: $name,
            sources: &[adamant_shaders::INDEX, adamant_shaders::POOL_PARAMS, $(adamant_shaders::$source),+],
            workgroup: 64,
        }
    };
}

const MAX_POOL: Kernel = kernel!("max_pool", IS_NAN, MAX_POOL);
const MAX_POOL_GRAD: Kernel = kernel!("max_pool_grad", MAX_POOL_GRAD);
const AVG_POOL: ByFour = by_four!("avg_pool", POOL_PARAMS, AVG_POOL);
const AVG_POOL_GRAD: ByFour = by_four!("avg_pool_grad", POOL_PARAMS, AVG_POOL_GRAD);

/// Channels whose largest value is looked for at once.
const TOGETHER: usize = 64;

/// Calls `f(image, row, column, values of all channels)` for each output pixel.
fn pixels(y: &mut ViewMut<'_>, f: impl Fn(usize, usize, usize, &mut [f32]) + Sync) {
    let [_, height, width, channels] = y.shape.0;
    in_parts(y.data, channels, |first, part| {
        for (i, pixel) in part.chunks_exact_mut(channels).enumerate() {
            let i = first / channels + i;
            f(i / (height * width), i / width % height, i % width, pixel);
        }
    });
}

impl Operation for MaxPool {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![self.window.output(x)?])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let parameters = PoolParams::new(&self.window, inputs[0], outputs[0], false, 1);
        Launch::single(MAX_POOL, &[Argument::Input(0), Argument::Output(0)], &parameters, outputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let x = inputs[0];
        let [_, height, width, channels] = x.shape.0;
        pixels(&mut outputs[0], |n, p, q, y| {
            y.fill(f32::NEG_INFINITY);
            for i in self.window.taps(0, p, height) {
                for j in self.window.taps(1, q, width) {
                    let start = ((n * height + i) * width + j) * channels;
                    for (y, &x) in y.iter_mut().zip(&x.data[start..start + channels]) {
                        // `|`, not `||`: a branch would keep the loop from vectorising.
                        let take = (x > *y) | x.is_nan();
                        *y = if take { x } else { *y };
                    }
                }
            }
        });
    }
}

impl Operation for MaxPoolGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, dy] = arity(inputs)?;
        same(self.window.output(x)?, dy)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let parameters = PoolParams::new(&self.window, inputs[0], inputs[1], false, 1);
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        Launch::single(MAX_POOL_GRAD, &arguments, &parameters, outputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let (x, dy) = (inputs[0], inputs[1]);
        let [_, height, width, channels] = x.shape.0;
        let [_, out_h, out_w, _] = dy.shape.0;
        in_parts(outputs[0].data, x.shape.per_batch(), |first, part| {
            part.fill(0.0);
            let image = first / x.shape.per_batch();
            for (n, dx) in part.chunks_exact_mut(x.shape.per_batch()).enumerate() {
                let x = &x.data[(image + n) * dx.len()..][..dx.len()];
                for (p, q) in (0..out_h * out_w).map(|i| (i / out_w, i % out_w)) {
                    let dy = &dy.data[(((image + n) * out_h + p) * out_w + q) * channels..][..channels];
                    let rows = self.window.taps(0, p, height);
                    let pixels = rows.flat_map(|i| self.window.taps(1, q, width).map(move |j| i * width + j));
                    for (block, dy) in dy.chunks(TOGETHER).enumerate() {
                        let starts = pixels.clone().map(|pixel| pixel * channels + block * TOGETHER);
                        to_the_largest(starts, x, dy, dx);
                    }
                }
            }
        });
    }
}

/// Adds each channel of `dy`, of which there are `TOGETHER` at most, to `dx` where `x` is the largest of those that
/// begin at `starts`.
fn to_the_largest(starts: impl Iterator<Item = usize> + Clone, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (mut largest, mut place) = ([0.0; TOGETHER], [0; TOGETHER]);
    for (tap, start) in (0u32..).zip(starts.clone()) {
        for ((largest, place), &x) in largest.iter_mut().zip(&mut place).zip(&x[start..start + dy.len()]) {
            // `|`, not `||`: a branch would keep the loop from vectorising.
            let take = (x > *largest) | (tap == 0);
            *largest = if take { x } else { *largest };
            *place = if take { tap } else { *place };
        }
    }
    for (tap, start) in (0u32..).zip(starts) {
        for ((dx, &place), &dy) in dx[start..start + dy.len()].iter_mut().zip(&place).zip(dy) {
            *dx += if place == tap { dy } else { 0.0 };
        }
    }
}

impl AvgPool {
    fn divisor(&self, p: usize, q: usize, height: usize, width: usize) -> f32 {
        let w = &self.window;
        let count = if self.count_include_pad {
            w.padded_taps(0, p, height) * w.padded_taps(1, q, width)
        } else {
            w.taps(0, p, height).count() * w.taps(1, q, width).count()
        };
        count.max(1) as f32
    }
}

impl Operation for AvgPool {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![self.window.output(x)?])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let (x, y) = (inputs[0], outputs[0]);
        let (kernel, at_once) = AVG_POOL.pick(x.channels());
        let parameters = PoolParams::new(&self.window, x, y, self.count_include_pad, at_once);
        Launch::single(kernel, &[Argument::Input(0), Argument::Output(0)], &parameters, y.len() / at_once)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let x = inputs[0];
        let [_, height, width, channels] = x.shape.0;
        pixels(&mut outputs[0], |n, p, q, y| {
            y.fill(0.0);
            for i in self.window.taps(0, p, height) {
                for j in self.window.taps(1, q, width) {
                    let start = ((n * height + i) * width + j) * channels;
                    for (y, x) in y.iter_mut().zip(&x.data[start..start + channels]) {
                        *y += x;
                    }
                }
            }
            let divisor = self.divisor(p, q, height, width);
            y.iter_mut().for_each(|y| *y /= divisor);
        });
    }
}

impl Operation for AvgPoolGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [dy] = arity(inputs)?;
        let x = Shape([dy.batch(), self.input[0], self.input[1], dy.channels()]);
        same(self.pool.window.output(x)?, dy)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let (dy, x) = (inputs[0], outputs[0]);
        let (kernel, at_once) = AVG_POOL_GRAD.pick(x.channels());
        let parameters = PoolParams::new(&self.pool.window, x, dy, self.pool.count_include_pad, at_once);
        let strips = x.batch() * x.height() * x.width().div_ceil(4);
        let threads = strips * (x.channels() / at_once);
        Launch::single(kernel, &[Argument::Input(0), Argument::Output(0)], &parameters, threads)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let dy = inputs[0];
        let [_, out_h, out_w, channels] = dy.shape.0;
        let x = outputs[0].shape;
        let window = &self.pool.window;
        in_parts(outputs[0].data, x.per_batch(), |first, part| {
            part.fill(0.0);
            let image = first / x.per_batch();
            for (n, dx) in part.chunks_exact_mut(x.per_batch()).enumerate() {
                for (p, q) in (0..out_h * out_w).map(|i| (i / out_w, i % out_w)) {
                    let divisor = self.pool.divisor(p, q, x.height(), x.width());
                    let dy = &dy.data[(((image + n) * out_h + p) * out_w + q) * channels..][..channels];
                    for i in window.taps(0, p, x.height()) {
                        for j in window.taps(1, q, x.width()) {
                            let start = (i * x.width() + j) * channels;
                            for (dx, dy) in dx[start..start + channels].iter_mut().zip(dy) {
                                *dx += dy / divisor;
                            }
                        }
                    }
                }
            }
        });
    }
}
