//! Convolution on the CPU without lowering to matrices: sums over taps, straight from the image.
//!
//! A [`Pass`] covers a convolution and, for each phase of the stride, its input gradient: both are
//!
//! out[n, u, v, o] = sum over taps t and channels c of in[n, u*step + row(t), v*step + column(t), c] * w[t, c, o]

mod task;
mod window;

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use self::task::{Scratch, Task, Work};
pub(super) use self::window::{Layout, Pixel};
use super::View;
use super::conv2d::Conv2d;
use super::epilogue::Epilogue;
use super::tile::{Output, WIDE};
use super::weight::Elements;
use crate::shape::Shape;

/// Where a tap finds its input, counted from position times step. Negative before the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tap {
    pub row: isize,
    pub column: isize,
    /// Number of the weight's position in its kernel: r * kernel width + s.
    pub weight: usize,
}

/// Which output pixels a pass makes: every `stride`-th, from `first`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub rows: usize,
    pub columns: usize,
    pub first: [usize; 2],
    pub stride: [usize; 2],
}

/// The weight, as the pass reads it.
#[derive(Clone, Copy)]
pub(super) struct Weight {
    /// Kernel positions x input channels of a group x output channels, as the convolution has it.
    pub shape: Shape,
    /// Whether the pass goes backwards: from output channels to input channels.
    pub backwards: bool,
}

pub(super) struct Pass<'a> {
    pub input: &'a [f32],
    pub input_shape: Shape,
    pub taps: Vec<Tap>,
    /// Distance of the input positions of neighbouring outputs.
    pub step: [usize; 2],
    pub weight: Weight,
    pub groups: usize,
    pub grid: Grid,
    pub output_shape: Shape,
    pub epilogue: Epilogue<'a>,
}

/// Terms of a sum that lie side by side in the input and in the packed weight.
struct Segment {
    /// From where a pixel begins to the first of them.
    offset: isize,
    len: usize,
    /// Where their weights start within a block of columns.
    start: usize,
}

/// Floats of input that stay in the second-level cache beside the weights.
const CACHE: usize = 64 * 1024;

/// Floats of weights that stay there, too.
const WEIGHTS: usize = 24 * 1024;

/// Output pixels for which reading the weights once is cheap.
const PIXELS: usize = 96;

/// Channels from which on the input's pixels are set apart: fewer are worth more as one segment of several taps.
const APART: usize = 256;

impl<'a> Pass<'a> {
    /// A convolution.
    pub(super) fn forward(conv: &Conv2d, x: View<'a>, w: Shape, y: Shape, epilogue: Epilogue<'a>) -> Self {
        let [kernel_h, kernel_w, ..] = w.0;
        let offset =
            |tap: usize, axis: usize| (tap * conv.dilation[axis]) as isize - conv.pads[axis] as isize;
        let taps = (0..kernel_h * kernel_w).map(|weight| Tap {
            row: offset(weight / kernel_w, 0),
            column: offset(weight % kernel_w, 1),
            weight,
        });
        Self {
            input: x.data,
            input_shape: x.shape,
            taps: taps.collect(),
            step: conv.stride,
            weight: Weight { shape: w, backwards: false },
            groups: conv.groups,
            grid: Grid { rows: y.height(), columns: y.width(), first: [0, 0], stride: [1, 1] },
            output_shape: y,
            epilogue,
        }
        .flattened()
    }

