//! The proposals of the Square attack (Andriushchenko et al., "Square attack: a query-efficient
//! black-box adversarial attack via random search", 2020), in the linf ball. Images are batch x
//! channels x height x width in [0, 1]. Every image has random numbers of its own, so that none
//! depends on the batch that it is in.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, same};
use crate::random::Stream;
use crate::shape::Shape;

/// Inputs: clean images, radius of each image, data set index of each image (u32), stream key (two
/// u32). Output: the clean images plus or minus their radius, one random sign for each column of
/// each channel, clipped to [0, 1].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SquareStart;

/// Inputs: clean images, the best images so far, radius of each image, data set index of each image
/// (u32), stream key (two u32), the side of the square (u32). Output: the best images, moved by
/// twice their radius inside a square at a random place, with one random sign for each channel;
/// projected onto the ball and clipped to [0, 1].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SquareWindow;

params! {
    struct SquareParams { batch: u32, channels: u32, height: u32, width: u32, }
}

const SQUARE_START: Kernel = Kernel {
    name: "square_start",
    sources: &[adamant_shaders::INDEX, adamant_shaders::RANDOM, adamant_shaders::SQUARE_START],
    workgroup: 64,
};

const SQUARE_WINDOW: Kernel = Kernel {
    name: "square_window",
    sources: &[adamant_shaders::INDEX, adamant_shaders::RANDOM, adamant_shaders::SQUARE_WINDOW],
    workgroup: 64,
};

fn parameters(images: Shape) -> SquareParams {
    let [batch, channels, height, width] = images.0;
    SquareParams {
        batch: batch as u32,
        channels: channels as u32,
        height: height as u32,
        width: width as u32,
    }
}

fn check(images: Shape, radius: Shape, indices: Shape, key: Shape) -> Result<(), String> {
    same(radius, Shape::per_image(images.batch()))?;
    same(indices, radius)?;
    if key.len() != 2 {
        return Err(format!("a stream key is two words, got {key:?}"));
    }
    Ok(())
}

fn stream(key: &[f32]) -> Stream {
    let key: &[u32] = bytemuck::cast_slice(key);
    Stream { key: [key[0], key[1]] }
}

impl Operation for SquareStart {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [images, radius, indices, key] = arity(inputs)?;
        check(images, radius, indices, key)?;
        Ok(vec![images])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let arguments = [Input(0), Input(1), Input(2), Input(3), Output(0)];
        Launch::single(SQUARE_START, &arguments, &parameters(inputs[0]), inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [clean, radius, indices, key] = inputs else { unreachable!("output_shapes checked the inputs") };
        let stream = stream(key.data);
        let indices: &[u32] = bytemuck::cast_slice(indices.data);
        let [_, _, height, width] = clean.shape.0;
        let len = clean.shape.per_batch();
        outputs[0].data.par_chunks_exact_mut(len).enumerate().for_each(|(n, out)| {
            for (i, (out, x)) in out.iter_mut().zip(&clean.data[n * len..]).enumerate() {
                let stripe = i / (height * width) * width + i % width;
                let positive = stream.uniform(indices[n], stripe as u32) >= 0.5;
                let moved = if positive { x + radius.data[n] } else { x - radius.data[n] };
                *out = moved.clamp(0.0, 1.0);
            }
        });
    }
}

impl Operation for SquareWindow {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [clean, best, radius, indices, key, side] = arity(inputs)?;
        same(clean, best)?;
        check(clean, radius, indices, key)?;
        same(side, Shape::SCALAR)?;
        Ok(vec![clean])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let arguments = [Input(0), Input(1), Input(2), Input(3), Input(4), Input(5), Output(0)];
        Launch::single(SQUARE_WINDOW, &arguments, &parameters(inputs[0]), inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [clean, best, radius, indices, key, side] = inputs else {
            unreachable!("output_shapes checked the inputs")
        };
        let stream = stream(key.data);
        let indices: &[u32] = bytemuck::cast_slice(indices.data);
        let [_, _, height, width] = clean.shape.0;
        let side = (side.data[0].to_bits() as usize).min(height).min(width);
        let len = clean.shape.per_batch();
        outputs[0].data.par_chunks_exact_mut(len).enumerate().for_each(|(n, out)| {
            let (index, radius) = (indices[n], radius.data[n]);
            let (clean, best) = (&clean.data[n * len..][..len], &best.data[n * len..][..len]);
            // The upper bounds are exclusive, as in the reference: the last place is never drawn.
            let place = |free: usize, position| (free as f32 * stream.uniform(index, position)) as usize;
            let (top, left) = (place(height - side, 0), place(width - side, 1));
            for (i, out) in out.iter_mut().enumerate() {
                let (row, column, channel) = (i / width % height, i % width, i / (height * width));
                let mut moved = best[i];
                if (top..top + side).contains(&row) && (left..left + side).contains(&column) {
                    let positive = stream.uniform(index, 2 + channel as u32) >= 0.5;
                    moved += if positive { 2.0 * radius } else { -2.0 * radius };
                }
                *out = moved.clamp(clean[i] - radius, clean[i] + radius).clamp(0.0, 1.0);
            }
        });
    }
}
