//! The gradient of the weight, for each input and output channel
//!
//! dw = G' [sum over tiles of (B' d B) * (A dY A')] G
//!
//! which is the derivative of what the convolution computes: 16 multiplications a tile where the definition takes 36. A row
//! of positions is a task's.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::POSITIONS;
use super::tiles::{Inputs, Place, Tiles, pitch, spread};
use crate::ops::View;
use crate::ops::conv2d::Conv2d;
use crate::ops::tile::{self, WIDE, add_outer_products, columns, load, most_rows, parts, store, with_rows};
use crate::shape::Shape;

/// Tiles that stay in the second-level cache, at one position.
const TILES: usize = 96;

/// Parts of the batch whose sums are added, and the floats that all sums may take.
const PARTS: usize = 4;
const SUMS: usize = 4 * 1024 * 1024;

/// Positions of a row, and rows.
const ROW: usize = 4;

/// A row of B' d, for each row of positions: one row of `d`, plus or minus another one.
const INPUT: [(usize, usize, f32); ROW] = [(0, 2, -1.0), (1, 2, 1.0), (2, 1, -1.0), (1, 3, -1.0)];

/// A row of A dY, for each row of positions: how often it has each of the two rows of `dY`.
const OUTPUT: [[f32; 2]; ROW] = [[1.0, 0.0], [1.0, 1.0], [1.0, -1.0], [0.0, -1.0]];

/// Writes the gradient of the weight of `conv`, from its input and the gradient of its output, where
/// [`super::applies`] applies.
pub(in crate::ops) fn gradient(conv: &Conv2d, x: View<'_>, dy: View<'_>, w: Shape, out: &mut [f32]) {
    let (ins, outs) = (x.shape.channels(), dy.shape.channels());
    assert_eq!(out.len(), w.len(), "the weight's shape");
    assert_eq!(dy.data.len(), dy.shape.len(), "the gradient's shape");
    let tiles = Tiles::new(conv, x, dy.shape);
    // As many parts as the shapes ask for, never the number of threads.
    let most = (SUMS / (POSITIONS * ins * outs)).clamp(1, PARTS);
    let shares: Vec<Range<usize>> = parts(tiles.count(), tiles.count().div_ceil(most).max(1)).collect();
    let partial: Vec<Vec<f32>> = (0..shares.len() * ROW)
        .into_par_iter()
        .map_init(Scratch::default, |scratch, task| {
            let (share, row) = (&shares[task / ROW], task % ROW);
            let mut sums = vec![0.0; ROW * ins * outs];
            for part in parts(share.len(), TILES) {
                let part = share.start + part.start..share.start + part.end;
                let (tiles, sums) = (&tiles, &mut sums);
                Arch::new().dispatch(Work { tiles, dy: dy.data, part, row, scratch, sums });
            }
            reduce(&mut sums);
            sums
        })
        .collect();

    // The taps of each input channel.
    let mut channels: Vec<Vec<&mut [f32]>> = (0..ins).map(|_| Vec::with_capacity(9)).collect();
    for (row, out) in out.chunks_exact_mut(outs).enumerate() {
        channels[row % ins].push(out);
    }
    channels.into_par_iter().with_min_len(8).enumerate().for_each(|(channel, mut taps)| {
        for column in 0..3 {
            let at = (column * ins + channel) * outs;
            let mut rows = vec![0.0; ROW * outs];
            for (task, sums) in partial.iter().enumerate() {
                let row = &mut rows[task % ROW * outs..][..outs];
                row.iter_mut().zip(&sums[at..]).for_each(|(row, sum)| *row += sum);
            }
            reduce(&mut rows);
            for (row, values) in rows.chunks_exact(outs).take(3).enumerate() {
                taps[3 * row + column].copy_from_slice(values);
            }
        }
    });
}

/// G' times four rows of equal length, as the first three of them.
fn reduce(rows: &mut [f32]) {
    let len = rows.len() / ROW;
    let (first, rest) = rows.split_at_mut(len);
    let (second, rest) = rest.split_at_mut(len);
    let (third, fourth) = rest.split_at_mut(len);
    for (((a, b), c), d) in first.iter_mut().zip(second).zip(third).zip(fourth) {
        let (sum, difference) = (0.5 * (*b + *c), 0.5 * (*b - *c));
        (*a, *b, *c) = (*a + sum, difference, sum + *d);
    }
}

