//! Convolution on the CPU without lowering to matrices: sums over taps, straight from the image.
//!
//! A [`Pass`] covers a convolution and, for each phase of the stride, its input gradient: both are
//!
//! out[n, u, v, o] = sum over taps t and channels c of in[n, u*step + row(t), v*step + column(t), c] * w[t, c, o]

mod task;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use self::task::{Output, Task, Work};
use super::View;
use super::conv2d::Conv2d;
use super::conv2d_fused::Activation;
use super::tile::WIDE;
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

/// What is done to the sums before they are stored. Slices are shaped like the output.
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

/// Taps that lie side by side in the input and in the packed weight, taken as one sum.
struct Segment {
    row: isize,
    column: isize,
    /// Terms of the sum.
    len: usize,
    /// Where its weights start within a block of columns.
    start: usize,
}

/// The rows of one image that a task works on, with their input.
pub(super) struct Strip {
    pub image: usize,
    pub rows: std::ops::Range<usize>,
    /// Where the input of the first row and column, without any tap's offset, lies: an offset from the
    /// start of the buffer or the image that may be virtual.
    pub origin: isize,
    /// Elements between input rows.
    pub line: usize,
}

/// Floats of input that stay in the second-level cache beside the weights.
const CACHE: usize = 64 * 1024;

/// Output pixels for which reading the weights once is cheap.
const PIXELS: usize = 256;

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
        let segments = self.segments(block);
        (0..tasks * parts).into_par_iter().for_each_init(Default::default, |buffers, task| {
            let (buffer, unpacked): &mut (Vec<f32>, Vec<f32>) = buffers;
            let (first, part) = (task / parts * per_task, task % parts);
            let last = (first + per_task).min(rows);
            let (strips, input) = self.strips(first..last, buffer);
            let first_block = (part * blocks_per_part).min(blocks);
            let work = Work {
                pass: self,
                segments: &segments,
                packed,
                strips: &strips,
                input,
                blocks: first_block..(first_block + blocks_per_part).min(blocks),
                wide,
                output,
            };
            Arch::new().dispatch(Task { work: &work, unpacked });
        });
    }

    /// Rows of the batch whose input stays in the cache.
    pub(super) fn cached_rows(&self) -> usize {
        let line = self.grid.columns * self.step[0] * self.step[1] * self.input_shape.channels();
        (CACHE / line.max(1)).max(1)
    }

    /// Rows of the whole batch that a task takes.
    fn rows_per_task(&self, rows: usize) -> usize {
        let cached = self.cached_rows();
        let wanted = PIXELS.div_ceil(self.grid.columns.max(1));
        let balanced = rows.div_ceil(4 * rayon::current_num_threads());
        cached.max(wanted).min(balanced).max(1)
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

    fn segments(&self, block: usize) -> Vec<Segment> {
        let ins = self.in_channels();
        let mut segments: Vec<Segment> = Vec::new();
        let mut previous: Option<Tap> = None;
        for (i, tap) in self.taps.iter().enumerate() {
            let next = previous.is_some_and(|p| p.row == tap.row && p.column + 1 == tap.column);
            match segments.last_mut() {
                // With one group the channels of neighbouring pixels are neighbours.
                Some(last) if next && self.groups == 1 => last.len += ins,
                _ => segments.push(Segment {
                    row: tap.row,
                    column: tap.column,
                    len: ins,
                    start: i * ins * block,
                }),
            }
            previous = Some(*tap);
        }
        segments
    }

    /// Smallest and largest offset of a tap along an axis.
    fn reach(&self, axis: usize) -> [isize; 2] {
        let offsets = self.taps.iter().map(|t| if axis == 0 { t.row } else { t.column });
        offsets.fold([isize::MAX, isize::MIN], |[low, high], x| [low.min(x), high.max(x)])
    }

    /// The input of some rows of the batch: the image itself where every tap of every pixel lies in it,
    /// else copies with zeros around.
    pub(super) fn strips<'b>(
        &'b self,
        rows: std::ops::Range<usize>,
        buffer: &'b mut Vec<f32>,
    ) -> (Vec<Strip>, &'b [f32]) {
        let [_, height, width, channels] = self.input_shape.0;
        let mut strips = Vec::new();
        let mut row = rows.start;
        if self.taps.is_empty() {
            while row < rows.end {
                let (image, from, to) = self.part(row, rows.end);
                strips.push(Strip { image, rows: from..to, origin: 0, line: 0 });
                row += to - from;
            }
            return (strips, &[]);
        }
        let ([top, bottom], [left, right]) = (self.reach(0), self.reach(1));
        let last = |count: usize, step: usize| (count.max(1) - 1) * step;
        let (last_row, last_column) =
            (last(self.grid.rows, self.step[0]), last(self.grid.columns, self.step[1]));
        let inside = top >= 0
            && left >= 0
            && last_row.checked_add_signed(bottom).is_some_and(|i| i < height)
            && last_column.checked_add_signed(right).is_some_and(|j| j < width);
        if inside {
            let line = width * channels;
            while row < rows.end {
                let (image, from, to) = self.part(row, rows.end);
                let origin = (image * height * line) as isize;
                strips.push(Strip { image, rows: from..to, origin, line });
                row += to - from;
            }
            return (strips, self.input);
        }
        // The columns from the leftmost tap of the first pixel to the rightmost of the last.
        let columns = (last_column as isize + right - left + 1) as usize;
        let line = columns * channels;
        buffer.clear();
        while row < rows.end {
            let (image, from, to) = self.part(row, rows.end);
            let start = buffer.len();
            let first_line = (from * self.step[0]) as isize + top;
            let last_line = ((to - 1) * self.step[0]) as isize + bottom;
            let origin = start as isize - first_line * line as isize - left * channels as isize;
            for i in first_line..=last_line {
                let at = buffer.len();
                let Some(i) = usize::try_from(i).ok().filter(|&i| i < height) else {
                    buffer.resize(at + line, 0.0);
                    continue;
                };
                let source = &self.input[(image * height + i) * width * channels..][..width * channels];
                // Zeros, the part of the row that the columns cover, zeros.
                let before = (-left).clamp(0, columns as isize) as usize;
                let skip = left.clamp(0, width as isize) as usize;
                let count = (width - skip).min(columns - before);
                buffer.resize(at + before * channels, 0.0);
                buffer.extend_from_slice(&source[skip * channels..(skip + count) * channels]);
                buffer.resize(at + line, 0.0);
            }
            strips.push(Strip { image, rows: from..to, origin, line });
            row += to - from;
        }
        (strips, buffer)
    }

    /// The image of a row of the batch, and which of its rows come before `end`.
    fn part(&self, row: usize, end: usize) -> (usize, usize, usize) {
        let (image, from) = (row / self.grid.rows, row % self.grid.rows);
        (image, from, self.grid.rows.min(from + end - row))
    }
}

/// Lanes of a vector.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}