    /// The input gradient of a convolution: a pass for each phase, the input positions with the same
    /// row and column modulo the stride. They meet the same taps.
    pub(super) fn backward(conv: &Conv2d, dy: View<'a>, w: Shape, x: Shape) -> Vec<Self> {
        let [kernel_h, kernel_w, ..] = w.0;
        // Offset of the output position that tap `k` leads to from the input position of phase `a`.
        let offset = |a: usize, k: usize, axis: usize| {
            let distance = (a + conv.pads[axis]) as isize - (k * conv.dilation[axis]) as isize;
            let stride = conv.stride[axis] as isize;
            (distance.rem_euclid(stride) == 0).then(|| distance.div_euclid(stride))
        };
        let mut passes = Vec::new();
        for a in 0..conv.stride[0].min(x.height()) {
            for b in 0..conv.stride[1].min(x.width()) {
                let taps = (0..kernel_h * kernel_w).filter_map(|weight| {
                    let row = offset(a, weight / kernel_w, 0)?;
                    let column = offset(b, weight % kernel_w, 1)?;
                    Some(Tap { row, column, weight })
                });
                let mut taps: Vec<Tap> = taps.collect();
                taps.sort_by_key(|t| (t.row, t.column));
                let grid = Grid {
                    rows: (x.height() - a).div_ceil(conv.stride[0]),
                    columns: (x.width() - b).div_ceil(conv.stride[1]),
                    first: [a, b],
                    stride: conv.stride,
                };
                let pass = Self {
                    input: dy.data,
                    input_shape: dy.shape,
                    taps,
                    step: [1, 1],
                    weight: Weight { shape: w, backwards: true },
                    groups: conv.groups,
                    grid,
                    output_shape: x,
                    epilogue: Epilogue::NONE,
                };
                passes.push(pass.flattened());
            }
        }
        passes
    }

    /// Where each output pixel meets just the input pixel in its own place, images and rows do not matter:
    /// the same pass over rows that are long enough for the largest tiles.
    fn flattened(mut self) -> Self {
        let [batch, height, width, channels] = self.input_shape.0;
        let pointwise = matches!(self.taps.as_slice(), [Tap { row: 0, column: 0, .. }])
            && self.step == [1, 1]
            && self.grid.stride == [1, 1]
            && [self.grid.rows, self.grid.columns] == [height, width]
            && self.output_shape.0[..3] == [batch, height, width];
        if pointwise {
            let pixels = batch * height * width;
            let columns = (1..=64).rev().find(|c| pixels.is_multiple_of(*c)).unwrap_or(1);
            let rows = pixels / columns;
            self.input_shape = Shape([1, rows, columns, channels]);
            self.output_shape = Shape([1, rows, columns, self.output_shape.channels()]);
            self.grid = Grid { rows, columns, ..self.grid };
        }
        self
    }

    fn in_channels(&self) -> usize {
        self.input_shape.channels() / self.groups
    }

    fn out_channels(&self) -> usize {
        self.output_shape.channels() / self.groups
    }

    /// Whether tiles are several vectors wide, and how many output channels they then take.
    fn block(&self) -> (bool, usize) {
        let lanes = Arch::new().dispatch(Lanes);
        let wide = self.out_channels() > lanes;
        (wide, if wide { WIDE * lanes } else { lanes })
    }

