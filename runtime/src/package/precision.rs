//! How a package stores weights.

use std::borrow::Cow;

use half::f16;
use serde::{Deserialize, Serialize};

use super::metadata::DataType;
use crate::shape::Shape;

/// How the weights of convolutions and linear layers are stored. Everything else, a hundredth of them, is
/// stored as f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// IEEE 754 half precision: a relative error of up to 2^-11.
    F16,
    /// Eight bits, symmetric, with a scale for each output channel: an error of up to a 254th of the
    /// channel's largest weight.
    Int8,
}

impl Precision {
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// The bytes of a tensor of `shape` as it is stored, little-endian.
    ///
    /// # Errors
    /// A message where a value cannot be stored so.
    pub(crate) fn encode(self, shape: Shape, data: &[f32]) -> Result<Cow<'_, [u8]>, String> {
        self.data_type().encode(shape, data)
    }

    /// What [`Precision::encode`] stored.
    #[cfg(test)]
    pub(crate) fn decode(self, shape: Shape, bytes: &[u8]) -> Result<Vec<f32>, String> {
        self.data_type().decode(shape, bytes)
    }

    pub(super) const fn data_type(self) -> DataType {
        match self {
            Self::F32 => DataType::F32,
            Self::F16 => DataType::F16,
            Self::Int8 => DataType::Int8,
        }
    }
}

impl DataType {
    /// Bytes of a tensor of `shape`.
    pub fn bytes(self, shape: Shape) -> Option<u64> {
        let len = shape.checked_len()? as u64;
        match self {
            Self::F32 => len.checked_mul(4),
            Self::F16 => len.checked_mul(2),
            Self::Int8 => (shape.channels() as u64).checked_mul(4)?.checked_add(len),
        }
    }

    /// The bytes of `data`, of `shape`.
    pub fn encode(self, shape: Shape, data: &[f32]) -> Result<Cow<'_, [u8]>, String> {
        match self {
            Self::F32 if cfg!(target_endian = "little") => Ok(Cow::Borrowed(bytemuck::cast_slice(data))),
            Self::F32 => Ok(data.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Self::F16 => encode_f16(data).map(Cow::Owned),
            Self::Int8 => encode_int8(shape.channels(), data).map(Cow::Owned),
        }
    }

