//! 2-D convolution (cross-correlation, as in PyTorch and ONNX), channels last.
//!
//! y[n,p,q,o] = b[o] + sum over r,s,c of
//!     x[n, p*stride + r*dilation - top, q*stride + s*dilation - left, c] * w[r,s,c,o]
//!
//! A linear layer is a 1x1 convolution of an N x 1 x 1 x K activation.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::matrix::{Matrix, multiply};
use super::{Operation, View, ViewMut, window_size};
use crate::plan::Limits;
use crate::shape::Shape;

/// Attributes, vertical before horizontal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conv2d {
    pub stride: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub pads: [usize; 4],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl Conv2d {
    /// A linear layer.
    pub const LINEAR: Self = Self { stride: [1, 1], pads: [0; 4], dilation: [1, 1], groups: 1 };

    /// Output shape for an input and a weight shape.
    pub(super) fn output(&self, x: Shape, w: Shape) -> Result<Shape, String> {
        let [kernel_h, kernel_w, channels, filters] = w.0;
        if self.groups == 0 || channels == 0 || filters == 0 || !filters.is_multiple_of(self.groups) {
            return Err(format!("weight {w:?} cannot be split into {} groups", self.groups));
        }
        if Some(x.channels()) != channels.checked_mul(self.groups) {
            return Err(format!(
                "input has {} channels, weight {w:?} with {} group(s) expects {channels} a group",
                x.channels(),
                self.groups
            ));
        }
        let [top, left, bottom, right] = self.pads;
        Ok(Shape([
            x.batch(),
            window_size(x.height(), top, bottom, kernel_h, self.stride[0], self.dilation[0])?,
            window_size(x.width(), left, right, kernel_w, self.stride[1], self.dilation[1])?,
            filters,
        ]))
    }
}

params! {
    /// What all three convolution kernels need to know.
    pub(super) struct ConvParams {
        batch: u32,
        in_h: u32,
        in_w: u32,
        in_c: u32,
        out_h: u32,
        out_w: u32,
        out_c: u32,
        kernel_h: u32,
        kernel_w: u32,
        stride_h: u32,
        stride_w: u32,
        pad_top: u32,
        pad_left: u32,
        dilation_h: u32,
        dilation_w: u32,
        groups: u32,
        option: u32,
    }
}

impl ConvParams {
    /// `option` is the kernel's own: whether there is a bias, or how many parts the sum has.
    pub(super) fn new(conv: &Conv2d, x: Shape, w: Shape, y: Shape, option: u32) -> Self {
        Self {
            batch: x.batch() as u32,
            in_h: x.height() as u32,
            in_w: x.width() as u32,
            in_c: x.channels() as u32,
            out_h: y.height() as u32,
            out_w: y.width() as u32,
            out_c: y.channels() as u32,
            kernel_h: w.0[0] as u32,
            kernel_w: w.0[1] as u32,
            stride_h: conv.stride[0] as u32,
            stride_w: conv.stride[1] as u32,
            pad_top: conv.pads[0] as u32,
            pad_left: conv.pads[1] as u32,
            dilation_h: conv.dilation[0] as u32,
            dilation_w: conv.dilation[1] as u32,
            groups: conv.groups as u32,
            option,
        }
    }
}

/// Whether the kernels that read four channels at once apply.
pub(super) fn channels_by_four(conv: &Conv2d, w: Shape) -> bool {
    conv.groups == 1 && w.0[2].is_multiple_of(4) && w.0[3].is_multiple_of(4)
}

const DIRECT: Kernel = Kernel {
    name: "conv2d",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CONV_PARAMS, adamant_shaders::CONV2D],
    workgroup: 64,
};

const TILED: Kernel = Kernel {
    name: "conv2d_tiled",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CONV_PARAMS, adamant_shaders::CONV2D_TILED],
    workgroup: 64,
};

const LANES8: Kernel = Kernel {
    name: "conv2d_lanes8",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CONV_PARAMS, adamant_shaders::CONV2D_LANES8],
    workgroup: 64,
};

/// Whether the kernels that hand weights round among the eight lanes of a subgroup apply.
/// `shared` is the number of channels that a thread makes sixteen of.
pub(super) fn lanes8(conv: &Conv2d, w: Shape, shared: usize, limits: &Limits) -> bool {
    limits.subgroup_lanes == Some(8) && channels_by_four(conv, w) && shared.is_multiple_of(16)
}