    /// Runs the pass with the weight that [`Pass::pack`] made.
    pub(super) fn run(&self, packed: &Elements, output: &mut [f32]) {
        assert_eq!(output.len(), self.output_shape.len(), "the output's shape");
        assert_eq!(self.input.len(), self.input_shape.len(), "the input's shape");
        let (wide, block) = self.block();
        let blocks = self.out_channels().div_ceil(block);
        let size = self.groups * blocks * self.taps.len() * self.in_channels() * block;
        assert_eq!(packed.len(), size, "the packed weight's size");
        let rows = self.input_shape.batch() * self.grid.rows;
        if rows * self.grid.columns == 0 {
            return;
        }
        let output = Output(output.as_mut_ptr());
        let per_task = self.rows_per_task(rows);
        let tasks = rows.div_ceil(per_task);
        // Few rows, as in a single small image: the channels are shared out too.
        let parts = (4 * rayon::current_num_threads()).div_ceil(tasks).min(blocks).max(1);
        let blocks_per_part = blocks.div_ceil(parts);
        let layout = self.layout(APART);
        let segments = self.segments(&layout, block);
        let chunks = chunks(&segments, block);
        (0..tasks * parts).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
            let Scratch { input, pixels, weights, sums } = scratch;
            let (first, part) = (task / parts * per_task, task % parts);
            let input = self.window(&layout, first..(first + per_task).min(rows), input, pixels);
            let first_block = (part * blocks_per_part).min(blocks);
            let work = Work {
                pass: self,
                segments: &segments,
                chunks: &chunks,
                packed,
                input,
                pixels,
                blocks: first_block..(first_block + blocks_per_part).min(blocks),
                wide,
                output,
            };
            Arch::new().dispatch(Task { work: &work, weights, sums });
        });
    }

    /// Rows of the whole batch that a task takes.
    fn rows_per_task(&self, rows: usize) -> usize {
        let line = self.grid.columns * self.step[0] * self.step[1] * self.input_shape.channels();
        let cached = CACHE / line.max(1);
        let wanted = PIXELS.div_ceil(self.grid.columns.max(1));
        let balanced = rows.div_ceil(4 * rayon::current_num_threads());
        cached.min(balanced).max(wanted).min(rows)
    }

    /// Weights by block of output channels: group, block, tap, input channel, channel of the block.
    pub(super) fn pack_elements(&self, weight: &Elements) -> Elements {
        match weight {
            Elements::F32(elements) => Elements::F32(self.pack(elements)),
            Elements::F16(elements) => Elements::F16(self.pack(elements)),
            Elements::Int8 { numbers, scales } => {
                Elements::Int8 { numbers: self.pack(numbers), scales: scales.clone() }
            }
        }
    }

    /// As [`Pass::pack_elements`], of elements of one type.
    pub(super) fn pack<T: Copy + Default + Send + Sync>(&self, elements: &[T]) -> Vec<T> {
        let (_, block) = self.block();
        let (ins, outs) = (self.in_channels(), self.out_channels());
        let blocks = outs.div_ceil(block);
        let mut packed = vec![T::default(); self.groups * blocks * self.taps.len() * ins * block];
        let weight = &self.weight;
        let [_, _, channels, filters] = weight.shape.0;
        let size = self.taps.len() * ins * block;
        if size == 0 {
            return packed;
        }
        packed.par_chunks_mut(size).enumerate().for_each(|(i, out)| {
            let (group, first) = (i / blocks, i % blocks * block);
            let count = block.min(outs - first);
            for (tap, out) in self.taps.iter().zip(out.chunks_exact_mut(ins * block)) {
                let tap = &elements[tap.weight * channels * filters..][..channels * filters];
                if weight.backwards {
                    // Lanes are the convolution's input channels.
                    for lane in 0..count {
                        let row = &tap[(first + lane) * filters + group * ins..][..ins];
                        for (out, w) in out[lane..].iter_mut().step_by(block).zip(row) {
                            *out = *w;
                        }
                    }
                } else {
                    let rows = tap.chunks_exact(filters);
                    for (out, row) in out.chunks_exact_mut(block).zip(rows) {
                        out[..count].copy_from_slice(&row[group * outs + first..][..count]);
                    }
                }
            }
        });
        packed
    }

    fn segments(&self, layout: &Layout, block: usize) -> Vec<Segment> {
        let ins = self.in_channels();
        let most = (WEIGHTS / block).max(1);
        let mut segments: Vec<Segment> = Vec::new();
        for (i, tap) in self.taps.iter().enumerate() {
            for first in (0..ins).step_by(most) {
                let next = Segment {
                    offset: layout.offset(tap) + first as isize,
                    len: most.min(ins - first),
                    start: (i * ins + first) * block,
                };
                match segments.last_mut() {
                    Some(last)
                        if last.offset + last.len as isize == next.offset
                            && last.start + last.len * block == next.start
                            && last.len + next.len <= most =>
                    {
                        last.len += next.len;
                    }
                    _ => segments.push(next),
                }
            }
        }
        segments
    }
}

/// Ranges of segments whose weights stay in the cache; one that is empty where there are none.
fn chunks(segments: &[Segment], block: usize) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let (mut first, mut floats) = (0, 0);
    for (i, segment) in segments.iter().enumerate() {
        let more = segment.len * block;
        if floats + more > WEIGHTS && i > first {
            chunks.push(first..i);
            (first, floats) = (i, 0);
        }
        floats += more;
    }
    chunks.push(first..segments.len());
    chunks
}

/// Lanes of a vector.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}
