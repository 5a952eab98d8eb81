//! The gradient of a convolution with respect to its weight.
//!
//! dw[r,s,c,o] = sum over n,p,q of x[n, p*stride + r*dilation - top, q*stride + ..., c] * dy[n,p,q,o]
//!
//! The sum runs over every pixel of the batch while the result is small, so it is taken in parts
//! that are added up in a fixed order: the result does not depend on timing.

use serde::{Deserialize, Serialize};

use super::conv2d::{Block, Conv2d, ConvParams, blocks_first, by_fit, channels_by_four, lanes8};
use super::direct_weight;
use super::launch::{Argument, Kernel, Launch, Textured, textured};
use super::reduce::add_parts;
use super::{Operation, View, ViewMut, arity, same, winograd};
use crate::plan::Limits;
use crate::shape::Shape;

/// Inputs: x, dy. Output: the weight's gradient.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conv2dGradWeight {
    pub conv: Conv2d,
    pub weight: Shape,
}

const DIRECT: Kernel = Kernel {
    name: "conv2d_grad_weight",
    sources: &[adamant_shaders::INDEX, adamant_shaders::CONV_PARAMS, adamant_shaders::CONV2D_GRAD_WEIGHT],
    workgroup: 64,
};

const TILED: Kernel = Kernel {
    name: "conv2d_grad_weight_tiled",
    sources: &[
        adamant_shaders::INDEX,
        adamant_shaders::CONV_PARAMS,
        adamant_shaders::CONV2D_GRAD_WEIGHT_TILED,
    ],
    workgroup: 64,
};

const LANES8: Kernel = Kernel {
    name: "conv2d_grad_weight_lanes8",
    sources: &[
        adamant_shaders::INDEX,
        adamant_shaders::CONV_PARAMS,
        adamant_shaders::FOUR,
        adamant_shaders::X_BUFFER,
        adamant_shaders::DY_BUFFER,
        adamant_shaders::CONV2D_GRAD_WEIGHT_LANES8,
    ],
    workgroup: 64,
};

const LANES8_ROW3: Kernel = Kernel {
    name: "conv2d_grad_weight_lanes8_row3",
    sources: &[
        adamant_shaders::INDEX,
        adamant_shaders::CONV_PARAMS,
        adamant_shaders::ACCUMULATE4,
        adamant_shaders::FOUR,
        adamant_shaders::X_BUFFER,
        adamant_shaders::DY_BUFFER,
        adamant_shaders::CONV2D_GRAD_WEIGHT_LANES8_ROW3,
    ],
    workgroup: 64,
};

const TEXTURED: [Textured; 2] = [
    textured!(
        "conv2d_grad_weight_lanes8",
        &[0, 1],
        CONV_PARAMS,
        X_TEXTURE,
        DY_TEXTURE,
        CONV2D_GRAD_WEIGHT_LANES8,
    ),
    textured!(
        "conv2d_grad_weight_lanes8_row3",
        &[0, 1],
        CONV_PARAMS,
        ACCUMULATE4,
        X_TEXTURE,
        DY_TEXTURE,
        CONV2D_GRAD_WEIGHT_LANES8_ROW3,
    ),
];

macro_rules! block {
    ($rows:literal, $columns:literal, $name:literal, $size:ident) => {
        Block {
            rows: $rows,
            columns: $columns,
            kernel: Kernel {
                name: $name,
                sources: &[
                    adamant_shaders::INDEX,
                    adamant_shaders::CONV_PARAMS,
                    adamant_shaders::$size,
                    adamant_shaders::CONV_BLOCK,
                    adamant_shaders::CONV2D_GRAD_WEIGHT_BLOCK,
                ],
                workgroup: 64,
            },
        }
    };
}

const BLOCKS: [Block; 3] = [
    block!(64, 64, "conv2d_grad_weight_block_64x64", BLOCK_64X64),
    block!(128, 32, "conv2d_grad_weight_block_128x32", BLOCK_128X32),
    block!(256, 16, "conv2d_grad_weight_block_256x16", BLOCK_256X16),
];

/// Threads that keep a processor busy.
const THREADS: usize = 16 * 1024;

/// Threads that keep a large GPU busy, which waits for memory in each of them.
const GPU_THREADS: usize = 128 * 1024;

impl Conv2dGradWeight {
    /// The sum in parts by `kernel`, whose threads make `tiles` pieces of the weight, and then the
    /// sum of the parts, about `threads` in all.
    fn in_parts(&self, kernel: Kernel, tiles: usize, threads: usize, x: Shape, dy: Shape) -> Launch {
        let rows = dy.batch() * dy.height();
        let parts = self.parts(threads.div_ceil(tiles), dy).min(rows);
        self.sum_of(parts, kernel, tiles * parts, x, dy)
    }

