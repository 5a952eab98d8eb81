//! The tiles of a batch: 2x2 outputs each, and the 4x4 inputs that they come from.

use pulp::Simd;

use crate::ops::View;
use crate::ops::conv2d::Conv2d;
use crate::shape::Shape;

/// All tiles of a convolution of three by three taps, at a stride of 1: image by image, row by row.
pub(super) struct Tiles<'a> {
    pub x: View<'a>,
    /// Zero padding at the top and on the left.
    pads: [usize; 2],
    pub y: Shape,
}

/// Where a tile of outputs begins.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub image: usize,
    pub row: usize,
    pub column: usize,
}

/// The inputs of a tile.
pub(super) enum Inputs {
    /// All of them are inside of the image: pixels follow each other, rows are `line` elements apart.
    Whole { first: *const f32, line: usize },
    /// Some are not.
    Partly([[*const f32; 4]; 4]),
}

/// Elements of a cache line.
const LINE: usize = 16;

/// Elements from one tile to the next, of so many channels at one position: an odd number of cache lines, where channels
/// come in whole ones. A cache has places for few lines whose addresses differ by a large power of two.
pub(super) const fn pitch(channels: usize) -> usize {
    if channels.is_multiple_of(2 * LINE) { channels + LINE } else { channels }
}

/// B' d, of one column: (d0 - d2, d1 + d2, d2 - d1, d1 - d3).
#[inline(always)]
pub(super) fn spread<S: Simd>(simd: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
    [
        simd.sub_f32s(d[0], d[2]),
        simd.add_f32s(d[1], d[2]),
        simd.sub_f32s(d[2], d[1]),
        simd.sub_f32s(d[1], d[3]),
    ]
}

impl<'a> Tiles<'a> {
    pub fn new(conv: &Conv2d, x: View<'a>, y: Shape) -> Self {
        assert_eq!(x.data.len(), x.shape.len(), "the input's shape");
        Self { x, pads: [conv.pads[0], conv.pads[1]], y }
    }

    pub fn count(&self) -> usize {
        self.y.batch() * self.y.height().div_ceil(2) * self.y.width().div_ceil(2)
    }

    pub fn place(&self, tile: usize) -> Place {
        let (down, across) = (self.y.height().div_ceil(2), self.y.width().div_ceil(2));
        Place { image: tile / (down * across), row: tile / across % down * 2, column: tile % across * 2 }
    }

    /// Where the inputs of a tile lie, all channels of each of them: in the image, or `outside` of it.
    #[inline(always)]
    pub fn inputs(&self, place: &Place, outside: &[f32]) -> Inputs {
        let Shape([_, height, width, channels]) = self.x.shape;
        let line = width * channels;
        let image = &self.x.data[place.image * height * line..][..height * line];
        if let (Some(row), Some(column)) =
            (place.row.checked_sub(self.pads[0]), place.column.checked_sub(self.pads[1]))
            && row + 4 <= height
            && column + 4 <= width
        {
            return Inputs::Whole { first: image[row * line + column * channels..].as_ptr(), line };
        }
        let inside = |at: usize, before: usize, size: usize| at.checked_sub(before).filter(|&at| at < size);
        let rows: [_; 4] = std::array::from_fn(|r| inside(place.row + r, self.pads[0], height));
        let columns: [_; 4] = std::array::from_fn(|s| inside(place.column + s, self.pads[1], width));
        Inputs::Partly(rows.map(|row| {
            columns.map(|column| {
                let pixel = match (row, column) {
                    (Some(i), Some(j)) => &image[i * line + j * channels..],
                    _ => outside,
                };
                pixel[..channels].as_ptr()
            })
        }))
    }
}