/// Memory of a thread, for one part after the other.
#[derive(Default)]
struct Scratch {
    /// A pixel outside of the image.
    zeros: Vec<f32>,
    /// Positions of a row x tiles x input channels.
    inputs: Vec<f32>,
    /// Positions of a row x blocks of output channels x tiles x channels of the block.
    outputs: Vec<f32>,
}

/// Some tiles, added to the sums of a row of positions.
struct Work<'a> {
    tiles: &'a Tiles<'a>,
    /// Gradient of the output.
    dy: &'a [f32],
    part: Range<usize>,
    row: usize,
    scratch: &'a mut Scratch,
    /// Positions of the row x input channels x output channels.
    sums: &'a mut [f32],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, dy, part, row, scratch: Scratch { zeros, inputs, outputs }, sums } = self;
        let (ins, outs) = (tiles.x.shape.channels(), tiles.y.channels());
        let (pitch, rows) = (pitch(ins), part.len() | 1);
        zeros.resize(ins.max(outs), 0.0);
        inputs.resize(ROW * rows * pitch, 0.0);
        outputs.resize(ROW * rows * outs, 0.0);
        for (i, tile) in part.clone().enumerate() {
            let place = tiles.place(tile);
            let distance = rows * pitch;
            let to = &mut inputs[i * pitch..];
            // SAFETY: `inputs` finds all channels of 4x4 pixels.
            unsafe {
                match tiles.inputs(&place, zeros) {
                    Inputs::Whole { first, line } => {
                        let pixel = |r: usize, s: usize| first.wrapping_add(r * line + s * ins);
                        transform_input(simd, row, pixel, ins, to, distance);
                    }
                    Inputs::Partly(pixels) => {
                        transform_input(simd, row, |r, s| pixels[r][s], ins, to, distance);
                    }
                }
            }
            transform_output(
                simd,
                row,
                gradients(tiles.y, dy, &place, zeros),
                i,
                part.len(),
                rows * outs,
                outputs,
            );
        }
        let block = columns::<S, WIDE>();
        for position in 0..ROW {
            let left = &inputs[position * rows * pitch..][..part.len() * pitch];
            let right = &outputs[position * rows * outs..][..part.len() * outs];
            let sums = &mut sums[position * ins * outs..][..ins * outs];
            for first in (0..outs).step_by(block) {
                let width = block.min(outs - first);
                let right = &right[first * part.len()..][..width * part.len()];
                if width == block {
                    multiply::<S, WIDE>(simd, left, pitch, right, ins, &mut sums[first..], outs);
                } else {
                    multiply::<S, 1>(simd, left, pitch, right, ins, &mut sums[first..], outs);
                }
            }
        }
    }
}

/// The channels of each of a tile's 2x2 gradients, `zeros` for those that the image does not have.
fn gradients<'a>(y: Shape, dy: &'a [f32], place: &Place, zeros: &'a [f32]) -> [[&'a [f32]; 2]; 2] {
    let Shape([_, height, width, outs]) = y;
    std::array::from_fn(|r| {
        std::array::from_fn(|s| {
            let (i, j) = (place.row + r, place.column + s);
            let pixel = (place.image * height + i) * width + j;
            if i < height && j < width { &dy[pixel * outs..][..outs] } else { &zeros[..outs] }
        })
    })
}

/// A row of B' d B, stored at s * `distance` for the position s of the row. `pixel` finds each of the 4x4 inputs.
///
/// # Safety
/// `ins` elements have to be readable from each `pixel`.
#[inline(always)]
unsafe fn transform_input<S: Simd>(
    simd: S,
    row: usize,
    pixel: impl Fn(usize, usize) -> *const f32,
    ins: usize,
    to: &mut [f32],
    distance: usize,
) {
    assert!((ROW - 1) * distance + ins <= to.len() && ins.is_multiple_of(S::F32_LANES));
    let (one, other, sign) = INPUT[row];
    let sign = simd.splat_f32s(sign);
    for c in (0..ins).step_by(S::F32_LANES) {
        // SAFETY: the caller vouches for the channels.
        let at = |r: usize, s: usize| unsafe {
            let [value] = load::<S::f32s, 1>(pixel(r, s).add(c));
            value
        };
        let d: [S::f32s; 4] = std::array::from_fn(|s| simd.mul_add_e_f32s(sign, at(other, s), at(one, s)));
        for (s, value) in spread(simd, d).into_iter().enumerate() {
            // SAFETY: a vector of the channels of each position, see above.
            unsafe { store(to.as_mut_ptr().add(s * distance + c), [value]) };
        }
    }
}