/// Threads for `count` rounded up to whole workgroups.
pub(super) fn whole_workgroups(count: usize) -> usize {
    count.next_multiple_of(64)
}

impl Operation for Conv2d {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let (x, w, bias) = match *inputs {
            [x, w] => (x, w, None),
            [x, w, b] => (x, w, Some(b)),
            _ => {
                return Err(format!(
                    "takes an input, a weight and maybe a bias, got {} inputs",
                    inputs.len()
                ));
            }
        };
        let y = self.output(x, w)?;
        if bias.is_some_and(|b| b != Shape::vector(y.channels())) {
            return Err(format!("bias {:?} for {} output channels", inputs[2], y.channels()));
        }
        Ok(vec![y])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let (x, w, y) = (inputs[0], inputs[1], outputs[0]);
        let has_bias = inputs.len() == 3;
        let parameters = ConvParams::new(self, x, w, y, has_bias.into());
        // Without a bias its binding is filled by the weight, which the kernel then does not read as one.
        let arguments = [
            Argument::Input(0),
            Argument::Input(1),
            Argument::Input(if has_bias { 2 } else { 1 }),
            Argument::Output(0),
        ];
        if channels_by_four(self, w) {
            let strips = y.batch() * y.height() * y.width().div_ceil(8);
            Launch::single(TILED, &arguments, &parameters, strips * y.channels().div_ceil(8))
        } else {
            let filters = y.channels() / self.groups;
            let strips = y.batch() * y.height() * y.width().div_ceil(4);
            Launch::single(DIRECT, &arguments, &parameters, strips * self.groups * filters.div_ceil(4))
        }
    }

    fn launch_on(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Launch {
        let mut launch = self.launch(inputs, outputs);
        let y = outputs[0];
        if lanes8(self, inputs[1], y.channels(), limits) {
            let strips = y.batch() * y.height() * y.width().div_ceil(4);
            launch.dispatches[0].kernel = LANES8;
            launch.dispatches[0].threads = (whole_workgroups(strips) * y.channels() / 16) as u64;
        }
        launch
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let (x, w) = (inputs[0], inputs[1]);
        let bias = inputs.get(2);
        let y = &mut outputs[0];
        let lowering = Lowering::new(self, x.shape, w.shape, y.shape);
        let row = y.shape.width() * y.shape.channels();
        let rows = lowering.rows_per_tile();
        let filters = y.shape.channels() / self.groups;
        y.data.par_chunks_mut(rows * row).enumerate().for_each_init(Vec::new, |columns, (tile, out)| {
            let first = tile * rows;
            let pixels = out.len() / y.shape.channels();
            if let Some(bias) = bias {
                for pixel in out.chunks_exact_mut(bias.data.len()) {
                    pixel.copy_from_slice(bias.data);
                }
            }
            for group in 0..self.groups {
                let (left, depth) = lowering.columns(x.data, first, out.len() / row, group, columns);
                let right = Matrix { data: &w.data[group * filters..], row: w.shape.channels(), column: 1 };
                multiply(
                    [pixels, filters, depth],
                    left,
                    right,
                    &mut out[group * filters..],
                    y.shape.channels(),
                    bias.is_some(),
                );
            }
        });
    }

    fn flops(&self, inputs: &[Shape], outputs: &[Shape]) -> u64 {
        let w = inputs[1];
        2 * outputs[0].len() as u64 * (w.0[0] * w.0[1] * w.0[2]) as u64
    }
}