    /// The numbers of a tensor of `shape`, whose `bytes` are as many as [`DataType::bytes`] says.
    pub fn decode(self, shape: Shape, bytes: &[u8]) -> Result<Vec<f32>, String> {
        match self {
            Self::F32 => Ok(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            Self::F16 => decode_f16(bytes),
            Self::Int8 => decode_int8(shape.channels(), bytes),
        }
    }
}

/// Half precision, little-endian.
pub(crate) fn encode_f16(data: &[f32]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(data.len() * 2);
    for &value in data {
        let half = f16::from_f32(value);
        if !half.is_finite() {
            return Err(format!("holds {value}, which f16 cannot; use --precision f32 or int8"));
        }
        bytes.extend(half.to_le_bytes());
    }
    Ok(bytes)
}

fn decode_f16(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect();
    match values.iter().find(|v| !v.is_finite()) {
        Some(value) => Err(format!("holds {value}")),
        None => Ok(values),
    }
}

/// The scales of the channels, then the numbers.
fn encode_int8(channels: usize, data: &[f32]) -> Result<Vec<u8>, String> {
    let Quantized { scales, numbers } = Quantized::new(channels, data)?;
    let scales = scales.iter().flat_map(|s| s.to_le_bytes());
    Ok(scales.chain(numbers.iter().map(|&q| q as u8)).collect())
}

/// Numbers of eight bits and the scale of each channel, the last dimension: value = number * scale.
pub(crate) struct Quantized {
    pub scales: Vec<f32>,
    /// -127 to 127.
    pub numbers: Vec<i8>,
}

impl Quantized {
    /// # Errors
    /// A message where a value is not finite.
    pub fn new(channels: usize, data: &[f32]) -> Result<Self, String> {
        if let Some(value) = data.iter().find(|v| !v.is_finite()) {
            return Err(format!("holds {value}, which int8 cannot; use --precision f32"));
        }
        let mut largest = vec![0.0_f32; channels];
        for row in data.chunks_exact(channels.max(1)) {
            largest.iter_mut().zip(row).for_each(|(l, v)| *l = l.max(v.abs()));
        }
        let scales: Vec<f32> = largest.iter().map(|&l| scale(l)).collect();
        let mut numbers = Vec::with_capacity(data.len());
        for row in data.chunks_exact(channels.max(1)) {
            let number = |(v, s): (&f32, &f32)| if *s == 0.0 { 0.0 } else { (v / s).round_ties_even() };
            numbers.extend(row.iter().zip(&scales).map(number).map(|q| q.clamp(-127.0, 127.0) as i8));
        }
        Ok(Self { scales, numbers })
    }
}

/// A 127th of the largest magnitude, rounded up to 16 significant bits. Its product with a number of eight
/// bits is then exact, so that what was read is written as the same bytes.
fn scale(largest: f32) -> f32 {
    if largest == 0.0 {
        return 0.0;
    }
    let exact = (largest / 127.0).max(f32::MIN_POSITIVE);
    f32::from_bits((exact.to_bits() + 0xff) & !0xff)
}

fn decode_int8(channels: usize, bytes: &[u8]) -> Result<Vec<f32>, String> {
    if channels == 0 {
        return Ok(Vec::new());
    }
    let (scales, numbers) = bytes.split_at(channels * 4);
    let scales: Vec<f32> = scales.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    if let Some(scale) = scales.iter().find(|s| !(s.is_finite() && **s >= 0.0)) {
        return Err(format!("has a scale of {scale}"));
    }
    let rows = numbers.chunks_exact(channels);
    Ok(rows.flat_map(|row| row.iter().zip(&scales).map(|(&q, s)| f32::from(q as i8) * s)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};

    const SHAPE: Shape = Shape([3, 3, 8, 16]);

    fn weights() -> Vec<f32> {
        let stream = Stream::new(3, Purpose::Probe, 0, 0);
        // Channels of very different sizes, one of them zero.
        let size = |i: u32| if i % 16 == 5 { 0.0 } else { 10.0_f32.powi(i as i32 % 16 - 11) };
        (0..SHAPE.len() as u32).map(|i| (stream.uniform(0, i) - 0.5) * size(i)).collect()
    }

    #[test]
    fn what_was_read_is_written_as_the_same_bytes() {
        for data_type in [DataType::F32, DataType::F16, DataType::Int8] {
            let weights = weights();
            let bytes = data_type.encode(SHAPE, &weights).expect("it fits");
            assert_eq!(Some(bytes.len() as u64), data_type.bytes(SHAPE));
            let read = data_type.decode(SHAPE, &bytes).expect("it was just written");
            assert_eq!(data_type.encode(SHAPE, &read).expect("it fits"), bytes);
        }
    }

    #[test]
    fn errors_are_as_small_as_promised() {
        let weights = weights();
        let read =
            |t: DataType| t.decode(SHAPE, &t.encode(SHAPE, &weights).expect("it fits")).expect("it fits");
        for (w, h) in weights.iter().zip(read(DataType::F16)) {
            // Below 2^-14 halves are spaced by 2^-24.
            assert!((w - h).abs() <= (w.abs() / 2048.0).max(0.5_f32.powi(25)), "{w} and {h}");
        }
        let int8 = read(DataType::Int8);
        for channel in 0..16 {
            let of = |v: &[f32]| v.iter().skip(channel).step_by(16).copied().collect::<Vec<f32>>();
            let largest = of(&weights).iter().fold(0.0_f32, |a, w| a.max(w.abs()));
            for (w, q) in of(&weights).iter().zip(of(&int8)) {
                assert!((w - q).abs() <= largest / 254.0 * 1.0001, "channel {channel}: {w} and {q}");
            }
        }
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused() {
        let one = Shape::vector(1);
        for value in [f32::NAN, f32::INFINITY] {
            assert!(
                DataType::F16.encode(one, &[value]).is_err() && DataType::Int8.encode(one, &[value]).is_err()
            );
        }
        assert!(DataType::F16.encode(one, &[70_000.0]).is_err());
        let nan = [f32::NAN.to_le_bytes().as_slice(), &[1]].concat();
        assert!(DataType::Int8.decode(one, &nan).is_err());
        assert!(DataType::F16.decode(one, &f16::INFINITY.to_le_bytes()).is_err());
        let nothing = Shape([3, 3, 1, 0]);
        assert_eq!(DataType::Int8.decode(nothing, &[]), Ok(Vec::new()));
        assert_eq!(DataType::Int8.encode(nothing, &[]), Ok(Cow::Owned(Vec::new())));
    }
}
