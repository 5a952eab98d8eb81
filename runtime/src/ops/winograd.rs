//! Convolution on the CPU of three by three taps, at a stride of 1, by Winograd's minimal filtering: F(2x2, 3x3) of
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.1.
//!
//! A tile of 2x2 outputs comes from one of 4x4 inputs. At 16 positions p, with the sum over channels c,
//!
//! Y = A' [sum over c of (G g[c] G') * (B' d[c] B)] A
//!
//! where * multiplies element by element: 16 multiplications for what takes 36 by the definition. The sums are products
//! of matrices, one for each position: tiles x input channels by input channels x output channels. B and A hold 0, 1 and
//! -1, G also 1/2, so that rounding errors stay those of a sum of few terms more.

mod tiles;
mod weight;

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use self::tiles::{Inputs, Place, Tiles, pitch, spread};
pub(super) use self::weight::gradient;
use super::View;
use super::conv2d::Conv2d;
use super::direct::Lanes;
use super::epilogue::Epilogue;
use super::tile::{self, Output, WIDE, add_products, columns, load, most_rows, parts, store, with_rows};
use crate::shape::Shape;

/// Elements of a transformed tile.
const POSITIONS: usize = 16;

/// Channels come in multiples of the lanes that a vector has at most.
const LANES: usize = 16;

/// Channels from which on fewer multiplications are worth the transforms.
const CHANNELS: usize = 32;

/// Output pixels of an image from which on the weights, 16/9 as large, are worth reading for one image. With few of them,
/// too, many gradients of a weight are exactly zero, which rounding would make very small instead: no difference but to
/// optimizers that divide by their size.
const PIXELS: usize = 64;

/// Floats of transformed input that stay in the second-level cache.
const CACHE: usize = 24 * 1024;

/// Tiles for which reading the weights once is cheap.
const TILES: usize = 12;

/// Output channels for which sums are kept between the positions.
const PANEL: usize = 64;

/// Whether a convolution with a weight of shape `w` and an output of shape `y` goes by tiles, and the gradient of its
/// weight. That does not depend on the batch: an image's output is the same in every one.
pub(super) fn applies(conv: &Conv2d, w: Shape, y: Shape) -> bool {
    let [height, width, ins, outs] = w.0;
    let pixels = y.height() * y.width();
    let tiles = y.height().div_ceil(2) * y.width().div_ceil(2);
    [height, width] == [3, 3]
        && conv.stride == [1, 1]
        && conv.dilation == [1, 1]
        && conv.groups == 1
        && ins.min(outs) >= CHANNELS
        && ins.is_multiple_of(LANES)
        && outs.is_multiple_of(LANES)
        && pixels >= PIXELS
        // Those that hang over the edge do not eat up what there is to gain.
        && 3 * POSITIONS * tiles <= 2 * 9 * pixels
}

/// Elements of a transformed weight.
pub(super) const fn transformed_len(w: Shape) -> usize {
    POSITIONS * w.0[2] * w.0[3]
}

/// A weight of shape 3 x 3 x input channels x output channels by block of output channels, position, input channel and
/// channel of the block. Blocks are as wide as the widest tile, but for the last.
pub(super) fn transform_weight(w: Shape, weight: &[f32]) -> Vec<f32> {
    let (ins, outs) = (w.0[2], w.0[3]);
    let block = WIDE * Arch::new().dispatch(Lanes);
    let mut transformed = vec![0.0; transformed_len(w)];
    transformed.par_chunks_mut(POSITIONS * ins * block).enumerate().for_each(|(i, out)| {
        let filters = i * block..outs.min((i + 1) * block);
        Arch::new().dispatch(TransformWeight { ins, outs, weight, filters, out });
    });
    transformed
}

struct TransformWeight<'a> {
    ins: usize,
    outs: usize,
    weight: &'a [f32],
    filters: Range<usize>,
    /// Of the block alone.
    out: &'a mut [f32],
}

