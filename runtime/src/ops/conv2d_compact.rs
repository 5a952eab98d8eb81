//! A convolution whose weight stays compact in memory: half precision or signed bytes, widened where it is used.
//! Activations and sums are f32.
//!
//! [`crate::compact`] makes these for inference; no network holds one.

use serde::{Deserialize, Serialize};

use super::conv2d_fused::FusedConv2d;
use super::launch::Launch;
use super::weight::{Elements, WeightFormat};
use super::{Operation, View, ViewMut};
use crate::plan::Limits;
use crate::shape::Shape;

/// The inputs are those of a [`FusedConv2d`], but for the weight: a vector of words.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct CompactConv2d {
    pub conv: FusedConv2d,
    /// Kernel height x kernel width x input channels of a group x output channels.
    pub weight: Shape,
    /// What the words hold.
    pub format: WeightFormat,
}

impl CompactConv2d {
    /// The inputs as a [`FusedConv2d`] has them.
    fn widened(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let words = Shape::vector(self.format.words(self.weight));
        let mut inputs = inputs.to_vec();
        match inputs.get_mut(1) {
            Some(weight) if *weight == words => *weight = self.weight,
            other => {
                return Err(format!(
                    "a weight of {other:?} words; {:?} as {self:?} has {words:?}",
                    self.weight
                ));
            }
        }
        Ok(inputs)
    }

    fn checked(&self, inputs: &[Shape]) -> Vec<Shape> {
        self.widened(inputs).expect("output_shapes checked the inputs")
    }

    fn elements(&self, inputs: &[View<'_>]) -> Elements {
        Elements::read(self.format, self.weight, inputs[1].data)
    }
}

impl Operation for CompactConv2d {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        self.conv.output_shapes(&self.widened(inputs)?)
    }

    fn launch(&self, inputs: &[Shape], outputs: &[Shape]) -> Launch {
        self.conv.launch_with(self.format, &self.checked(inputs), outputs)
    }

    fn launches(&self, inputs: &[Shape], outputs: &[Shape], limits: &Limits) -> Vec<Launch> {
        self.conv.launches_with(self.format, &self.checked(inputs), outputs, limits)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let weight = self.rearrange(inputs, outputs[0].shape);
        self.run_rearranged(inputs, &weight, outputs);
    }

    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }

    fn rearrange(&self, inputs: &[View<'_>], output: Shape) -> Elements {
        self.conv.pass(inputs, self.weight, output).pack_elements(&self.elements(inputs))
    }

    fn run_rearranged(&self, inputs: &[View<'_>], weight: &Elements, outputs: &mut [ViewMut<'_>]) {
        self.conv.pass(inputs, self.weight, outputs[0].shape).run(weight, outputs[0].data);
    }

    fn flops(&self, inputs: &[Shape], outputs: &[Shape]) -> u64 {
        self.conv.flops(&self.checked(inputs), outputs)
    }
}
