//! The gradient of a convolution with respect to its input.
//!
//! dx[n,i,j,c] = sum over r,s,o of dy[n,p,q,o] * w[r,s,c,o], where i = p*stride + r*dilation - top
//! and j likewise.

use serde::{Deserialize, Serialize};

use super::conv2d::{
    Block, Conv2d, ConvParams, blocks_first, by_fit, channels_by_four, lanes8, whole_workgroups,
};
use super::direct::Pass;
use super::launch::{Argument, Kernel, Launch, Textured, textured};
use super::weight::Elements;
use super::{Operation, View, ViewMut, arity, same};
use crate::plan::Limits;
use crate::shape::Shape;

/// Inputs: dy, the weight. Output: dx.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conv2dGradInput {
    pub conv: Conv2d,
    /// Height, width and channels of the convolution's input.
    pub input: [usize; 3],
}

const DIRECT: Kernel = Kernel {
    name: "conv2d_grad_input",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CONV_PARAMS, adamant_shaders::CONV2D_GRAD_INPUT],
    workgroup: 64,
};

const TILED: Kernel = Kernel {
    name: "conv2d_grad_input_tiled",
    sources: &[
        adamant_shaders::INDEX,
        adamant_shaders::CONV_PARAMS,
        adamant_shaders::CONV2D_GRAD_INPUT_TILED,
    ],
    workgroup: 64,
};

const LANES8: Kernel = Kernel {
    name: "conv2d_grad_input_lanes8",
    sources: &[
        adamant_shaders::INDEX,
        adamant_shaders::CONV_PARAMS,
        adamant_shaders::DOTS4,
        adamant_shaders::CONV2D_GRAD_INPUT_LANES8,
    ],
    workgroup: 64,
};

const LANES8_STRIDE2: Kernel = Kernel {
    name: "conv2d_grad_input_lanes8_stride2",
    sources: &[
        adamant_shaders::INDEX,
        adamant_shaders::CONV_PARAMS,
        adamant_shaders::DOTS4,
        adamant_shaders::FOUR,
        adamant_shaders::DY_BUFFER,
        adamant_shaders::WEIGHTS_F32,
        adamant_shaders::CONV2D_GRAD_INPUT_LANES8_STRIDE2,
    ],
    workgroup: 64,
};

const LANES8_STRIDE2_TEXTURED: Textured = textured!(
    "conv2d_grad_input_lanes8_stride2",
    &[0, 1],
    CONV_PARAMS,
    DOTS4,
    DY_TEXTURE,
    WEIGHTS_TEXTURE,
    CONV2D_GRAD_INPUT_LANES8_STRIDE2,
);

macro_rules! block {
    ($rows:literal, $columns:literal, $name:literal, $form:ident, $slices:ident, $workgroup:literal) => {
        Block {
            rows: $rows,
            columns: $columns,
            kernel: Kernel {
                name: $name,
                sources: &[
                    adamant_shaders::INDEX,
                    adamant_shaders::CONV_PARAMS,
                    adamant_shaders::$form,
                    adamant_shaders::$slices,
                    adamant_shaders::CONV_BLOCK,
                    adamant_shaders::CONV_BLOCK_PIXELS,
                    adamant_shaders::CONV2D_GRAD_INPUT_BLOCK,
                ],
                workgroup: $workgroup,
            },
        }
    };
}

const BLOCKS: [Block; 5] = [
    block!(64, 64, "conv2d_grad_input_block_64x64", BLOCK_64X64, SLICES_1, 64),
    block!(128, 32, "conv2d_grad_input_block_128x32", BLOCK_128X32, SLICES_1, 64),
    block!(256, 16, "conv2d_grad_input_block_256x16", BLOCK_256X16, SLICES_1, 64),
    block!(128, 32, "conv2d_grad_input_block_128x32_ahead", BLOCK_128X32, SLICES_1_AHEAD, 64),
    block!(64, 64, "conv2d_grad_input_block_64x64x4", BLOCK_64X64, SLICES_4, 256),
];

