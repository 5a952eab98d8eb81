//! The gradient of a convolution with respect to its weight.
//!
//! dw[r,s,c,o] = sum over n,p,q of x[n, p*stride + r*dilation - top, q*stride + ..., c] * dy[n,p,q,o]
//!
//! The sum runs over every pixel of the batch while the result is small, so it is taken in parts
//! that are added up in a fixed order: the result does not depend on timing.

use serde::{Deserialize, Serialize};

use super::conv2d::{Conv2d, ConvParams, channels_by_four, lanes8};
use super::direct_weight;
use super::launch::{Argument, Kernel, Launch};
use super::reduce::add_parts;
use super::{Operation, View, ViewMut, arity, same};
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
        adamant_shaders::CONV2D_GRAD_WEIGHT_LANES8,
    ],
    workgroup: 64,
};

impl Conv2dGradWeight {
    /// The sum in parts by `kernel`, whose threads make `tiles` pieces of the weight, and then the
    /// sum of the parts.
    fn in_parts(&self, kernel: Kernel, tiles: usize, x: Shape, dy: Shape) -> Launch {
        /// Threads that keep a large GPU busy.
        const THREADS: usize = 16 * 1024;
        /// Pixels that a thread adds up: llvmpipe leaves a loop, without a word, after 65,535 rounds
        /// of all loops of a thread together, and a tile takes up to twelve for a pixel.
        const PIXELS: usize = 4 * 1024;
        /// Elements of partial results: 32 MiB.
        const PARTIAL: usize = 8 << 20;
        let w = self.weight;
        let rows = dy.batch() * dy.height();
        let needed = THREADS.div_ceil(tiles).max((rows * dy.width()).div_ceil(PIXELS));
        let parts = needed.min(PARTIAL / w.len()).clamp(1, rows);
        let mut launch = Launch::default();
        let partial = launch.scratch(parts * w.len());
        let parameters = ConvParams::new(&self.conv, x, w, dy, parts as u32);
        launch = launch.then(
            kernel,
            &[Argument::Input(0), Argument::Input(1), partial],
            &parameters,
            tiles * parts,
        );
        add_parts(launch, partial, Argument::Output(0), parts, w.len(), 0, w.len(), 1.0)
    }
}

impl Operation for Conv2dGradWeight {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x, dy] = arity(inputs)?;
        same(self.conv.output(x, self.weight)?, dy)?;
        Ok(vec![self.weight])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let (x, dy, w) = (inputs[0], inputs[1], outputs[0]);
        let taps = w.0[0] * w.0[1];
        if channels_by_four(&self.conv, w) {
            self.in_parts(TILED, taps * w.0[2].div_ceil(8) * w.0[3].div_ceil(8), x, dy)
        } else {
            self.in_parts(DIRECT, taps * w.0[2] * w.0[3].div_ceil(4), x, dy)
        }
    }

    fn launch_on(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Launch {
        let w = outputs[0];
        if lanes8(&self.conv, w, w.channels(), limits) {
            let tiles = (w.0[0] * w.0[1] * w.0[2] / 4).next_multiple_of(8) * w.channels() / 16;
            self.in_parts(LANES8, tiles, inputs[0], inputs[1])
        } else {
            self.launch(inputs, outputs)
        }
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        direct_weight::gradient(&self.conv, inputs[0], inputs[1], self.weight, outputs[0].data);
    }

    fn flops(&self, inputs: &[Shape], _outputs: &[Shape]) -> u64 {
        let w = self.weight;
        2 * inputs[1].len() as u64 * (w.0[0] * w.0[1] * w.0[2]) as u64
    }
}
