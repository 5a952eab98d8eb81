//! The proposals of the Square attack in the l2 ball (Andriushchenko et al., 2020, algorithm 3), as
//! perturbations that are still to be scaled to the radius. Images are batch x channels x height x
//! width in [0, 1]. Every image has random numbers of its own.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, same};
use crate::random::Stream;
use crate::shape::Shape;

/// Inputs: data set index of each image (u32), stream key (two u32), the pattern (its front: side x
/// side). Output, of shape `shape`: the pattern in tiles, from the middle fifth of the height on, with
/// a random sign in each channel of each tile, and turned over in half of the tiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SquareTiles {
    pub shape: Shape,
    pub side: usize,
}

/// Inputs: clean images, the best images so far, radius of each image, data set index of each image
/// (u32), stream key (two u32), the side of the squares (u32), the pattern (its front: side x side).
/// Output: the best perturbation with the second of two random squares emptied; the first has the
/// pattern added, and takes in each channel the length of both and a share of what the ball has
/// left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SquareExchange;

params! {
    struct TilesParams { batch: u32, channels: u32, height: u32, width: u32, side: u32, margin: u32, }
}

params! {
    struct ExchangeParams { batch: u32, channels: u32, height: u32, width: u32, }
}

const SQUARE_TILES: Kernel = Kernel {
    name: "square_tiles",
    sources: &[adamant_shaders::INDEX, adamant_shaders::RANDOM, adamant_shaders::SQUARE_TILES],
    workgroup: 64,
};

const SQUARE_EXCHANGE: Kernel = Kernel {
    name: "square_exchange",
    sources: &[adamant_shaders::INDEX, adamant_shaders::RANDOM, adamant_shaders::SQUARE_EXCHANGE],
    workgroup: 64,
};

/// Keeps a division by the length of an empty square finite.
const TINY: f64 = 1e-12;

fn stream(key: &[f32]) -> Stream {
    let key: &[u32] = bytemuck::cast_slice(key);
    Stream { key: [key[0], key[1]] }
}

/// Where the first of five tiles begins.
fn margin(height: usize, side: usize) -> usize {
    height.saturating_sub(5 * side) / 2
}

impl Operation for SquareTiles {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [indices, key, pattern] = arity(inputs)?;
        same(indices, Shape::per_image(self.shape.batch()))?;
        if key.len() != 2 {
            return Err(format!("a stream key is two words, got {key:?}"));
        }
        let [_, _, height, width] = self.shape.0;
        let side = self.side;
        if side == 0 || side > height.min(width) || pattern.len() < side * side {
            return Err(format!("tiles of {side} in {height}x{width} with a pattern of {pattern:?}"));
        }
        Ok(vec![self.shape])
    }

    fn launch(&self, _inputs: &[Shape], outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let [batch, channels, height, width] = outputs[0].0;
        let parameters = TilesParams {
            batch: batch as u32,
            channels: channels as u32,
            height: height as u32,
            width: width as u32,
            side: self.side as u32,
            margin: margin(height, self.side) as u32,
        };
        Launch::single(
            SQUARE_TILES,
            &[Input(0), Input(1), Input(2), Output(0)],
            &parameters,
            outputs[0].len(),
        )
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let indices: &[u32] = bytemuck::cast_slice(inputs[0].data);
        let (stream, pattern) = (stream(inputs[1].data), inputs[2].data);
        let [_, channels, height, width] = self.shape.0;
        let (side, margin) = (self.side, margin(height, self.side));
        let (down, across) = (height / side, width / side);
        let len = self.shape.per_batch();
        outputs[0].data.par_chunks_exact_mut(len).zip(indices).for_each(|(delta, &index)| {
            for (i, delta) in delta.iter_mut().enumerate() {
                let (channel, row, column) = (i / (height * width), i / width % height, i % width);
                *delta = 0.0;
                if row < margin || column < margin {
                    continue;
                }
                let (tile_row, y) = ((row - margin) / side, (row - margin) % side);
                let (tile_column, x) = ((column - margin) / side, (column - margin) % side);
                if tile_row < down && tile_column < across {
                    let position = ((tile_row * across + tile_column) * (channels + 1)) as u32;
                    let turned = stream.uniform(index, position) >= 0.5;
                    let value = pattern[if turned { x * side + y } else { y * side + x }];
                    let positive = stream.uniform(index, position + 1 + channel as u32) >= 0.5;
                    *delta = if positive { value } else { -value };
                }
            }
        });
    }
}

