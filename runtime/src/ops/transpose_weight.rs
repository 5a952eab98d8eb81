//! The weight with which a convolution computes another one's input gradient.
//!
//! For stride 1, dx = dy * turned weight: half a turn, input and output channels exchanged.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity};
use crate::shape::Shape;

/// Input: weight, kernel height x kernel width x channels of a group x (groups x filters of a group).
/// Output: kernel height x kernel width x filters of a group x (groups x channels of a group).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransposeWeight {
    pub groups: usize,
}

params! {
    struct TransposeWeightParams { len: u32, taps: u32, channels: u32, filters: u32, groups: u32, }
}

const TRANSPOSE_WEIGHT: Kernel = Kernel {
    name: "transpose_weight",
    sources: &[adamant_shaders::INDEX, adamant_shaders::TRANSPOSE_WEIGHT],
    workgroup: 64,
};

impl Operation for TransposeWeight {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [w] = arity(inputs)?;
        let [height, width, channels, filters] = w.0;
        if self.groups == 0 || !filters.is_multiple_of(self.groups) {
            return Err(format!("weight {w:?} cannot be split into {} groups", self.groups));
        }
        Ok(vec![Shape([height, width, filters / self.groups, channels * self.groups])])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let w = inputs[0];
        let [height, width, channels, filters] = w.0;
        let parameters = TransposeWeightParams {
            len: w.len() as u32,
            taps: (height * width) as u32,
            channels: channels as u32,
            filters: (filters / self.groups) as u32,
            groups: self.groups as u32,
        };
        Launch::single(TRANSPOSE_WEIGHT, &[Argument::Input(0), Argument::Output(0)], &parameters, w.len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let w = inputs[0];
        let [height, width, channels, all_filters] = w.shape.0;
        let (groups, filters) = (self.groups, all_filters / self.groups);
        let per_tap = channels * all_filters;
        let taps = outputs[0].data.par_chunks_mut(per_tap).enumerate();
        taps.for_each(|(tap, out)| {
            let from = &w.data[(height * width - 1 - tap) * per_tap..][..per_tap];
            // Rows of `out` are filters; each takes one column of every channel's row.
            for (f, out) in out.chunks_exact_mut(groups * channels).enumerate() {
                for (g, out) in out.chunks_exact_mut(channels).enumerate() {
                    for (out, row) in out.iter_mut().zip(from.chunks_exact(all_filters)) {
                        *out = row[g * filters + f];
                    }
                }
            }
        });
    }
}