impl WithSimd for TransformWeight<'_> {
    type Output = ();

    /// U = G g G'
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { ins, outs, weight, filters, out } = self;
        let width = filters.len();
        let half = simd.splat_f32s(0.5);
        // (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)
        let expand = |g: [S::f32s; 3]| {
            let ends = simd.add_f32s(g[0], g[2]);
            let sum = simd.mul_f32s(half, simd.add_f32s(ends, g[1]));
            let difference = simd.mul_f32s(half, simd.sub_f32s(ends, g[1]));
            [g[0], sum, difference, g[2]]
        };
        assert!(weight.len() == 9 * ins * outs && filters.end <= outs && width.is_multiple_of(S::F32_LANES));
        assert_eq!(out.len(), POSITIONS * ins * width);
        for c in 0..ins {
            for lane in (0..width).step_by(S::F32_LANES) {
                let at = c * outs + filters.start + lane;
                // SAFETY: a vector of output channels of each tap and of the input channel `c`.
                let g = |tap: usize| -> S::f32s {
                    let [g] = unsafe { load(weight.as_ptr().add(tap * ins * outs + at)) };
                    g
                };
                let columns: [[S::f32s; 4]; 3] = std::array::from_fn(|s| expand([g(s), g(3 + s), g(6 + s)]));
                let rows: [[S::f32s; 4]; 4] =
                    std::array::from_fn(|r| expand(std::array::from_fn(|s| columns[s][r])));
                for (position, value) in rows.into_iter().flatten().enumerate() {
                    let to = (position * ins + c) * width + lane;
                    // SAFETY: `out` has a row of `width` elements for each position and input channel.
                    unsafe { store(out.as_mut_ptr().add(to), [value]) };
                }
            }
        }
    }
}

/// A convolution to which [`applies`] applies.
pub(super) struct Winograd<'a> {
    tiles: Tiles<'a>,
    epilogue: Epilogue<'a>,
}

impl<'a> Winograd<'a> {
    pub(super) fn new(conv: &Conv2d, x: View<'a>, y: Shape, epilogue: Epilogue<'a>) -> Self {
        Self { tiles: Tiles::new(conv, x, y), epilogue }
    }

    /// Runs it with a weight that [`transform_weight`] made.
    pub(super) fn run(&self, weight: &[f32], output: &mut [f32]) {
        let Tiles { x, y, .. } = self.tiles;
        let (ins, outs) = (x.shape.channels(), y.channels());
        assert_eq!(output.len(), y.len(), "the output's shape");
        assert_eq!(weight.len(), POSITIONS * ins * outs, "the transformed weight's size");
        let tiles = self.tiles.count();
        let balanced = tiles.div_ceil(4 * rayon::current_num_threads());
        let cached = CACHE / (POSITIONS * ins);
        let tasks: Vec<Range<usize>> = parts(tiles, cached.min(balanced).max(TILES)).collect();
        let output = Output(output.as_mut_ptr());
        tasks.into_par_iter().for_each_init(Scratch::default, |scratch, tiles| {
            Arch::new().dispatch(Task { of: self, weight, tiles, scratch, output });
        });
    }
}

/// Memory of a thread, for one task after the other.
#[derive(Default)]
struct Scratch {
    places: Vec<Place>,
    /// A pixel outside of the image.
    zeros: Vec<f32>,
    /// Positions x tiles x input channels.
    inputs: Vec<f32>,
    /// Blocks of a panel x positions x tiles x channels of the block.
    sums: Vec<f32>,
}

