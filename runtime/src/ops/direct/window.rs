//! The input of some rows of a pass: in the images themselves, or copied to where it is quick to read.

use std::ops::Range;

use super::{Pass, Tap};

/// How a pass finds its input.
pub(in crate::ops) struct Layout {
    /// Whether rows are copied: with zeros around, or with pixels further apart.
    copied: bool,
    /// Columns of a copied row.
    columns: usize,
    /// Smallest and largest offset of a tap, of rows and of columns.
    reach: [[isize; 2]; 2],
    /// Elements between rows.
    line: usize,
    /// Elements between the pixels of a row.
    pitch: usize,
}

/// An output pixel.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Pixel {
    /// Where in a window the tap without any offset lies. Negative where that is before it.
    pub input: isize,
    /// Its first channel in the output.
    pub output: usize,
}

/// Elements of a cache line.
const LINE: usize = 16;

impl Layout {
    /// Elements from where a pixel begins to where `tap` meets it.
    pub fn offset(&self, tap: &Tap) -> isize {
        tap.row * self.line as isize + tap.column * self.pitch as isize
    }
}

impl Pass<'_> {
    /// `apart`: from so many channels on, pixels are an odd number of cache lines apart. A cache has places for few
    /// lines whose addresses differ by a large power of two.
    pub(in crate::ops) fn layout(&self, apart: usize) -> Layout {
        let [_, height, width, channels] = self.input_shape.0;
        let pitch = channels + if channels >= apart && channels.is_multiple_of(2 * LINE) { LINE } else { 0 };
        if self.taps.is_empty() {
            return Layout { copied: false, columns: 0, reach: [[0; 2]; 2], line: 0, pitch };
        }
        let reach = [self.reach(0), self.reach(1)];
        let [[top, bottom], [left, right]] = reach;
        let last = |count: usize, step: usize| (count.max(1) - 1) * step;
        let last_row = last(self.grid.rows, self.step[0]);
        let last_column = last(self.grid.columns, self.step[1]);
        let inside = top >= 0
            && left >= 0
            && last_row.checked_add_signed(bottom).is_some_and(|i| i < height)
            && last_column.checked_add_signed(right).is_some_and(|j| j < width);
        if inside && pitch == channels {
            return Layout { copied: false, columns: width, reach, line: width * channels, pitch };
        }
        // From the leftmost tap of the first pixel to the rightmost of the last.
        let columns = (last_column as isize + right - left + 1) as usize;
        Layout { copied: true, columns, reach, line: columns * pitch, pitch }
    }

    /// Smallest and largest offset of a tap along an axis.
    fn reach(&self, axis: usize) -> [isize; 2] {
        let offsets = self.taps.iter().map(|t| if axis == 0 { t.row } else { t.column });
        offsets.fold([isize::MAX, isize::MIN], |[low, high], x| [low.min(x), high.max(x)])
    }

    /// The input of some `rows` of the batch, in which every tap of every pixel lies, and their `pixels`.
    pub(in crate::ops) fn window<'b>(
        &'b self,
        layout: &Layout,
        rows: Range<usize>,
        buffer: &'b mut Vec<f32>,
        pixels: &mut Vec<Pixel>,
    ) -> &'b [f32] {
        let [_, height, width, channels] = self.input_shape.0;
        pixels.clear();
        buffer.clear();
        let mut row = rows.start;
        while row < rows.end {
            // Rows of one image.
            let (image, from) = (row / self.grid.rows, row % self.grid.rows);
            let to = self.grid.rows.min(from + rows.end - row);
            let origin = if layout.copied {
                self.copy(layout, image, from..to, buffer)
            } else {
                (image * height * width * channels) as isize
            };
            self.locate(layout, image, from..to, origin, pixels);
            row += to - from;
        }
        if layout.copied { buffer } else { self.input }
    }

    /// Copies the input of some rows of an image; where its first pixel, without a tap's offset, lies.
    fn copy(&self, layout: &Layout, image: usize, rows: Range<usize>, buffer: &mut Vec<f32>) -> isize {
        let [_, height, width, channels] = self.input_shape.0;
        let Layout { columns, line, pitch, reach: [[top, bottom], [left, _]], .. } = *layout;
        let first = (rows.start * self.step[0]) as isize + top;
        let last = ((rows.end - 1) * self.step[0]) as isize + bottom;
        let origin = buffer.len() as isize - first * line as isize - left * pitch as isize;
        // Zeros, the part of the row that the columns cover, zeros.
        let before = (-left).clamp(0, columns as isize) as usize;
        let skip = left.clamp(0, width as isize) as usize;
        let count = (width - skip).min(columns - before);
        for i in first..=last {
            let at = buffer.len();
            if let Some(i) = usize::try_from(i).ok().filter(|&i| i < height) {
                let source =
                    &self.input[((image * height + i) * width + skip) * channels..][..count * channels];
                buffer.resize(at + before * pitch, 0.0);
                if pitch == channels {
                    buffer.extend_from_slice(source);
                } else {
                    for pixel in source.chunks_exact(channels) {
                        buffer.extend_from_slice(pixel);
                        buffer.extend_from_slice(&[0.0; LINE]);
                    }
                }
            }
            buffer.resize(at + line, 0.0);
        }
        origin
    }

    fn locate(
        &self,
        layout: &Layout,
        image: usize,
        rows: Range<usize>,
        origin: isize,
        pixels: &mut Vec<Pixel>,
    ) {
        let [_, out_h, out_w, out_c] = self.output_shape.0;
        let ([first_row, first_column], [row_stride, column_stride]) = (self.grid.first, self.grid.stride);
        for u in rows {
            let start = origin + (u * self.step[0] * layout.line) as isize;
            let row = (image * out_h + first_row + u * row_stride) * out_w + first_column;
            pixels.extend((0..self.grid.columns).map(|v| Pixel {
                input: start + (v * self.step[1] * layout.pitch) as isize,
                output: (row + v * column_stride) * out_c,
            }));
        }
    }
}