impl Operation for Conv2dGradInput {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [dy, w] = arity(inputs)?;
        let [height, width, channels] = self.input;
        let x = Shape([dy.batch(), height, width, channels]);
        same(self.conv.output(x, w)?, dy)?;
        Ok(vec![x])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let (dy, w, x) = (inputs[0], inputs[1], outputs[0]);
        let parameters = ConvParams::new(&self.conv, x, w, dy, 0);
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Output(0)];
        // A thread takes pixels of one row that are `stride` apart: they meet the same taps.
        let stride = self.conv.stride[1];
        let phases = x.batch() * x.height() * stride;
        if channels_by_four(&self.conv, w) {
            let strips = phases * x.width().div_ceil(stride * 8);
            Launch::single(TILED, &arguments, &parameters, strips * x.channels().div_ceil(8))
        } else {
            let strips = phases * x.width().div_ceil(stride * 4);
            let blocks = self.conv.groups * w.0[2].div_ceil(4);
            Launch::single(DIRECT, &arguments, &parameters, strips * blocks)
        }
    }

    fn launches(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Vec<Launch> {
        let plain = self.launch(inputs, outputs);
        let x = outputs[0];
        let by = |kernel: Kernel, threads: usize| {
            let mut launch = plain.clone();
            launch.dispatches[0].kernel = kernel;
            launch.dispatches[0].threads = threads as u64;
            launch
        };
        let [stride_h, stride_w] = self.conv.stride;
        let mut launches = Vec::new();
        let Conv2d { dilation, pads: [top, left, ..], .. } = self.conv;
        let is_square = inputs[1].0[..2] == [3, 3] && self.conv.stride == [2, 2] && dilation == [1, 1];
        let is_odd = top % 2 == 1 && left % 2 == 1;
        let by_eight = channels_by_four(&self.conv, inputs[1]) && x.channels().is_multiple_of(8);
        if limits.subgroup_lanes == Some(8) && by_eight && is_square && is_odd {
            let squares = x.batch() * x.height().div_ceil(4) * x.width().div_ceil(4);
            let launch = by(LANES8_STRIDE2, whole_workgroups(squares) * x.channels() / 8);
            launches.extend(launch.or_textured(&[LANES8_STRIDE2_TEXTURED], inputs, limits));
        }
        if lanes8(&self.conv, inputs[1], x.channels(), limits) {
            let strips = x.batch() * x.height().div_ceil(stride_h) * x.width().div_ceil(4 * stride_w);
            let blocks = stride_h * stride_w * x.channels() / 16;
            launches.push(by(LANES8, whole_workgroups(strips) * blocks));
        }
        launches.push(plain.clone());
        if channels_by_four(&self.conv, inputs[1]) {
            let pixels = x.batch() * x.height().div_ceil(stride_h) * x.width().div_ceil(stride_w);
            let phases = stride_h * stride_w;
            let blocks = by_fit(&BLOCKS, x.channels());
            let workgroups = phases * blocks[0].workgroups(pixels, x.channels());
            let at = if blocks_first(workgroups, limits) { 0 } else { launches.len() };
            let threads = |b: &Block| phases * b.threads(pixels, x.channels());
            launches.splice(at..at, blocks.into_iter().map(|b| by(b.kernel, threads(b))));
        }
        launches
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        for pass in Pass::backward(&self.conv, inputs[0], inputs[1].shape, outputs[0].shape) {
            pass.run(&Elements::F32(pass.pack(inputs[1].data)), outputs[0].data);
        }
    }

    fn flops(&self, inputs: &[Shape], _outputs: &[Shape]) -> u64 {
        let (dy, w) = (inputs[0], inputs[1]);
        2 * dy.len() as u64 * (w.0[0] * w.0[1] * w.0[2]) as u64
    }
}