/// The convolution as a matrix product over tiles of output rows ("im2col"): column (r, s, c) of
/// pixel (p, q) is the input value that w[r, s, c] meets there.
pub(super) struct Lowering<'a> {
    conv: &'a Conv2d,
    x: Shape,
    w: Shape,
    y: Shape,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(conv: &'a Conv2d, x: Shape, w: Shape, y: Shape) -> Self {
        Self { conv, x, w, y }
    }

    /// Length of a column: kernel height x kernel width x channels a group.
    pub(super) fn depth(&self) -> usize {
        self.w.0[0] * self.w.0[1] * self.w.0[2]
    }

    /// Output rows whose columns stay in the second-level cache.
    pub(super) fn rows_per_tile(&self) -> usize {
        const CACHE_VALUES: usize = 160 * 1024;
        let pixels = (CACHE_VALUES / self.depth()).max(64);
        (pixels / self.y.width()).clamp(1, (self.y.batch() * self.y.height()).max(1))
    }

    /// Where a tap of an output coordinate falls in the input.
    fn tap(
        output: usize,
        stride: usize,
        tap: usize,
        dilation: usize,
        pad: usize,
        size: usize,
    ) -> Option<usize> {
        (output * stride + tap * dilation).checked_sub(pad).filter(|&i| i < size)
    }

    /// Whether a column is just the pixel itself.
    fn is_pointwise(&self) -> bool {
        self.w.0[0] == 1 && self.w.0[1] == 1 && self.conv.stride == [1, 1] && self.conv.pads == [0; 4]
    }

    /// The columns of `rows` output rows from row `first` (counted over the whole batch), for one
    /// group, as a matrix of pixels x depth.
    pub(super) fn columns<'b>(
        &self,
        x: &'b [f32],
        first: usize,
        rows: usize,
        group: usize,
        buffer: &'b mut Vec<f32>,
    ) -> (Matrix<'b>, usize) {
        let (depth, channels) = (self.depth(), self.w.0[2]);
        if self.is_pointwise() {
            let start = first * self.y.width() * self.x.channels() + group * channels;
            return (Matrix { data: &x[start..], row: self.x.channels(), column: 1 }, depth);
        }
        // Every element is written below, so stale values from an earlier tile do no harm.
        buffer.resize(rows * self.y.width() * depth, 0.0);
        self.visit(first, rows, group, |column, taken, source| match source {
            Some(start) => buffer[column..column + taken].copy_from_slice(&x[start..start + taken]),
            None => buffer[column..column + taken].fill(0.0),
        });
        (Matrix { data: buffer, row: depth, column: 1 }, depth)
    }

    /// Adds a tile of columns back onto the image that they came from: the transpose of
    /// [`Lowering::columns`]. `x` is one image; all rows belong to it.
    pub(super) fn add_columns(
        &self,
        columns: &[f32],
        first: usize,
        rows: usize,
        group: usize,
        x: &mut [f32],
    ) {
        let image = first / self.y.height() * self.x.per_batch();
        self.visit(first, rows, group, |column, taken, source| {
            if let Some(start) = source {
                let start = start - image;
                for (into, from) in x[start..start + taken].iter_mut().zip(&columns[column..column + taken]) {
                    *into += from;
                }
            }
        });
    }

    /// Calls `f(position in the columns, length, position in x or None for padding)` for each run
    /// of neighbouring values.
    fn visit(&self, first: usize, rows: usize, group: usize, mut f: impl FnMut(usize, usize, Option<usize>)) {
        let [_, height, width, all_channels] = self.x.0;
        let [kernel_h, kernel_w, channels, _] = self.w.0;
        let (conv, depth) = (self.conv, self.depth());
        // With one group and no dilation the taps of a kernel row are neighbours in memory.
        let merge = conv.groups == 1 && conv.dilation[1] == 1;
        for row in 0..rows {
            let (image, p) = ((first + row) / self.y.height(), (first + row) % self.y.height());
            for q in 0..self.y.width() {
                let pixel = (row * self.y.width() + q) * depth;
                for r in 0..kernel_h {
                    let column = pixel + r * kernel_w * channels;
                    let Some(i) = Self::tap(p, conv.stride[0], r, conv.dilation[0], conv.pads[0], height)
                    else {
                        f(column, kernel_w * channels, None);
                        continue;
                    };
                    let line = (image * height + i) * width;
                    let left = q * conv.stride[1];
                    if merge && left >= conv.pads[1] && left - conv.pads[1] + kernel_w <= width {
                        f(column, kernel_w * channels, Some((line + left - conv.pads[1]) * channels));
                        continue;
                    }
                    for s in 0..kernel_w {
                        let j = Self::tap(q, conv.stride[1], s, conv.dilation[1], conv.pads[1], width);
                        let source = j.map(|j| (line + j) * all_channels + group * channels);
                        f(column + s * channels, channels, source);
                    }
                }
            }
        }
    }
}