impl Operation for SquareExchange {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [clean, best, radius, indices, key, side, pattern] = arity(inputs)?;
        same(clean, best)?;
        same(radius, Shape::per_image(clean.batch()))?;
        same(indices, radius)?;
        same(side, Shape::SCALAR)?;
        if key.len() != 2 {
            return Err(format!("a stream key is two words, got {key:?}"));
        }
        let smaller = clean.0[2].min(clean.0[3]);
        if pattern.len() < smaller * smaller {
            return Err(format!("a pattern for squares of up to {smaller}, got {pattern:?}"));
        }
        Ok(vec![clean])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let [batch, channels, height, width] = inputs[0].0;
        let parameters = ExchangeParams {
            batch: batch as u32,
            channels: channels as u32,
            height: height as u32,
            width: width as u32,
        };
        let arguments = [Input(0), Input(1), Input(2), Input(3), Input(4), Input(5), Input(6), Output(0)];
        let threads = batch * SQUARE_EXCHANGE.workgroup as usize;
        Launch::single(SQUARE_EXCHANGE, &arguments, &parameters, threads)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [clean, best, radius, indices, key, side, pattern] = inputs else {
            unreachable!("output_shapes checked the inputs")
        };
        let indices: &[u32] = bytemuck::cast_slice(indices.data);
        let (stream, pattern) = (stream(key.data), pattern.data);
        let [_, channels, height, width] = clean.shape.0;
        let size = (side.data[0].to_bits() as usize).min(height).min(width);
        let len = clean.shape.per_batch();
        outputs[0].data.par_chunks_exact_mut(len).enumerate().for_each(|(n, delta)| {
            let index = indices[n];
            let images = best.data[n * len..][..len].iter().zip(&clean.data[n * len..][..len]);
            for (delta, (best, clean)) in delta.iter_mut().zip(images) {
                *delta = best - clean;
            }
            // The upper bounds are exclusive, as in the reference: the last place is never drawn.
            let place = |free: usize, position| (free as f32 * stream.uniform(index, position)) as usize;
            let first = (place(height - size, 0), place(width - size, 1));
            let second = (place(height - size, 2), place(width - size, 3));
            let turned = stream.uniform(index, 4) >= 0.5;
            let within = |i: usize, (top, left): (usize, usize)| {
                (top..top + size).contains(&(i / width)) && (left..left + size).contains(&(i % width))
            };
            let square = |v: f32| f64::from(v) * f64::from(v);
            let radius = f64::from(radius.data[n]);
            let all: f64 = delta.iter().map(|&v| square(v)).sum();
            let left = (radius * radius - all).max(0.0) / channels as f64;
            for (channel, plane) in delta.chunks_exact_mut(height * width).enumerate() {
                let sum = |chosen: &dyn Fn(usize) -> bool| -> f64 {
                    plane.iter().enumerate().filter(|&(i, _)| chosen(i)).map(|(_, &v)| square(v)).sum()
                };
                let old = sum(&|i| within(i, first)).sqrt() + TINY;
                let both = sum(&|i| within(i, first) || within(i, second));
                let sign = if stream.uniform(index, 5 + channel as u32) >= 0.5 { 1.0 } else { -1.0 };
                let raw = |i: usize, v: f32| {
                    let (y, x) = (i / width - first.0, i % width - first.1);
                    let value = pattern[if turned { x * size + y } else { y * size + x }];
                    sign * f64::from(value) + f64::from(v) / old
                };
                let inside = plane.iter().enumerate().filter(|&(i, _)| within(i, first));
                let length = inside.map(|(i, &v)| raw(i, v) * raw(i, v)).sum::<f64>().sqrt();
                let scale = (left + both).sqrt() / (length + TINY);
                for (i, v) in plane.iter_mut().enumerate() {
                    if within(i, first) {
                        *v = (scale * raw(i, *v)) as f32;
                    } else if within(i, second) {
                        *v = 0.0;
                    }
                }
            }
        });
    }
}
