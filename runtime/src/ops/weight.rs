//! How the weight of a convolution lies in a device's memory: in full, or compact, as packages store it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::shape::Shape;

/// What a word (four bytes) of the weight's buffer holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum WeightFormat {
    /// One element.
    F32,
    /// Two elements of half precision, all of them finite; the last word may hold one.
    F16,
    /// At first the scale of an output channel as f32, for each of them; then four elements as signed bytes, the
    /// last word maybe fewer. An element is worth its byte times the scale of its channel.
    Int8,
}

impl WeightFormat {
    /// Words of a weight of `shape`.
    pub fn words(self, shape: Shape) -> usize {
        match self {
            Self::F32 => shape.len(),
            Self::F16 => shape.len().div_ceil(2),
            Self::Int8 => shape.channels() + shape.len().div_ceil(4),
        }
    }
}

/// The elements of a weight, in some order.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Elements {
    F32(Vec<f32>),
    /// The bits of half precision.
    F16(Vec<u16>),
    Int8 {
        numbers: Vec<i8>,
        /// One for each output channel, in their order.
        scales: Vec<f32>,
    },
}

impl Elements {
    /// What `words` hold of a weight of `shape`.
    pub fn read(format: WeightFormat, shape: Shape, words: &[f32]) -> Self {
        let bytes = |words: &[f32]| words.iter().flat_map(|w| w.to_bits().to_le_bytes()).collect::<Vec<u8>>();
        let len = shape.len();
        match format {
            WeightFormat::F32 => Self::F32(words[..len].to_vec()),
            WeightFormat::F16 => {
                let bytes = bytes(words);
                let pairs = bytes.as_chunks().0;
                Self::F16(pairs.iter().map(|&b| u16::from_le_bytes(b)).take(len).collect())
            }
            WeightFormat::Int8 => {
                let (scales, words) = words.split_at(shape.channels());
                let numbers = bytes(words).into_iter().take(len).map(|b| b as i8).collect();
                Self::Int8 { numbers, scales: scales.to_vec() }
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::F32(elements) => elements.len(),
            Self::F16(elements) => elements.len(),
            Self::Int8 { numbers, .. } => numbers.len(),
        }
    }

    /// The values of some elements: rows of `width`, for neighbouring output `channels` (elements past the last
    /// one are zero). `buffer` is for those that have to be computed.
    #[inline(always)]
    pub(super) fn unpack<'b>(
        &'b self,
        elements: Range<usize>,
        channels: Range<usize>,
        width: usize,
        buffer: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        match self {
            Self::F32(values) => return &values[elements],
            Self::F16(halves) => {
                buffer.resize(elements.len(), 0.0);
                buffer.iter_mut().zip(&halves[elements]).for_each(|(value, &half)| *value = widen(half));
            }
            Self::Int8 { numbers, scales } => {
                buffer.resize(elements.len(), 0.0);
                let numbers = &numbers[elements];
                // The widths of tiles, as constants: the compiler makes vectors of them.
                match width {
                    1 => scale::<1>(numbers, &scales[channels], buffer),
                    2 => scale::<2>(numbers, &scales[channels], buffer),
                    4 => scale::<4>(numbers, &scales[channels], buffer),
                    8 => scale::<8>(numbers, &scales[channels], buffer),
                    16 => scale::<16>(numbers, &scales[channels], buffer),
                    32 => scale::<32>(numbers, &scales[channels], buffer),
                    _ => unreachable!("tiles are one or two vectors of 1 to 16 lanes wide"),
                }
            }
        }
        buffer
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Self::F32(elements) => elements.len() as u64 * 4,
            Self::F16(elements) => elements.len() as u64 * 2,
            Self::Int8 { numbers, scales } => numbers.len() as u64 + scales.len() as u64 * 4,
        }
    }
}

/// Rows of bytes times the scales of their columns; columns that have none are zero.
#[inline(always)]
fn scale<const WIDTH: usize>(numbers: &[i8], scales: &[f32], values: &mut [f32]) {
    let mut of_row = [0.0; WIDTH];
    of_row[..scales.len()].copy_from_slice(scales);
    let rows = values.as_chunks_mut::<WIDTH>().0.iter_mut().zip(numbers.as_chunks::<WIDTH>().0);
    for (values, numbers) in rows {
        *values = std::array::from_fn(|i| f32::from(numbers[i]) * of_row[i]);
    }
}

/// The value of a half of finite value, by operations that vectors have.
#[inline(always)]
pub(super) fn widen(half: u16) -> f32 {
    /// 2^112: the distance of the exponents' biases. The product is exact, subnormal halves included.
    const SHIFT: f32 = f32::from_bits(0x7780_0000);
    let bits = u32::from(half);
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * SHIFT;
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn every_finite_half_is_widened_exactly() {
        let halves = (0..=u16::MAX).filter(|&bits| f16::from_bits(bits).is_finite());
        for bits in halves {
            assert_eq!(widen(bits).to_bits(), f16::from_bits(bits).to_f32().to_bits(), "{bits:#06x}");
        }
    }

    #[test]
    fn words_hold_what_the_format_says() {
        // Seven elements: no format fills its last word but f32.
        let shape = Shape([7, 1, 1, 1]);
        let word = |bytes: [u8; 4]| f32::from_bits(u32::from_le_bytes(bytes));
        let halves =
            [word([0, 0x3c, 0, 0xc0]), word([1, 0, 0, 0]), word([0, 0, 0, 0]), word([0xff, 0x7b, 9, 9])];
        assert_eq!(WeightFormat::F16.words(shape), halves.len());
        let expected = [0x3c00, 0xc000, 1, 0, 0, 0, 0x7bff];
        assert_eq!(Elements::read(WeightFormat::F16, shape, &halves), Elements::F16(expected.to_vec()));
        let bytes = [0.25, word([1, 255, 127, 129]), word([0, 2, 3, 9])];
        assert_eq!(WeightFormat::Int8.words(shape), bytes.len());
        let expected = Elements::Int8 { numbers: vec![1, -1, 127, -127, 0, 2, 3], scales: vec![0.25] };
        assert_eq!(Elements::read(WeightFormat::Int8, shape, &bytes), expected);
        assert_eq!([Elements::F16(vec![0; 7]).bytes(), expected.bytes()], [14, 11]);
    }
}
