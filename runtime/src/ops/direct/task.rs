//! One task of a pass: the sums of its tiles, and what is done to them before they are stored.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{Pass, Pixel, Segment};
use crate::ops::tile::{
    self, Output, WIDE, WIDEST, add_products, columns, load, most_rows, parts, store, with_rows,
};
use crate::ops::weight::Elements;

/// Memory of a thread, for one task after the other.
#[derive(Default)]
pub(super) struct Scratch {
    pub input: Vec<f32>,
    pub pixels: Vec<Pixel>,
    /// A block of weights.
    pub weights: Vec<f32>,
    /// Sums of all pixels and a block's columns, between two chunks of the weights.
    pub sums: Vec<f32>,
}

/// One task of a pass.
pub(super) struct Work<'a> {
    pub pass: &'a Pass<'a>,
    pub segments: &'a [Segment],
    /// Of segments, one after the other.
    pub chunks: &'a [Range<usize>],
    pub packed: &'a Elements,
    pub input: &'a [f32],
    pub pixels: &'a [Pixel],
    /// Blocks of output channels of every group.
    pub blocks: Range<usize>,
    pub wide: bool,
    pub output: Output,
}

/// Work, and memory for it.
pub(super) struct Task<'a> {
    pub work: &'a Work<'a>,
    pub weights: &'a mut Vec<f32>,
    pub sums: &'a mut Vec<f32>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.work.wide { self.all::<S, WIDE>(simd) } else { self.all::<S, 1>(simd) }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn all<S: Simd, const V: usize>(self, simd: S) {
        let Self { work, weights, sums } = self;
        let pass = work.pass;
        let width = columns::<S, V>();
        let block_size = pass.taps.len() * pass.in_channels() * width;
        let blocks = pass.out_channels().div_ceil(width);
        if work.chunks.len() > 1 {
            sums.resize(work.pixels.len() * width, 0.0);
        }
        for group in 0..pass.groups {
            for block in work.blocks.clone() {
                let start = (group * blocks + block) * block_size;
                let first = group * pass.out_channels() + block * width;
                let channels = first..(first + width).min((group + 1) * pass.out_channels());
                let weights = work.packed.unpack(start..start + block_size, channels.clone(), width, weights);
                for (i, chunk) in work.chunks.iter().enumerate() {
                    let place = Place {
                        input: group * pass.in_channels(),
                        channels: channels.clone(),
                        weights,
                        segments: &work.segments[chunk.clone()],
                        is_first: i == 0,
                        is_last: i + 1 == work.chunks.len(),
                    };
                    for tile in parts(work.pixels.len(), most_rows::<S, V>()) {
                        with_rows!(tile.len(), P => work.tile::<S, P, V>(simd, &place, tile.start, sums));
                    }
                }
            }
        }
    }
}

/// What a tile of any pixels is made of.
struct Place<'a> {
    /// First channel of the input.
    input: usize,
    /// Of the output: as many as the tile is wide, or fewer.
    channels: Range<usize>,
    /// Those of the block.
    weights: &'a [f32],
    segments: &'a [Segment],
    /// Whether sums begin with these segments, and whether they end.
    is_first: bool,
    is_last: bool,
}

impl Work<'_> {
    /// Makes `P` output pixels, from the number `first` on, and `V` vectors of channels. `between` has the sums of
    /// other segments.
    #[inline(always)]
    fn tile<S: Simd, const P: usize, const V: usize>(
        &self,
        simd: S,
        place: &Place<'_>,
        first: usize,
        between: &mut [f32],
    ) {
        let width = columns::<S, V>();
        let pixels: &[Pixel; P] = self.pixels[first..].first_chunk().expect("a tile of pixels there are");
        let mut sums = tile::zeros::<S, P, V>(simd);
        if !place.is_first {
            let between = &between[first * width..][..P * width];
            // SAFETY: `P` times `V` vectors.
            sums = unsafe { load(between.as_ptr()) };
        }
        for segment in place.segments {
            debug_assert!(segment.start + segment.len * width <= place.weights.len());
            // SAFETY: `window` made the input reach from the first tap of the first pixel to the last tap of the last
            // one, and `pack` made a block of weights hold every segment in whole vectors.
            unsafe {
                let left = pixels.map(|pixel| {
                    let from = pixel.input + segment.offset + place.input as isize;
                    debug_assert!(from >= 0 && from as usize + segment.len <= self.input.len());
                    self.input.as_ptr().offset(from)
                });
                let right = place.weights.as_ptr().add(segment.start);
                sums = add_products(simd, sums, left, right, segment.len);
            }
        }
        if !place.is_last {
            let between = &mut between[first * width..][..P * width];
            // SAFETY: `P` times `V` vectors.
            unsafe { store(between.as_mut_ptr(), sums) };
            return;
        }
        let epilogue = &self.pass.epilogue;
        let (channel, count) = (place.channels.start, place.channels.len());
        for (pixel, sums) in pixels.iter().zip(sums) {
            let at = pixel.output + channel;
            debug_assert!(at + count <= self.pass.output_shape.len());
            if count == width {
                // SAFETY: `width` elements from `at` are channels of this pixel, which is in the output and in
                // what is shaped like it, and which no other task touches.
                unsafe {
                    let finished = epilogue.finish(simd, sums, at, channel);
                    store(self.output.0.add(at), finished);
                }
            } else {
                let mut values = [0.0f32; WIDEST];
                // SAFETY: no tile is wider; of the output only the channels there are are written.
                unsafe {
                    store(values.as_mut_ptr(), sums);
                    for (j, value) in values[..count].iter().enumerate() {
                        *self.output.0.add(at + j) = epilogue.finish_one(*value, at + j, channel + j);
                    }
                }
            }
        }
    }
}
