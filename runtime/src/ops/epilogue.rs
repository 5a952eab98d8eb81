//! What a convolution on the CPU does to its sums before it stores them.

use pulp::Simd;

use super::conv2d_fused::Activation;
use super::elementwise::between;
use super::tile::load;

/// Slices are shaped like the output.
#[derive(Clone, Copy)]
pub(super) struct Epilogue<'a> {
    pub bias: Option<&'a [f32]>,
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
    pub mask: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    pub(super) const NONE: Self =
        Self { bias: None, residual: None, activation: Activation::None, mask: None };

    /// The values to store for sums of `V` vectors, the first of which is the element `at` of the output.
    ///
    /// # Safety
    /// `V` vectors have to be readable from `at` in residual and mask, and from `channel` in the bias.
    #[inline(always)]
    pub(super) unsafe fn finish<S: Simd, const V: usize>(
        &self,
        simd: S,
        mut values: [S::f32s; V],
        at: usize,
        channel: usize,
    ) -> [S::f32s; V] {
        let zero = simd.splat_f32s(0.0);
        // SAFETY: the caller vouches for the elements.
        let read = |from: &[f32], at: usize| -> [S::f32s; V] { unsafe { load(from.as_ptr().add(at)) } };
        for (from, at) in [(self.bias, channel), (self.residual, at)] {
            let Some(from) = from else { continue };
            for (value, term) in values.iter_mut().zip(read(from, at)) {
                *value = simd.add_f32s(*value, term);
            }
        }
        match self.activation {
            Activation::None => {}
            Activation::Relu { max } => {
                let max = simd.splat_f32s(max);
                for value in &mut values {
                    // Two selections, so that NaN stays what it is.
                    let low = simd.select_f32s(simd.less_than_f32s(*value, zero), zero, *value);
                    *value = simd.select_f32s(simd.less_than_f32s(max, low), max, low);
                }
            }
            Activation::ReluGrad { max } => {
                let max = simd.splat_f32s(max);
                let masks = self.mask.map_or([zero; V], |mask| read(mask, at));
                for (value, mask) in values.iter_mut().zip(masks) {
                    let passes =
                        simd.and_m32s(simd.less_than_f32s(zero, mask), simd.less_than_f32s(mask, max));
                    *value = simd.select_f32s(passes, *value, zero);
                }
            }
        }
        values
    }

    /// As [`Epilogue::finish`], of one sum.
    pub(super) fn finish_one(&self, value: f32, at: usize, channel: usize) -> f32 {
        let y = value + self.bias.map_or(0.0, |b| b[channel]) + self.residual.map_or(0.0, |r| r[at]);
        match self.activation {
            Activation::None => y,
            Activation::Relu { max } => between(0.0, max, y),
            Activation::ReluGrad { max } => {
                let mask = self.mask.map_or(0.0, |m| m[at]);
                if mask > 0.0 && mask < max { y } else { 0.0 }
            }
        }
    }
}
