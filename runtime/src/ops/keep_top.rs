//! The elements of an image that matter most, by the size of a weight for each: DRA's mask.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

/// Inputs: clean images, moved images, and a weight for each of their elements. Output: moved at the
/// `keep` elements of each image with the largest |weight|, clean elsewhere; of equal ones the earliest
/// come first. Not a number counts as larger than all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeepTop {
    pub keep: u32,
}

params! {
    struct KeepTopParams { batch: u32, per_image: u32, keep: u32, }
}

const KEEP_TOP: Kernel =
    Kernel { name: "keep_top", sources: &[adamant_shaders::INDEX, adamant_shaders::KEEP_TOP], workgroup: 64 };

/// The kernel finds a position in six hexadecimal digits.
const MOST_ELEMENTS: usize = 1 << 24;

/// The size of a weight as an integer in the same order.
fn size_bits(weight: f32) -> u32 {
    weight.to_bits() & 0x7fff_ffff
}

impl Operation for KeepTop {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [clean, moved, weight] = arity(inputs)?;
        same(clean, moved)?;
        same(clean, weight)?;
        if clean.per_batch() > MOST_ELEMENTS {
            return Err(format!("an image of {} elements, more than {MOST_ELEMENTS}", clean.per_batch()));
        }
        Ok(vec![clean])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let (batch, per_image) = (inputs[0].batch(), inputs[0].per_batch());
        let parameters = KeepTopParams { batch: batch as u32, per_image: per_image as u32, keep: self.keep };
        let threads = batch * KEEP_TOP.workgroup as usize;
        Launch::single(KEEP_TOP, &[Input(0), Input(1), Input(2), Output(0)], &parameters, threads)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [clean, moved, weight] = inputs else { unreachable!("output_shapes checked the inputs") };
        let len = clean.shape.per_batch();
        let keep = (self.keep as usize).min(len);
        outputs[0].data.par_chunks_exact_mut(len).enumerate().for_each(|(n, y)| {
            let image = n * len..(n + 1) * len;
            y.copy_from_slice(&clean.data[image.clone()]);
            if keep == 0 {
                return;
            }
            let (moved, weight) = (&moved.data[image.clone()], &weight.data[image]);
            let mut order: Vec<u32> = (0..len as u32).collect();
            let rank = |i: &u32| (std::cmp::Reverse(size_bits(weight[*i as usize])), *i);
            order.select_nth_unstable_by_key(keep - 1, rank);
            for &i in &order[..keep] {
                y[i as usize] = moved[i as usize];
            }
        });
    }
}
