//! One task of a pass: the sums of its tiles, and what is done to them before they are stored.

use pulp::{Simd, WithSimd};

use super::{Epilogue, Pass, Segment, Strip};
use crate::ops::conv2d_fused::Activation;
use crate::ops::tile::{self, Product, WIDE, add_product, columns, load, most_rows, store, with_rows};
use crate::ops::weight::Elements;

/// A pointer that tasks share: each writes elements that no other touches.
#[derive(Clone, Copy)]
pub(super) struct Output(pub *mut f32);

// SAFETY: tasks write disjoint elements, and the slice outlives them all.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// One task of a pass.
pub(super) struct Work<'a> {
    pub pass: &'a Pass<'a>,
    pub segments: &'a [Segment],
    pub packed: &'a Elements,
    pub strips: &'a [Strip],
    pub input: &'a [f32],
    /// Blocks of output channels of every group.
    pub blocks: std::ops::Range<usize>,
    pub wide: bool,
    pub output: Output,
}

/// Work, and memory for a block of weights.
pub(super) struct Task<'a> {
    pub work: &'a Work<'a>,
    pub unpacked: &'a mut Vec<f32>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { work, unpacked } = self;
        if work.wide { work.all::<S, WIDE>(simd, unpacked) } else { work.all::<S, 1>(simd, unpacked) }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn all<S: Simd, const V: usize>(&self, simd: S, unpacked: &mut Vec<f32>) {
        let pass = self.pass;
        let width = columns::<S, V>();
        let block_size = pass.taps.len() * pass.in_channels() * width;
        let blocks = pass.out_channels().div_ceil(width);
        // Tiles of one row of the output, as equal as can be.
        let tiles = pass.grid.columns.div_ceil(most_rows::<S, V>());
        for group in 0..pass.groups {
            for block in self.blocks.clone() {
                let start = (group * blocks + block) * block_size;
                let first = group * pass.out_channels() + block * width;
                let channels = first..(first + width).min((group + 1) * pass.out_channels());
                let weights = self.packed.unpack(start..start + block_size, channels, width, unpacked);
                for strip in self.strips {
                    for u in strip.rows.clone() {
                        for tile in 0..tiles {
                            let first = tile * pass.grid.columns / tiles;
                            let end = (tile + 1) * pass.grid.columns / tiles;
                            let place = Place { group, block, strip, u, v: first };
                            with_rows!(end - first, P => self.tile::<S, P, V>(simd, weights, &place));
                        }
                    }
                }
            }
        }
    }

    /// Makes `P` output pixels of a row and `V` vectors of channels.
    #[inline(always)]
    fn tile<S: Simd, const P: usize, const V: usize>(&self, simd: S, weights: &[f32], place: &Place<'_>) {
        let pass = self.pass;
        let width = columns::<S, V>();
        let channels = pass.input_shape.channels();
        let first_channel = place.group * pass.in_channels();
        let here = place.strip.origin
            + (place.u * pass.step[0] * place.strip.line) as isize
            + (place.v * pass.step[1] * channels + first_channel) as isize;
        let mut sums = tile::zeros::<S, P, V>(simd);
        for segment in self.segments {
            let from = here + segment.row * place.strip.line as isize + segment.column * channels as isize;
            let row = pass.step[1] * channels;
            debug_assert!(from >= 0 && from as usize + (P - 1) * row + segment.len <= self.input.len());
            debug_assert!(segment.start + segment.len * width <= weights.len());
            // SAFETY: `strips` made the input reach from the first tap of the first pixel to the last tap
            // of the last one, and `pack` made a block of weights hold every segment in whole vectors.
            unsafe {
                let product = Product {
                    left: self.input.as_ptr().offset(from),
                    left_row: row,
                    left_step: 1,
                    right: weights.as_ptr().add(segment.start),
                    right_step: width,
                    len: segment.len,
                };
                sums = add_product(simd, sums, product);
            }
        }
        let [first_row, first_column] = pass.grid.first;
        let [_, out_h, out_w, out_c] = pass.output_shape.0;
        let p = first_row + place.u * pass.grid.stride[0];
        let channel = place.group * pass.out_channels() + place.block * width;
        let count = (pass.out_channels() - place.block * width).min(width);
        for (i, sums) in sums.into_iter().enumerate() {
            let q = first_column + (place.v + i) * pass.grid.stride[1];
            let at = ((place.strip.image * out_h + p) * out_w + q) * out_c + channel;
            debug_assert!(at + count <= pass.output_shape.len());
            if count == width {
                // SAFETY: `width` elements from `at` are channels of this pixel, which is in the output and in
                // what is shaped like it, and which no other task touches.
                unsafe {
                    let finished = pass.epilogue.finish(simd, sums, at, channel);
                    store(self.output.0.add(at), finished);
                }
            } else {
                let mut values = [0.0f32; 64];
                // SAFETY: a tile is at most 64 wide; of the output only the channels there are are written.
                unsafe {
                    store(values.as_mut_ptr(), sums);
                    for (j, value) in values[..count].iter().enumerate() {
                        *self.output.0.add(at + j) = pass.epilogue.finish_one(*value, at + j, channel + j);
                    }
                }
            }
        }
    }
}

/// Where a tile lies.
struct Place<'a> {
    group: usize,
    block: usize,
    strip: &'a Strip,
    /// Row and first column of the grid.
    u: usize,
    v: usize,
}

impl Epilogue<'_> {
    /// # Safety
    /// `V` vectors have to be readable from `at` in residual and mask, and from `channel` in the bias.
    #[inline(always)]
    unsafe fn finish<S: Simd, const V: usize>(
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

    fn finish_one(&self, value: f32, at: usize, channel: usize) -> f32 {
        let y = value + self.bias.map_or(0.0, |b| b[channel]) + self.residual.map_or(0.0, |r| r[at]);
        match self.activation {
            Activation::None => y,
            Activation::Relu { max } => {
                let low = if y < 0.0 { 0.0 } else { y };
                if max < low { max } else { low }
            }
            Activation::ReluGrad { max } => {
                let mask = self.mask.map_or(0.0, |m| m[at]);
                if mask > 0.0 && mask < max { y } else { 0.0 }
            }
        }
    }
}
