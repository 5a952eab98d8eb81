//! The gradient of a convolution's weight on the CPU.
//!
//! dw[t, c, o] = sum over n, p, q of x[n, p*stride + row(t), q*stride + column(t), c] * dy[n, p, q, o]
//!
//! A tile of sums takes some channels c and a block of channels o of one tap, and runs over pixels.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::View;
use super::conv2d::Conv2d;
use super::direct::{Epilogue, Lanes, Pass, Strip};
use super::tile::{Product, WIDE, add_product, columns, load, most_rows, store, with_rows};
use crate::shape::Shape;

/// Writes the gradient of the weight of `conv`, from its input and the gradient of its output.
pub(super) fn gradient(conv: &Conv2d, x: View<'_>, dy: View<'_>, w: Shape, out: &mut [f32]) {
    assert_eq!(out.len(), w.len(), "the weight's shape");
    let arch = Arch::new();
    let lanes = arch.dispatch(Lanes);
    let filters = w.channels() / conv.groups;
    let wide = filters > lanes;
    let block = if wide { WIDE * lanes } else { lanes };
    let blocks = filters.div_ceil(block);

    // Whole blocks of output channels, so that vectors of one pixel do not reach into the next.
    let padded = padded_channels(dy, conv.groups, filters, blocks * block);
    let dy = View { shape: dy.shape, data: padded.as_deref().unwrap_or(dy.data) };
    let pass = Pass::forward(conv, x, w, dy.shape, Epilogue::NONE);
    let rows = pass.input_shape.batch() * pass.grid.rows;

    // The number of parts depends on the shapes alone, never on the number of threads.
    let parts = ((2 << 20) / w.len()).clamp(2, 16).min(rows);
    let per_part = rows.div_ceil(parts.max(1)).max(1);
    let sums_len = w.len() / filters * blocks * block;
    let partial: Vec<Vec<f32>> = (0..parts)
        .into_par_iter()
        .map_init(Vec::new, |buffer, part| {
            let mut sums = vec![0.0; sums_len];
            let end = ((part + 1) * per_part).min(rows);
            for first in (part * per_part..end).step_by(pass.cached_rows()) {
                let (strips, input) = pass.strips(first..end.min(first + pass.cached_rows()), buffer);
                let work =
                    Work { pass: &pass, strips: &strips, input, dy: dy.data, blocks, wide, sums: &mut sums };
                arch.dispatch(work);
            }
            sums
        })
        .collect();
    // Rows of the sums are taps and channels of the input, with the groups' blocks side by side.
    for (i, out) in out.chunks_exact_mut(filters).enumerate() {
        let from = i * blocks * block;
        out.fill(0.0);
        for part in &partial {
            for (out, sum) in out.iter_mut().zip(&part[from..from + filters]) {
                *out += sum;
            }
        }
    }
}

/// The activation with `wanted` channels a group instead of `filters`, the rest zero; nothing when it
/// has them.
fn padded_channels(dy: View<'_>, groups: usize, filters: usize, wanted: usize) -> Option<Vec<f32>> {
    if filters == wanted {
        return None;
    }
    let pixels = dy.data.len() / (groups * filters);
    let mut padded = vec![0.0; pixels * groups * wanted];
    let rows = padded.par_chunks_mut(wanted).zip(dy.data.par_chunks(filters));
    rows.with_min_len(1024).for_each(|(out, row)| out[..filters].copy_from_slice(row));
    Some(padded)
}

/// Rows of a batch, added to the sums.
struct Work<'a> {
    pass: &'a Pass<'a>,
    strips: &'a [Strip],
    input: &'a [f32],
    /// Gradient of the output, in whole blocks of channels.
    dy: &'a [f32],
    /// Blocks of a group.
    blocks: usize,
    wide: bool,
    /// Taps x input channels of a group x groups x channels of all blocks of a group.
    sums: &'a mut [f32],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.wide { self.all::<S, WIDE>(simd) } else { self.all::<S, 1>(simd) }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn all<S: Simd, const V: usize>(mut self, simd: S) {
        let pass = self.pass;
        let channels = pass.input_shape.channels() / pass.groups;
        let tiles = channels.div_ceil(most_rows::<S, V>());
        for tap in 0..pass.taps.len() {
            for group in 0..pass.groups {
                for block in 0..self.blocks {
                    for tile in 0..tiles {
                        let first = tile * channels / tiles;
                        let end = (tile + 1) * channels / tiles;
                        let place = Place { tap, group, block, first };
                        with_rows!(end - first, P => self.tile::<S, P, V>(simd, &place));
                    }
                }
            }
        }
    }

    /// Adds to the sums of `P` input channels and `V` vectors of output channels.
    #[inline(always)]
    fn tile<S: Simd, const P: usize, const V: usize>(&mut self, simd: S, place: &Place) {
        let pass = self.pass;
        let tap = pass.taps[place.tap];
        let all_channels = pass.input_shape.channels();
        let channels = all_channels / pass.groups;
        let channel = place.group * channels + place.first;
        let dy_channels = pass.groups * self.blocks * columns::<S, V>();
        let dy_channel = (place.group * self.blocks + place.block) * columns::<S, V>();
        let to = (place.tap * channels + place.first) * dy_channels + dy_channel;
        debug_assert!(to + (P - 1) * dy_channels + columns::<S, V>() <= self.sums.len());
        let at = self.sums[to..].as_mut_ptr();
        // SAFETY: `gradient` made the sums hold whole blocks for every tap and channel.
        let mut sums: [[S::f32s; V]; P] =
            std::array::from_fn(|i| unsafe { load(at.add(i * dy_channels).cast_const()) });
        for strip in self.strips {
            for u in strip.rows.clone() {
                let from = strip.origin
                    + ((u * pass.step[0]) as isize + tap.row) * strip.line as isize
                    + tap.column * all_channels as isize
                    + channel as isize;
                let row = (strip.image * pass.grid.rows + u) * pass.grid.columns;
                let step = pass.step[1] * all_channels;
                debug_assert!(from >= 0);
                debug_assert!(from as usize + (pass.grid.columns - 1) * step + P <= self.input.len());
                debug_assert!(
                    (row + pass.grid.columns - 1) * dy_channels + dy_channel + columns::<S, V>()
                        <= self.dy.len()
                );
                // SAFETY: `strips` made the input reach to every tap of these rows' pixels, `padded_channels`
                // made dy hold whole blocks for each.
                unsafe {
                    let product = Product {
                        left: self.input.as_ptr().offset(from),
                        left_row: 1,
                        left_step: step,
                        right: self.dy.as_ptr().add(row * dy_channels + dy_channel),
                        right_step: dy_channels,
                        len: pass.grid.columns,
                    };
                    sums = add_product(simd, sums, product);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { store(at.add(i * dy_channels), sums) };
        }
    }
}

/// Where a tile lies.
struct Place {
    tap: usize,
    group: usize,
    block: usize,
    /// First input channel of the group.
    first: usize,
}