/// Some tiles of the batch, and all of their output channels.
struct Task<'a> {
    of: &'a Winograd<'a>,
    weight: &'a [f32],
    tiles: Range<usize>,
    scratch: &'a mut Scratch,
    output: Output,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { of, weight, tiles, scratch: Scratch { places, zeros, inputs, sums }, output } = self;
        let (ins, outs) = (of.tiles.x.shape.channels(), of.tiles.y.channels());
        assert!(ins.is_multiple_of(S::F32_LANES) && outs.is_multiple_of(S::F32_LANES));
        places.clear();
        places.extend(tiles.map(|tile| of.tiles.place(tile)));
        let pitch = pitch(ins);
        let rows = places.len() | 1;
        inputs.resize(POSITIONS * rows * pitch, 0.0);
        zeros.resize(ins, 0.0);
        for (i, place) in places.iter().enumerate() {
            let to = &mut inputs[i * pitch..];
            match of.tiles.inputs(place, zeros) {
                // SAFETY: `inputs` finds all channels of 4x4 pixels.
                Inputs::Whole { first, line } => unsafe {
                    let pixel = |r: usize, s: usize| first.wrapping_add(r * line + s * ins);
                    transform_input(simd, pixel, ins, to, rows * pitch);
                },
                // SAFETY: as above.
                Inputs::Partly(pixels) => unsafe {
                    transform_input(simd, |r, s| pixels[r][s], ins, to, rows * pitch);
                },
            }
        }
        let block = columns::<S, WIDE>();
        sums.resize(POSITIONS * rows * PANEL.min(outs), 0.0);
        for panel in (0..outs).step_by(PANEL) {
            let panel = panel..outs.min(panel + PANEL);
            for position in 0..POSITIONS {
                let left = &inputs[position * rows * pitch..][..places.len() * pitch];
                for first in panel.clone().step_by(block) {
                    let width = block.min(panel.end - first);
                    let right = &weight[(first * POSITIONS + position * width) * ins..][..width * ins];
                    let to = (first - panel.start) * POSITIONS + position * width;
                    let sums = &mut sums[to * rows..][..width * places.len()];
                    if width == block {
                        multiply::<S, WIDE>(simd, left, pitch, right, ins, sums);
                    } else {
                        multiply::<S, 1>(simd, left, pitch, right, ins, sums);
                    }
                }
            }
            for first in panel.clone().step_by(block) {
                let width = block.min(panel.end - first);
                let sums = &sums[(first - panel.start) * POSITIONS * rows..];
                for (i, place) in places.iter().enumerate() {
                    let sums = &sums[i * width..];
                    for lane in (0..width).step_by(S::F32_LANES) {
                        of.store(simd, &sums[lane..], rows * width, place, first + lane, output);
                    }
                }
            }
        }
    }
}

impl Winograd<'_> {
    /// Y = A' M A for a vector of output channels, stored as far as the image reaches. The sums of position p lie at
    /// p * `distance`.
    #[inline(always)]
    fn store<S: Simd>(
        &self,
        simd: S,
        sums: &[f32],
        distance: usize,
        place: &Place,
        channel: usize,
        output: Output,
    ) {
        let Shape([_, height, width, outs]) = self.tiles.y;
        assert!((POSITIONS - 1) * distance + S::F32_LANES <= sums.len() && channel + S::F32_LANES <= outs);
        // (m0 + m1 + m2, m1 - m2 - m3)
        let reduce = |m: [S::f32s; 4]| {
            let sum = simd.add_f32s(simd.add_f32s(m[0], m[1]), m[2]);
            [sum, simd.sub_f32s(simd.sub_f32s(m[1], m[2]), m[3])]
        };
        let columns: [[S::f32s; 2]; 4] = std::array::from_fn(|s| {
            reduce(std::array::from_fn(|r| {
                // SAFETY: a vector of each position, see above.
                let [m] = unsafe { load(sums.as_ptr().add((4 * r + s) * distance)) };
                m
            }))
        });
        let rows: [[S::f32s; 2]; 2] = std::array::from_fn(|r| reduce(std::array::from_fn(|s| columns[s][r])));
        for (r, row) in rows.into_iter().enumerate().take(height - place.row) {
            for (s, value) in row.into_iter().enumerate().take(width - place.column) {
                let pixel = (place.image * height + place.row + r) * width + place.column + s;
                let at = pixel * outs + channel;
                // SAFETY: a vector of channels of a pixel of the output, which no other task touches.
                unsafe {
                    let finished = self.epilogue.finish(simd, [value], at, channel);
                    store(output.0.add(at), finished);
                }
            }
        }
    }
}

