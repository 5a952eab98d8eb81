//! Shapes. Everything inside the graph has four dimensions, channels last.

use serde::{Deserialize, Serialize};

/// Four dimensions, row-major.
///
/// | what | dimensions |
/// |---|---|
/// | activation | batch, height, width, channels |
/// | image at the public boundary | batch, channels, height, width |
/// | convolution weight | kernel height, kernel width, input channels / groups, output channels |
/// | per-channel vector | 1, 1, 1, channels |
/// | per-image value | batch, 1, 1, 1 |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape(pub [usize; 4]);

impl Shape {
    /// A per-channel vector.
    pub const fn vector(len: usize) -> Self {
        Self([1, 1, 1, len])
    }

    /// One value for each image of a batch.
    pub const fn per_image(batch: usize) -> Self {
        Self([batch, 1, 1, 1])
    }

    pub const SCALAR: Self = Self([1, 1, 1, 1]);

    pub const fn batch(&self) -> usize {
        self.0[0]
    }

    pub const fn height(&self) -> usize {
        self.0[1]
    }

    pub const fn width(&self) -> usize {
        self.0[2]
    }

    pub const fn channels(&self) -> usize {
        self.0[3]
    }

    /// Number of elements. Shapes come from checked sources ([`Shape::checked_len`]), so the
    /// product fits.
    pub const fn len(&self) -> usize {
        self.0[0] * self.0[1] * self.0[2] * self.0[3]
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of one image of the batch.
    pub const fn per_batch(&self) -> usize {
        self.0[1] * self.0[2] * self.0[3]
    }

    /// The same for another batch.
    pub(crate) const fn with_batch(&self, batch: usize) -> Self {
        let [_, height, width, channels] = self.0;
        Self([batch, height, width, channels])
    }

    /// Number of elements, or `None` when it, or its size in bytes as f32, overflows.
    pub fn checked_len(&self) -> Option<usize> {
        let len = self.0.iter().try_fold(1usize, |a, &d| a.checked_mul(d))?;
        len.checked_mul(4).filter(|&bytes| bytes <= isize::MAX as usize)?;
        Some(len)
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "{a}x{b}x{c}x{d}")
    }
}

/// The largest difference, as a part of the largest value expected; infinite when there is none, or a value is
/// not finite.
#[cfg(any(feature = "gpu", feature = "data"))]
pub(crate) fn relative_difference(found: &[f32], expected: &[f32]) -> f32 {
    let finite = found.iter().chain(expected).all(|v| v.is_finite());
    let largest = expected.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    match finite && found.len() == expected.len() && largest > 0.0 {
        true => found.iter().zip(expected).fold(0.0f32, |a, (f, e)| a.max((f - e).abs())) / largest,
        false => f32::INFINITY,
    }
}

/// Host values with their shape.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    pub shape: Shape,
    pub data: Vec<f32>,
}

impl Tensor {
    /// # Panics
    /// When the number of values is not the shape's.
    pub fn new(shape: Shape, data: Vec<f32>) -> Self {
        assert_eq!(shape.len(), data.len(), "values do not fill {shape:?}");
        Self { shape, data }
    }

    pub fn zeros(shape: Shape) -> Self {
        Self { shape, data: vec![0.0; shape.len()] }
    }
}
