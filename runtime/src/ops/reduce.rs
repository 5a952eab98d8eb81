//! Sums: over all pixels for each channel, and over everything.
//!
//! Every sum is taken in parts of a size that depends on the shape alone, added up in order.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::elementwise::vectorized;
use super::launch::{Argument, ByFour, Kernel, Launch, by_four, params};
use super::{Operation, View, ViewMut, arity};
use crate::shape::Shape;

params! {
    pub(super) struct ChannelSumParams { pixels: u32, channels: u32, parts: u32, }
}

params! {
    struct AddPartsParams { parts: u32, stride: u32, offset: u32, len: u32, factor: f32, }
}

const CHANNEL_SUM: ByFour = by_four!("channel_sum", X_BUFFER, CHANNEL_SUM);

const ADD_PARTS: Kernel = Kernel {
    name: "add_parts",
    sources: &[adamant_shaders::INDEX, adamant_shaders::PARTS_PARAMS, adamant_shaders::ADD_PARTS],
    workgroup: 64,
};

const ADD_MANY_PARTS: Kernel = Kernel {
    name: "add_many_parts",
    sources: &[adamant_shaders::INDEX, adamant_shaders::PARTS_PARAMS, adamant_shaders::ADD_MANY_PARTS],
    workgroup: 64,
};

/// Adds a dispatch: `out[i] = factor * sum over parts of from[part * stride + offset + i]`.
#[expect(clippy::too_many_arguments, reason = "one argument for each number of the kernel")]
pub(super) fn add_parts(
    launch: Launch,
    from: Argument,
    out: Argument,
    parts: usize,
    stride: usize,
    offset: usize,
    len: usize,
    factor: f32,
) -> Launch {
    let parameters = AddPartsParams {
        parts: parts as u32,
        stride: stride as u32,
        offset: offset as u32,
        len: len as u32,
        factor,
    };
    /// As many parts as this keep the threads of a workgroup busy.
    const MANY: usize = 128;
    /// As many sums as this keep a GPU busy with a thread each.
    const BUSY: usize = 16 * 1024;
    if parts >= MANY && len < BUSY {
        launch.then(ADD_MANY_PARTS, &[from, out], &parameters, 64 * len)
    } else {
        launch.then(ADD_PARTS, &[from, out], &parameters, len)
    }
}

/// How many parts the sum over `pixels` of a GPU kernel is split into.
pub(super) fn parts(pixels: usize, channels: usize) -> usize {
    const THREADS: usize = 128 * 1024;
    THREADS.div_ceil(channels).clamp(1, pixels.div_ceil(32).max(1))
}

/// For a kernel that handles `at_once` channels.
pub(super) fn channel_sum_params(x: Shape, parts: usize, at_once: usize) -> ChannelSumParams {
    ChannelSumParams {
        pixels: (x.len() / x.channels()) as u32,
        channels: (x.channels() / at_once) as u32,
        parts: parts as u32,
    }
}

/// Adds the dispatches of `factor` times the per-channel sum of `from`.
pub(super) fn channel_sum(
    mut launch: Launch,
    from: Argument,
    x: Shape,
    out: Argument,
    factor: f32,
) -> Launch {
    let channels = x.channels();
    let parts = parts(x.len() / channels, channels);
    let partial = launch.scratch(parts * channels);
    let (kernel, at_once) = CHANNEL_SUM.pick(channels);
    let parameters = channel_sum_params(x, parts, at_once);
    launch = launch.then(kernel, &[from, partial], &parameters, parts * channels / at_once);
    add_parts(launch, partial, out, parts, channels, 0, channels, factor)
}

/// Sums `R` quantities for each channel on the CPU: `f(pixels, sums)` adds those of a range of pixels.
pub(super) fn sum_channels<const R: usize>(
    pixels: usize,
    channels: usize,
    f: impl Fn(std::ops::Range<usize>, &mut [Vec<f32>; R]) + Sync,
) -> [Vec<f64>; R] {
    /// Short enough for f32 sums; the parts themselves are added in f64.
    const PART: usize = 512;
    let parts: Vec<[Vec<f32>; R]> = (0..pixels.div_ceil(PART))
        .into_par_iter()
        .map(|part| {
            let mut sums = std::array::from_fn(|_| vec![0.0; channels]);
            let pixels = part * PART..((part + 1) * PART).min(pixels);
            vectorized(
                #[inline(always)]
                || f(pixels, &mut sums),
            );
            sums
        })
        .collect();
    let mut total: [Vec<f64>; R] = std::array::from_fn(|_| vec![0.0; channels]);
    for part in &parts {
        for (total, part) in total.iter_mut().zip(part) {
            for (into, &from) in total.iter_mut().zip(part) {
                *into += f64::from(from);
            }
        }
    }
    total
}

/// The sum of each channel over the batch and all pixels; the gradient of a bias.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChannelSum;

impl Operation for ChannelSum {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![Shape::vector(x.channels())])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        channel_sum(Launch::default(), Argument::Input(0), inputs[0], Argument::Output(0), 1.0)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let channels = inputs[0].shape.channels();
        let [sums] = sum_channels(inputs[0].data.len() / channels, channels, |pixels, [sum]| {
            for pixel in inputs[0].data[pixels.start * channels..pixels.end * channels].chunks_exact(channels)
            {
                for (sum, x) in sum.iter_mut().zip(pixel) {
                    *sum += x;
                }
            }
        });
        for (out, sum) in outputs[0].data.iter_mut().zip(sums) {
            *out = sum as f32;
        }
    }
}

/// `factor` times the sum of all elements.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sum {
    pub factor: f32,
}

impl Operation for Sum {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [_] = arity::<1>(inputs)?;
        Ok(vec![Shape::SCALAR])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let all = Shape([1, 1, inputs[0].len(), 1]);
        channel_sum(Launch::default(), Argument::Input(0), all, Argument::Output(0), self.factor)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let sum: f64 = inputs[0].data.iter().map(|&x| f64::from(x)).sum();
        outputs[0].data[0] = (sum * f64::from(self.factor)) as f32;
    }
}

/// The transpose of [`Sum`]: `factor` times a scalar, in every element.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spread {
    pub factor: f32,
    pub shape: Shape,
}

params! {
    struct SpreadParams { len: u32, factor: f32, }
}

const SPREAD: Kernel =
    Kernel { name: "spread", sources: &[adamant_shaders::INDEX, adamant_shaders::SPREAD], workgroup: 64 };

impl Operation for Spread {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [x] = arity(inputs)?;
        if x.len() == 1 { Ok(vec![self.shape]) } else { Err(format!("spreads a scalar, got {x:?}")) }
    }

    fn launch(&self, _inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let parameters = SpreadParams { len: outputs[0].len() as u32, factor: self.factor };
        Launch::single(SPREAD, &[Argument::Input(0), Argument::Output(0)], &parameters, outputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        outputs[0].data.fill(self.factor * inputs[0].data[0]);
    }
}
