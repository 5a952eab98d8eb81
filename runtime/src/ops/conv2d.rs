//! 2-D convolution (cross-correlation, as in PyTorch and ONNX), channels last.
//!
//! y[n,p,q,o] = b[o] + sum over r,s,c of
//!     x[n, p*stride + r*dilation - top, q*stride + s*dilation - left, c] * w[r,s,c,o]
//!
//! A linear layer is a 1x1 convolution of an N x 1 x 1 x K activation.

use serde::{Deserialize, Serialize};

use super::conv2d_fused::FusedConv2d;
use super::launch::{Kernel, Launch, params};
use super::weight::Elements;
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
        max: f32,
    }
}

impl ConvParams {
    /// `option` is the kernel's own: its epilogue, or how many parts the sum has.
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
            max: f32::MAX,
        }
    }
}

/// Whether the kernels that read four channels at once apply.
pub(super) fn channels_by_four(conv: &Conv2d, w: Shape) -> bool {
    conv.groups == 1 && w.0[2].is_multiple_of(4) && w.0[3].is_multiple_of(4)
}

/// Whether the kernels that hand weights round among the eight lanes of a subgroup apply.
/// `shared` is the number of channels that a thread makes sixteen of.
pub(super) fn lanes8(conv: &Conv2d, w: Shape, shared: usize, limits: &Limits) -> bool {
    limits.subgroup_lanes == Some(8) && channels_by_four(conv, w) && shared.is_multiple_of(16)
}

/// A kernel that computes a product of matrices in blocks that lie in workgroup memory.
pub(super) struct Block {
    pub kernel: Kernel,
    pub rows: usize,
    pub columns: usize,
}

impl Block {
    /// Workgroups for a result of this size.
    pub const fn workgroups(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    /// Threads for a result of this size.
    pub const fn threads(&self, rows: usize, columns: usize) -> usize {
        self.workgroups(rows, columns) * self.kernel.workgroup as usize
    }
}

/// Whether blocks are worth a try before anything has been measured: not on a processor, where a barrier is
/// as slow as hundreds of multiplications, nor where they leave most of a GPU idle.
pub(super) const fn blocks_first(workgroups: usize, limits: &Limits) -> bool {
    const BUSY: usize = 64;
    !limits.software && workgroups >= BUSY
}

/// The blocks that waste the fewest columns first, and of those the widest.
pub(super) fn by_fit(blocks: &[Block], columns: usize) -> Vec<&Block> {
    let mut blocks: Vec<&Block> = blocks.iter().collect();
    blocks.sort_by_key(|b| (columns.next_multiple_of(b.columns), std::cmp::Reverse(b.columns)));
    blocks
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
        FusedConv2d::plain(*self, inputs.len() == 3).launch(inputs, outputs)
    }

    fn launches(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Vec<Launch> {
        FusedConv2d::plain(*self, inputs.len() == 3).launches(inputs, outputs, limits)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        FusedConv2d::plain(*self, inputs.len() == 3).run(inputs, outputs);
    }

    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }

    fn rearrange(&self, inputs: &[View<'_>], output: Shape) -> Elements {
        FusedConv2d::plain(*self, inputs.len() == 3).rearrange(inputs, output)
    }

    fn rearranged_len(&self, inputs: &[Shape], output: Shape) -> usize {
        FusedConv2d::plain(*self, inputs.len() == 3).rearranged_len(inputs, output)
    }

    fn run_rearranged(&self, inputs: &[View<'_>], weight: &Elements, outputs: &mut [ViewMut<'_>]) {
        FusedConv2d::plain(*self, inputs.len() == 3).run_rearranged(inputs, weight, outputs);
    }

    fn flops(&self, inputs: &[Shape], outputs: &[Shape]) -> u64 {
        let w = inputs[1];
        2 * outputs[0].len() as u64 * (w.0[0] * w.0[1] * w.0[2]) as u64
    }
}
