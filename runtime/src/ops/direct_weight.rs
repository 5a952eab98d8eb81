//! The gradient of a convolution's weight on the CPU.
//!
//! dw[t, c, o] = sum over n, p, q of x[n, p*stride + row(t), q*stride + column(t), c] * dy[n, p, q, o]
//!
//! A tile of sums takes some channels c and a block of channels o of one tap, and runs over pixels.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::View;
use super::conv2d::Conv2d;
use super::direct::{Layout, Pass, Pixel};
use super::epilogue::Epilogue;
use super::tile::{
    self, WIDE, WIDEST, add_outer_products, columns, load, most_rows, parts, store, with_rows,
};
use crate::shape::Shape;

/// Pixels whose input channels and gradients, a tile of each, stay in the first-level cache.
const PIXELS: usize = 128;

/// Channels from which on the input's pixels are set apart: a tile reads a few channels of many pixels.
const APART: usize = 32;

/// Sums of a task that stay in the second-level cache, or not far from it.
const SUMS: usize = 128 * 1024;

/// Tasks to share the work out to.
const TASKS: usize = 16;

/// Writes the gradient of the weight of `conv`, from its input and the gradient of its output.
pub(super) fn gradient(conv: &Conv2d, x: View<'_>, dy: View<'_>, w: Shape, out: &mut [f32]) {
    assert_eq!(out.len(), w.len(), "the weight's shape");
    let pass = Pass::forward(conv, x, w, dy.shape, Epilogue::NONE);
    let layout = pass.layout(APART);
    let rows = pass.input_shape.batch() * pass.grid.rows;
    let at_once = (PIXELS / pass.grid.columns.max(1)).max(1);
    let shares = shares(w, conv.groups);

    // Parts of the batch, whose sums are added: as many as the shapes ask for, never the number of threads.
    let parts = (TASKS / shares.len()).min(rows).max(1);
    let per_part = rows.div_ceil(parts).max(1);
    let partial: Vec<Vec<f32>> = (0..parts * shares.len())
        .into_par_iter()
        .map_init(Scratch::default, |scratch, task| {
            let Scratch { input, pixels, dy: packed } = scratch;
            let (part, share) = (task / shares.len(), &shares[task % shares.len()]);
            let mut sums = vec![0.0; w.len() / w.channels() * share.len()];
            let end = ((part + 1) * per_part).min(rows);
            for first in (part * per_part..end).step_by(at_once) {
                let input = pass.window(&layout, first..end.min(first + at_once), input, pixels);
                let (pass, layout, dy, sums) = (&pass, &layout, dy.data, &mut sums);
                Arch::new().dispatch(Work { pass, layout, input, pixels, dy, packed, share, sums });
            }
            sums
        })
        .collect();
    // A row has the output channels of a tap and an input channel.
    out.par_chunks_exact_mut(w.channels()).with_min_len(64).enumerate().for_each(|(row, out)| {
        for (i, share) in shares.iter().enumerate() {
            let out = &mut out[share.first()..][..share.len()];
            out.fill(0.0);
            for part in partial.iter().skip(i).step_by(shares.len()) {
                let sums = &part[row * share.len()..][..share.len()];
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            }
        }
    });
}

/// Output channels whose gradients are one task's: some of a group, or some groups.
#[derive(PartialEq, Debug)]
struct Share {
    groups: Range<usize>,
    /// Of each of them.
    filters: Range<usize>,
    /// Output channels of a group, in all.
    of: usize,
}

impl Share {
    fn first(&self) -> usize {
        self.groups.start * self.of + self.filters.start
    }

    fn len(&self) -> usize {
        self.groups.len() * self.filters.len()
    }
}

/// The output channels of a weight, in shares that depend on its shape alone.
fn shares(w: Shape, groups: usize) -> Vec<Share> {
    let of = w.channels() / groups;
    let wanted = (SUMS / (w.len() / w.channels()).max(1)).max(1);
    if groups == 1 {
        let blocks = parts(of.div_ceil(WIDEST), (wanted / WIDEST).max(1));
        let filters = blocks.map(|blocks| blocks.start * WIDEST..of.min(blocks.end * WIDEST));
        return filters.map(|filters| Share { groups: 0..1, filters, of }).collect();
    }
    let groups = parts(groups, (wanted / of.max(1)).max(1));
    groups.map(|groups| Share { groups, filters: 0..of, of }).collect()
}