/// A row of A dY A' of the tile number `tile` of `tiles`, stored at s * `distance` for the position s of the row, by block
/// of output channels and tile.
#[inline(always)]
fn transform_output<S: Simd>(
    simd: S,
    row: usize,
    dy: [[&[f32]; 2]; 2],
    tile: usize,
    tiles: usize,
    distance: usize,
    to: &mut [f32],
) {
    let outs = dy[0][0].len();
    assert!(dy.iter().flatten().all(|pixel| pixel.len() == outs) && outs.is_multiple_of(S::F32_LANES));
    assert!(tile < tiles && (ROW - 1) * distance + tiles * outs <= to.len());
    let block = columns::<S, WIDE>();
    let [one, other] = OUTPUT[row].map(|times| simd.splat_f32s(times));
    for first in (0..outs).step_by(block) {
        let width = block.min(outs - first);
        for lane in (0..width).step_by(S::F32_LANES) {
            // SAFETY: a vector of the channels of a pixel.
            let at = |r: usize, s: usize| unsafe {
                let [value] = load::<S::f32s, 1>(dy[r][s].as_ptr().add(first + lane));
                value
            };
            let y: [S::f32s; 2] =
                std::array::from_fn(|s| simd.mul_add_e_f32s(other, at(1, s), simd.mul_f32s(one, at(0, s))));
            let values = [y[0], simd.add_f32s(y[0], y[1]), simd.sub_f32s(y[0], y[1]), simd.neg_f32s(y[1])];
            for (s, value) in values.into_iter().enumerate() {
                let at = s * distance + first * tiles + tile * width + lane;
                // SAFETY: a vector of a block of output channels of each position, see above.
                unsafe { store(to.as_mut_ptr().add(at), [value]) };
            }
        }
    }
}

/// Adds `left` transposed times `right` to `sums`: rows of `left` are `pitch` apart and `channels` long, rows of `right`
/// have `V` vectors, and rows of `sums` so many, too, but are `outs` apart.
#[inline(always)]
fn multiply<S: Simd, const V: usize>(
    simd: S,
    left: &[f32],
    pitch: usize,
    right: &[f32],
    channels: usize,
    sums: &mut [f32],
    outs: usize,
) {
    let width = columns::<S, V>();
    let len = right.len() / width;
    assert!(left.len() >= len * pitch && pitch >= channels && sums.len() >= (channels - 1) * outs + width);
    for tile in parts(channels, most_rows::<S, V>()) {
        with_rows!(tile.len(), P => {
            let offsets = (0..len).map(|k| (k * pitch + tile.start) as isize);
            let zeros = tile::zeros::<S, P, V>(simd);
            // SAFETY: `P` of the `channels` of each row of `left`, and `V` vectors of `right`.
            let more = unsafe { add_outer_products(simd, zeros, left.as_ptr(), offsets, right.as_ptr()) };
            for (row, more) in more.into_iter().enumerate() {
                let at = sums[(tile.start + row) * outs..][..width].as_mut_ptr();
                // SAFETY: `V` vectors are `width` elements.
                unsafe {
                    let now: [S::f32s; V] = load(at.cast_const());
                    store(at, std::array::from_fn::<_, V, _>(|v| simd.add_f32s(now[v], more[v])));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::direct_weight;

    #[test]
    fn tiles_give_the_gradient_of_the_definition() {
        let conv = Conv2d { pads: [1; 4], ..Conv2d::LINEAR };
        for [batch, height, width, ins, outs] in
            [[1, 2, 2, 32, 32], [3, 2, 2, 64, 48], [2, 5, 3, 32, 32], [5, 9, 11, 48, 32], [4, 16, 16, 64, 80]]
        {
            let values = |len: usize, times: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * times % 1009) as f32 - 504.0) / 504.0).collect()
            };
            let (x, y) = (Shape([batch, height, width, ins]), Shape([batch, height, width, outs]));
            let w = Shape([3, 3, ins, outs]);
            let (x_data, dy_data) = (values(x.len(), 7919), values(y.len(), 6661));
            let (x, dy) = (View { shape: x, data: &x_data }, View { shape: y, data: &dy_data });
            let (mut found, mut expected) = (vec![0.0; w.len()], vec![0.0; w.len()]);
            gradient(&conv, x, dy, w, &mut found);
            direct_weight::gradient(&conv, x, dy, w, &mut expected);
            let name = format!("{batch} images of {height}x{width}, {ins} to {outs}");
            let largest = expected.iter().fold(0.0f32, |largest, e| largest.max(e.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-5 * largest, "{name}: {found}, not {expected}");
            }
        }
    }
}