    /// The sum by the kernel that needs nothing of a device.
    fn plain(&self, threads: usize, x: Shape, dy: Shape) -> Launch {
        let w = self.weight;
        let taps = w.0[0] * w.0[1];
        if channels_by_four(&self.conv, w) {
            self.in_parts(TILED, taps * w.0[2].div_ceil(8) * w.0[3].div_ceil(8), threads, x, dy)
        } else {
            self.in_parts(DIRECT, taps * w.0[2] * w.0[3].div_ceil(4), threads, x, dy)
        }
    }

    /// The same by a kernel whose workgroups make blocks of the weight.
    fn in_blocks(&self, block: &Block, x: Shape, dy: Shape) -> Launch {
        /// Workgroups that keep a large GPU busy.
        const WORKGROUPS: usize = 2048;
        /// Fewer pixels than this are not worth a part of their own.
        const PIXELS: usize = 128;
        let w = self.weight;
        let blocks = block.workgroups(w.0[0] * w.0[1] * w.0[2], w.channels());
        let pixels = dy.len() / dy.channels();
        let parts = self.parts(WORKGROUPS.div_ceil(blocks).min(pixels.div_ceil(PIXELS)), dy);
        self.sum_of(parts, block.kernel, blocks * parts * 64, x, dy)
    }

    /// `wanted` parts, or as many more as a thread needs that may not add up all pixels, as far as they fit.
    fn parts(&self, wanted: usize, dy: Shape) -> usize {
        /// Pixels that a thread adds up: llvmpipe leaves a loop, without a word, after 65,535 rounds
        /// of all loops of a thread together, and a tile takes up to twelve for a pixel.
        const PIXELS: usize = 4 * 1024;
        /// Elements of partial results: 32 MiB.
        const PARTIAL: usize = 8 << 20;
        let needed = (dy.len() / dy.channels()).div_ceil(PIXELS);
        wanted.max(needed).min(PARTIAL / self.weight.len()).max(1)
    }

    fn sum_of(&self, parts: usize, kernel: Kernel, threads: usize, x: Shape, dy: Shape) -> Launch {
        let len = self.weight.len();
        let mut launch = Launch::default();
        let partial = launch.scratch(parts * len);
        let parameters = ConvParams::new(&self.conv, x, self.weight, dy, parts as u32);
        launch =
            launch.then(kernel, &[Argument::Input(0), Argument::Input(1), partial], &parameters, threads);
        add_parts(launch, partial, Argument::Output(0), parts, len, 0, len, 1.0)
    }
}

impl Operation for Conv2dGradWeight {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, dy] = arity(inputs)?;
        same(self.conv.output(x, self.weight)?, dy)?;
        Ok(vec![self.weight])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        self.plain(THREADS, inputs[0], inputs[1])
    }

    fn launches(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Vec<Launch> {
        let (x, dy, w) = (inputs[0], inputs[1], outputs[0]);
        let mut launches = Vec::new();
        if lanes8(&self.conv, w, w.channels(), limits) {
            let tiles = |taps: usize| (taps * w.0[2] / 4).next_multiple_of(8) * w.channels() / 16;
            if w.0[1] == 3 && self.conv.stride[1] == self.conv.dilation[1] {
                // A thread makes three taps: a third of the threads leave as many sums to add up.
                let launch = self.in_parts(LANES8_ROW3, tiles(w.0[0]), THREADS / 3, x, dy);
                launches.extend(launch.or_textured(&TEXTURED, inputs, limits));
            }
            let launch = self.in_parts(LANES8, tiles(w.0[0] * w.0[1]), THREADS, x, dy);
            launches.extend(launch.or_textured(&TEXTURED, inputs, limits));
        }
        launches.push(self.plain(if limits.software { THREADS } else { GPU_THREADS }, x, dy));
        if channels_by_four(&self.conv, w) {
            let at = if blocks_first(usize::MAX, limits) { 0 } else { launches.len() };
            let blocks = by_fit(&BLOCKS, w.channels());
            launches.splice(at..at, blocks.into_iter().map(|block| self.in_blocks(block, x, dy)));
        }
        launches
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let (x, dy) = (inputs[0], inputs[1]);
        let gradient = if winograd::applies(&self.conv, self.weight, dy.shape) {
            winograd::gradient
        } else {
            direct_weight::gradient
        };
        gradient(&self.conv, x, dy, self.weight, outputs[0].data);
    }

    fn flops(&self, inputs: &[Shape], _outputs: &[Shape]) -> u64 {
        let w = self.weight;
        2 * inputs[1].len() as u64 * (w.0[0] * w.0[1] * w.0[2]) as u64
    }
}