/// V = B' d B of a tile, stored at p * `distance` for position p. `pixel` finds each of its 4x4 inputs.
///
/// # Safety
/// `ins` elements have to be readable from each `pixel`.
#[inline(always)]
unsafe fn transform_input<S: Simd>(
    simd: S,
    pixel: impl Fn(usize, usize) -> *const f32,
    ins: usize,
    to: &mut [f32],
    distance: usize,
) {
    assert!((POSITIONS - 1) * distance + ins <= to.len());
    for c in (0..ins).step_by(S::F32_LANES) {
        let columns: [[S::f32s; 4]; 4] = std::array::from_fn(|s| {
            let column = std::array::from_fn(|r| {
                // SAFETY: the caller vouches for the channels.
                let [value] = unsafe { load(pixel(r, s).add(c)) };
                value
            });
            spread(simd, column)
        });
        let rows: [[S::f32s; 4]; 4] =
            std::array::from_fn(|r| spread(simd, std::array::from_fn(|s| columns[s][r])));
        for (position, value) in rows.into_iter().flatten().enumerate() {
            // SAFETY: a vector of the channels of each position, see above.
            unsafe { store(to.as_mut_ptr().add(position * distance + c), [value]) };
        }
    }
}

/// The product of two matrices, of one position: rows of `left` are `pitch` apart, rows of `right` and of `sums` have `V`
/// vectors.
#[inline(always)]
fn multiply<S: Simd, const V: usize>(
    simd: S,
    left: &[f32],
    pitch: usize,
    right: &[f32],
    len: usize,
    sums: &mut [f32],
) {
    let width = columns::<S, V>();
    let rows = sums.len() / width;
    assert!(right.len() == len * width && left.len() >= rows * pitch && pitch >= len);
    for tile in parts(rows, most_rows::<S, V>()) {
        with_rows!(tile.len(), P => {
            let to = &mut sums[tile.start * width..][..P * width];
            let zeros = tile::zeros::<S, P, V>(simd);
            // SAFETY: `P` rows of `len` elements, and `V` vectors for each of these.
            unsafe {
                let left = std::array::from_fn(|i| left.as_ptr().add((tile.start + i) * pitch));
                store(to.as_mut_ptr(), add_products(simd, zeros, left, right.as_ptr(), len));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Operation, ViewMut};

    /// What `attack` and `evaluate` report of an image does not depend on which others are in its batch.
    #[test]
    fn an_image_has_the_same_bits_in_every_batch() {
        let conv = Conv2d { pads: [1; 4], ..Conv2d::LINEAR };
        let w = Shape([3, 3, 32, 48]);
        let values =
            |len: usize| -> Vec<f32> { (0..len).map(|i| (i * 7919 % 1009) as f32 - 504.0).collect() };
        let weight = values(w.len());
        // In tiles, and too small for that.
        for [height, width] in [[9, 11], [4, 5]] {
            let run = |images: &[f32]| {
                let batch = images.len() / (height * width * 32);
                let x = View { shape: Shape([batch, height, width, 32]), data: images };
                let shape = Shape([batch, height, width, 48]);
                let mut data = vec![0.0; shape.len()];
                let output = ViewMut { shape, data: &mut data };
                conv.run(&[x, View { shape: w, data: &weight }], &mut [output]);
                data.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            };
            let images = values(5 * height * width * 32);
            let alone: Vec<u32> = images.chunks(height * width * 32).flat_map(run).collect();
            assert!(alone == run(&images), "images of {height}x{width}");
        }
    }
}
