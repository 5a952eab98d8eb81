//! A convolution with what follows it: bias, residual, activation, in one pass over its output.
//!
//! [`crate::fuse`] makes these from plain convolutions and their neighbours; no network holds one.

use serde::{Deserialize, Serialize};

use super::conv2d::{Conv2d, ConvParams, blocks_first, by_fit, channels_by_four, whole_workgroups};
use super::conv2d_kernels::{Kernels, TEXTURED};
use super::direct::Pass;
use super::epilogue::Epilogue;
use super::launch::{Argument, Kernel, Launch};
use super::weight::{Elements, WeightFormat};
use super::winograd::{self, Winograd};
use super::{Operation, View, ViewMut, same};
use crate::plan::Limits;
use crate::shape::Shape;

/// What is done to a sum last.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Activation {
    None,
    /// min(max(y, 0), max)
    Relu {
        max: f32,
    },
    /// y where 0 < mask < max, else 0: the gradient of an activation whose output is the mask.
    ReluGrad {
        max: f32,
    },
}

/// Inputs: x, the weight, and then as far as they are there: the bias, the residual, the mask (both of
/// the output's shape).
///
/// y = activation(x * w + bias + residual)
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct FusedConv2d {
    pub conv: Conv2d,
    pub bias: bool,
    pub residual: bool,
    pub activation: Activation,
}

/// The inputs of a fused convolution by name.
struct Inputs<T> {
    x: T,
    w: T,
    bias: Option<T>,
    residual: Option<T>,
    mask: Option<T>,
}

impl FusedConv2d {
    /// A convolution and nothing else.
    pub const fn plain(conv: Conv2d, bias: bool) -> Self {
        Self { conv, bias, residual: false, activation: Activation::None }
    }

    fn inputs<T: Copy>(&self, inputs: &[T]) -> Result<Inputs<T>, String> {
        let mut rest = inputs.iter().copied();
        let mut take = |wanted: bool| if wanted { rest.next() } else { None };
        let masked = matches!(self.activation, Activation::ReluGrad { .. });
        let (x, w, bias, residual, mask) =
            (take(true), take(true), take(self.bias), take(self.residual), take(masked));
        let complete =
            bias.is_some() == self.bias && residual.is_some() == self.residual && mask.is_some() == masked;
        match (x, w, rest.next()) {
            (Some(x), Some(w), None) if complete => Ok(Inputs { x, w, bias, residual, mask }),
            _ => Err(format!("{} inputs do not fit {self:?}", inputs.len())),
        }
    }

    /// The flags of conv_epilogue.wgsl, and the bound of the activation.
    fn epilogue(&self) -> (u32, f32) {
        let (flag, max) = match self.activation {
            Activation::None => (0, f32::MAX),
            Activation::Relu { max } => (4, max),
            Activation::ReluGrad { max } => (8, max),
        };
        // WGSL has no infinity; no finite value is beyond the largest one.
        (u32::from(self.bias) | u32::from(self.residual) << 1 | flag, max.min(f32::MAX))
    }
}

impl FusedConv2d {
    /// The kernels for subgroups of eight lanes that apply, where there are such, and their threads.
    fn lanes8(&self, kernels: &Kernels, w: Shape, y: Shape, limits: &Limits) -> Vec<(Kernel, usize)> {
        let [height, width, ins, outs] = w.0;
        let Conv2d { stride, dilation, groups, .. } = self.conv;
        if limits.subgroup_lanes != Some(8) || groups != 1 {
            return Vec::new();
        }
        let strips = |pixels: usize| y.batch() * y.height() * y.width().div_ceil(pixels);
        let by_four = ins.is_multiple_of(4);
        let mut found = Vec::new();
        let is_square3 = [height, width] == [3, 3] && dilation == [1, 1] && by_four;
        let squares = whole_workgroups(y.batch() * y.height().div_ceil(4) * y.width().div_ceil(4));
        let by_sixteen = squares * outs.div_ceil(16);
        let is_wide = outs > 4 && outs.is_multiple_of(4);
        match stride {
            [1, 1] if is_square3 && is_wide => found.push((kernels.lanes8_square3, by_sixteen)),
            [2, 2] if is_square3 && is_wide => found.push((kernels.lanes8_square3_stride2, by_sixteen)),
            [1, 1] if is_square3 && outs <= 4 => found.push((kernels.lanes8_narrow_square3, squares)),
            _ => {}
        }
        if outs.is_multiple_of(16) {
            // Where the next tap of a pixel is this tap of the next pixel, they share what they load.
            let shared_taps = width == 3 && stride[1] == dilation[1];
            let kernel = match by_four {
                true if shared_taps => kernels.lanes8_row3,
                true => kernels.lanes8,
                false => kernels.lanes8_thin,
            };
            found.push((kernel, whole_workgroups(strips(4)) * outs / 16));
        } else if outs <= 4 && by_four {
            found.push((kernels.lanes8_narrow, whole_workgroups(strips(8))));
        }
        // Squares pay where few of them hang over the edge.
        if found.len() == 2 && 3 * y.height().next_multiple_of(4) > 4 * y.height() {
            found.swap(0, 1);
        }
        found
    }