/// Memory of a thread, for one part after the other.
#[derive(Default)]
struct Scratch {
    input: Vec<f32>,
    pixels: Vec<Pixel>,
    dy: Vec<f32>,
}

/// Some pixels of a batch, added to the sums.
struct Work<'a> {
    pass: &'a Pass<'a>,
    layout: &'a Layout,
    input: &'a [f32],
    pixels: &'a [Pixel],
    /// Gradient of the output.
    dy: &'a [f32],
    /// Memory for a block of that.
    packed: &'a mut Vec<f32>,
    share: &'a Share,
    /// Taps x input channels of a group x output channels of the share.
    sums: &'a mut [f32],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.share.of > S::F32_LANES { self.all::<S, WIDE>(simd) } else { self.all::<S, 1>(simd) }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn all<S: Simd, const V: usize>(mut self, simd: S) {
        let (pass, share) = (self.pass, self.share);
        let channels = pass.input_shape.channels() / pass.groups;
        let width = columns::<S, V>();
        for group in share.groups.clone() {
            for first in share.filters.clone().step_by(width) {
                let count = width.min(share.filters.end - first);
                let filter = group * share.of + first;
                self.pack(filter..filter + count, width);
                for (i, tap) in pass.taps.iter().enumerate() {
                    for tile in parts(channels, most_rows::<S, V>()) {
                        let from = self.layout.offset(tap) + (group * channels + tile.start) as isize;
                        let to = (i * channels + tile.start) * share.len() + filter - share.first();
                        with_rows!(tile.len(), P => self.tile::<S, P, V>(simd, from, to, count));
                    }
                }
            }
        }
    }

    /// The gradients of some output channels, `width` for each pixel; zeros past the last.
    #[inline(always)]
    fn pack(&mut self, filters: Range<usize>, width: usize) {
        self.packed.clear();
        self.packed.resize(self.pixels.len() * width, 0.0);
        for (pixel, to) in self.pixels.iter().zip(self.packed.chunks_exact_mut(width)) {
            let from = &self.dy[pixel.output..];
            to[..filters.len()].copy_from_slice(&from[filters.clone()]);
        }
    }

    /// Adds to the sums of `P` input channels, `from` where a pixel begins on, and of `count` output channels that were
    /// packed as `V` vectors. The sums lie from `to` on.
    #[inline(always)]
    fn tile<S: Simd, const P: usize, const V: usize>(
        &mut self,
        simd: S,
        from: isize,
        to: usize,
        count: usize,
    ) {
        let row = self.share.len();
        let offsets = self.pixels.iter().map(|pixel| pixel.input + from);
        debug_assert!(offsets.clone().all(|k| k >= 0 && k as usize + P <= self.input.len()));
        let zeros = tile::zeros::<S, P, V>(simd);
        // SAFETY: `window` made the input reach to every tap of these pixels, and `pack` made vectors for each.
        let more =
            unsafe { add_outer_products(simd, zeros, self.input.as_ptr(), offsets, self.packed.as_ptr()) };
        let sums = &mut self.sums[to..][..(P - 1) * row + count];
        for (sums, more) in sums.chunks_mut(row).zip(more) {
            if count == columns::<S, V>() {
                let at = sums.as_mut_ptr();
                // SAFETY: a row of the slice has `count` elements and maybe others.
                unsafe {
                    let now: [S::f32s; V] = load(at.cast_const());
                    store(at, std::array::from_fn::<_, V, _>(|v| simd.add_f32s(now[v], more[v])));
                }
            } else {
                let mut values = [0.0f32; WIDEST];
                // SAFETY: no tile is wider.
                unsafe { store(values.as_mut_ptr(), more) };
                sums[..count].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_output_channel_once() {
        let kinds = [([3, 3, 16, 16], 1), ([3, 3, 512, 500], 1), ([1, 1, 2048, 512], 1), ([7, 7, 3, 64], 1)];
        let grouped = [([3, 3, 1, 512], 512), ([3, 3, 600, 1200], 2), ([3, 3, 4, 96], 12), ([1, 1, 5, 1], 1)];
        for (shape, groups) in kinds.into_iter().chain(grouped) {
            let shares = shares(Shape(shape), groups);
            let mut next = 0;
            for share in &shares {
                assert_eq!(share.first(), next, "{shape:?}: {shares:?}");
                assert!(share.len() > 0, "{shape:?}: {shares:?}");
                next += share.len();
            }
            assert_eq!(next, shape[3], "{shape:?}: {shares:?}");
        }
    }
}
