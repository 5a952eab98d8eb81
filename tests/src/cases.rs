//! The catalogue: for every operation, the cases that it is held to, named for what they vary.
//!
//! A case is data. The same list drives the comparison of GPU and CPU, the checks of the shaders'
//! bindings and parameters, and the checks of plans.

pub mod adaptive;
pub mod attack;
pub mod classification;
pub mod compact;
pub mod convolution;
pub mod elementwise;
pub mod normalization;
pub mod per_image;
pub mod reduction;
pub mod update;
pub mod window;

use adamant::op::{Op, WeightFormat};
use adamant::{Purpose, Shape, Stream};

use crate::compare::Tolerance;

/// More elements than 65,535 workgroups of 64 threads have: one dimension of a dispatch is not enough.
pub const PAST_ONE_GRID_ROW: usize = 65_535 * 64 + 1_000;

/// The same of a kernel that has a workgroup for each.
pub const WORKGROUPS_PAST_ONE_GRID_ROW: usize = 65_535 + 1_000;

/// One operation on inputs of known shapes.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub op: Op,
    pub inputs: Vec<Input>,
    /// What an operation that updates in place finds in its variables; empty for all others.
    pub state: Vec<Input>,
    pub tolerance: Tolerance,
}

impl Case {
    /// A case of a sum of products; see [`Case::within`].
    pub fn new(name: &str, op: Op, inputs: impl Into<Vec<Input>>) -> Self {
        let name = format!("{}, {name}", op.name());
        Self { name, op, inputs: inputs.into(), state: Vec::new(), tolerance: Tolerance::Approximate }
    }

    pub fn within(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }

    pub fn updating(mut self, state: impl Into<Vec<Input>>) -> Self {
        self.state = state.into();
        self
    }

    /// The random numbers of this case: those of its name, so that they stay the same when other
    /// cases come and go.
    pub fn stream(&self) -> Stream {
        let seed =
            self.name.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
        Stream::new(seed, Purpose::Probe, 0, 0)
    }
}

/// How an input's values come about. Large cases hold no memory until they run.
#[derive(Clone, Debug)]
pub enum Input {
    /// Normal with this standard deviation.
    Normal(Shape, f32),
    /// Uniform between two bounds.
    Uniform(Shape, [f32; 2]),
    /// No value twice, spread evenly over -1 to 1: no ties, and nothing near zero.
    Distinct(Shape),
    /// Whole numbers from -2 to 2: many ties.
    Ties(Shape),
    /// Unsigned integers below a bound.
    Below(Shape, u32),
    /// These numbers, over and over until the shape is full.
    Given(Shape, Vec<f32>),
    /// These unsigned integers.
    Integers(Shape, Vec<u32>),
    /// The words of a weight of this shape, normal with this standard deviation.
    Compact(WeightFormat, Shape, f32),
}

impl Input {
    pub fn shape(&self) -> Shape {
        match *self {
            Self::Normal(shape, _)
            | Self::Uniform(shape, _)
            | Self::Distinct(shape)
            | Self::Ties(shape)
            | Self::Below(shape, _)
            | Self::Given(shape, _)
            | Self::Integers(shape, _) => shape,
            Self::Compact(format, weight, _) => Shape::vector(format.words(weight)),
        }
    }

    /// The values, integers as the bits of f32: what a buffer holds. Inputs at different positions
    /// get different numbers.
    pub fn values(&self, stream: &Stream, position: usize) -> Vec<f32> {
        let row = u32::try_from(position).expect("few inputs");
        let len = u32::try_from(self.shape().len()).expect("fewer than 2^32 elements");
        match self {
            Self::Compact(format, weight, deviation) => {
                let full = Self::Normal(*weight, *deviation).values(stream, position);
                compact::words(*format, weight.channels(), &full)
            }
            Self::Normal(_, deviation) => (0..len).map(|i| deviation * stream.normal(row, i)).collect(),
            Self::Uniform(_, [low, high]) => {
                (0..len).map(|i| low + (high - low) * stream.uniform(row, i)).collect()
            }
            Self::Distinct(_) => {
                let stream = Stream::new(u64::from(row), Purpose::Shuffle, stream.key[0], stream.key[1]);
                let middle = (len as f32 - 1.0) / 2.0;
                stream.permutation(len).into_iter().map(|k| distinct(k as f32 - middle, len)).collect()
            }
            Self::Ties(_) => (0..len).map(|i| stream.below(row, i, 5) as f32 - 2.0).collect(),
            Self::Below(_, bound) => (0..len).map(|i| f32::from_bits(stream.below(row, i, *bound))).collect(),
            Self::Given(_, values) => values.iter().copied().cycle().take(len as usize).collect(),
            Self::Integers(_, values) => {
                assert_eq!(values.len(), len as usize, "integers do not fill the shape");
                values.iter().map(|&v| f32::from_bits(v)).collect()
            }
        }
    }
}

/// The place of step `k` of `len`, counted from the middle, with the middle itself left out.
fn distinct(k: f32, len: u32) -> f32 {
    let away = if k < 0.0 { k - 1.0 } else { k + 1.0 };
    away * 2.0 / len as f32
}

/// An activation: batch, height, width, channels.
pub const fn shape(batch: usize, height: usize, width: usize, channels: usize) -> Shape {
    Shape([batch, height, width, channels])
}

/// Normal values of deviation 1.
pub const fn normal(shape: Shape) -> Input {
    Input::Normal(shape, 1.0)
}

/// A per-channel vector around zero.
pub const fn vector(channels: usize) -> Input {
    normal(Shape::vector(channels))
}

/// A per-channel vector of positive values, such as a variance.
pub const fn positive(channels: usize) -> Input {
    Input::Uniform(Shape::vector(channels), [0.5, 2.0])
}

/// All cases.
pub fn all() -> Vec<Case> {
    [
        convolution::forward(),
        convolution::fused(),
        compact::cases(),
        convolution::weights(),
        convolution::grad_input(),
        convolution::grad_weight(),
        elementwise::cases(),
        normalization::cases(),
        window::pools(),
        window::pads(),
        reduction::cases(),
        classification::cases(),
        attack::cases(),
        per_image::cases(),
        adaptive::cases(),
        update::cases(),
    ]
    .concat()
}