    /// What the CPU twin does, for a weight of shape `w`.
    pub(super) fn pass<'a>(&self, inputs: &[View<'a>], w: Shape, y: Shape) -> Pass<'a> {
        let (x, epilogue) = self.cpu_inputs(inputs);
        Pass::forward(&self.conv, x, w, y, epilogue)
    }

    fn cpu_inputs<'a>(&self, inputs: &[View<'a>]) -> (View<'a>, Epilogue<'a>) {
        let Inputs { x, bias, residual, mask, .. } =
            self.inputs(inputs).expect("output_shapes checked the inputs");
        let epilogue = Epilogue {
            bias: bias.map(|v| v.data),
            residual: residual.map(|v| v.data),
            activation: self.activation,
            mask: mask.map(|v| v.data),
        };
        (x, epilogue)
    }

    /// The launch for a weight that lies in memory as `format`. `inputs` are as if it were f32.
    pub(super) fn launch_with(&self, format: WeightFormat, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        let kernels = Kernels::of(format);
        let (x, w, y) = (inputs[0], inputs[1], outputs[0]);
        let (option, max) = self.epilogue();
        let parameters = ConvParams { max, ..ConvParams::new(&self.conv, x, w, y, option) };
        // What is not there is bound to the weight, and not read.
        let positions: Vec<usize> = (0..inputs.len()).collect();
        let named = self.inputs(&positions).expect("output_shapes checked the inputs");
        let optional = |position: Option<usize>| Argument::Input(position.unwrap_or(named.w));
        let arguments = [
            Argument::Input(named.x),
            Argument::Input(named.w),
            optional(named.bias),
            optional(named.residual),
            optional(named.mask),
            Argument::Output(0),
        ];
        if channels_by_four(&self.conv, w) {
            let strips = y.batch() * y.height() * y.width().div_ceil(8);
            Launch::single(kernels.tiled, &arguments, &parameters, strips * y.channels().div_ceil(8))
        } else {
            let filters = y.channels() / self.conv.groups;
            let strips = y.batch() * y.height() * y.width().div_ceil(4);
            Launch::single(
                kernels.direct,
                &arguments,
                &parameters,
                strips * self.conv.groups * filters.div_ceil(4),
            )
        }
    }

    /// As [`FusedConv2d::launch_with`], all there are.
    pub(super) fn launches_with(
        &self,
        format: WeightFormat,
        inputs: &[Shape],
        outputs: &[Shape],
        limits: &Limits,
    ) -> Vec<Launch> {
        let kernels = Kernels::of(format);
        let plain = self.launch_with(format, inputs, outputs);
        let by = |kernel: Kernel, threads: usize| {
            let mut launch = plain.clone();
            launch.dispatches[0].kernel = kernel;
            launch.dispatches[0].threads = threads as u64;
            launch
        };
        let mut launches = Vec::new();
        let lanes8 = self.lanes8(kernels, inputs[1], outputs[0], limits);
        for (kernel, threads) in lanes8 {
            launches.extend(by(kernel, threads).or_textured(&TEXTURED, inputs, limits));
        }
        launches.push(plain.clone());
        if channels_by_four(&self.conv, inputs[1]) {
            let (pixels, filters) = (outputs[0].len() / outputs[0].channels(), outputs[0].channels());
            let blocks = by_fit(&kernels.blocks, filters);
            let at =
                if blocks_first(blocks[0].workgroups(pixels, filters), limits) { 0 } else { launches.len() };
            launches.splice(at..at, blocks.into_iter().map(|b| by(b.kernel, b.threads(pixels, filters))));
        }
        launches
    }
}

impl Operation for FusedConv2d {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let Inputs { x, w, bias, residual, mask } = self.inputs(inputs)?;
        let y = self.conv.output(x, w)?;
        if let Some(bias) = bias.filter(|&b| b != Shape::vector(y.channels())) {
            return Err(format!("bias {bias:?} for {} output channels", y.channels()));
        }
        for other in [residual, mask].into_iter().flatten() {
            same(other, y)?;
        }
        Ok(vec![y])
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        self.launch_with(WeightFormat::F32, inputs, outputs)
    }

    fn launches(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Vec<Launch> {
        self.launches_with(WeightFormat::F32, inputs, outputs, limits)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let weight = self.rearrange(inputs, outputs[0].shape);
        self.run_rearranged(inputs, &weight, outputs);
    }

    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }

    fn rearrange(&self, inputs: &[View<'_>], output: Shape) -> Elements {
        let w = inputs[1];
        Elements::F32(if winograd::applies(&self.conv, w.shape, output) {
            winograd::transform_weight(w.shape, w.data)
        } else {
            self.pass(inputs, w.shape, output).pack(w.data)
        })
    }

    fn rearranged_len(&self, inputs: &[Shape], output: Shape) -> usize {
        let w = inputs[1];
        if winograd::applies(&self.conv, w, output) { winograd::transformed_len(w) } else { w.len() }
    }

    fn run_rearranged(&self, inputs: &[View<'_>], weight: &Elements, outputs: &mut [ViewMut<'_>]) {
        let (w, y) = (inputs[1].shape, outputs[0].shape);
        if winograd::applies(&self.conv, w, y) {
            let Elements::F32(weight) = weight else { unreachable!("`rearrange` made f32") };
            let (x, epilogue) = self.cpu_inputs(inputs);
            Winograd::new(&self.conv, x, y, epilogue).run(weight, outputs[0].data);
        } else {
            self.pass(inputs, w, y).run(weight, outputs[0].data);
        }
    }

    fn flops(&self, inputs: &[Shape], outputs: &[Shape]) -> u64 {
        self.conv.flops(&inputs[..2], outputs)
    }
}
