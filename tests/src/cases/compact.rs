//! Convolutions whose weights are compact: all geometries, in both formats.

use adamant::Shape;
use adamant::op::{Activation, CompactConv2d, FusedConv2d, Op, WeightFormat};
use half::f16;

use super::convolution::GEOMETRIES;
use super::{Case, Input, normal, vector};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let fused = |conv, all: bool| FusedConv2d {
        conv,
        bias: all,
        residual: all,
        activation: if all { Activation::Relu { max: 1.5 } } else { Activation::None },
    };
    for (i, geometry) in GEOMETRIES.iter().enumerate() {
        for (format, all) in [(WeightFormat::F16, i % 2 == 0), (WeightFormat::Int8, i % 2 == 1)] {
            let conv = fused(geometry.conv, all);
            let op = CompactConv2d { conv, weight: geometry.w, format };
            let mut inputs =
                vec![normal(geometry.x), Input::Compact(format, geometry.w, geometry.deviation())];
            if all {
                inputs.extend([vector(geometry.w.channels()), normal(geometry.y())]);
            }
            let name = format!("{}, {format:?}, epilogue {all}", geometry.name);
            cases.push(Case::new(&name, Op::CompactConv2d(op), inputs));
        }
    }
    cases
}

/// The words that stand for `values`, of a weight of so many output channels.
pub fn words(format: WeightFormat, channels: usize, values: &[f32]) -> Vec<f32> {
    let packed = |mut bytes: Vec<u8>| -> Vec<f32> {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.as_chunks().0.iter().map(|&b| f32::from_bits(u32::from_le_bytes(b))).collect()
    };
    match format {
        WeightFormat::F32 => values.to_vec(),
        WeightFormat::F16 => packed(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()),
        WeightFormat::Int8 => {
            let largest = |channel: usize| {
                values.iter().skip(channel).step_by(channels).fold(0.0_f32, |a, v| a.max(v.abs()))
            };
            let scales: Vec<f32> = (0..channels).map(|c| largest(c) / 127.0).collect();
            let number = |(i, v): (usize, &f32)| (v / scales[i % channels]).round() as i8 as u8;
            [scales.clone(), packed(values.iter().enumerate().map(number).collect())].concat()
        }
    }
}

/// The values that words stand for.
pub fn widened(format: WeightFormat, weight: Shape, words: &[f32]) -> Vec<f32> {
    let channels = weight.channels();
    let value = |i: usize| {
        let byte = |at: usize| words[at / 4].to_bits().to_le_bytes()[at % 4];
        match format {
            WeightFormat::F32 => words[i],
            WeightFormat::F16 => f16::from_le_bytes([byte(2 * i), byte(2 * i + 1)]).to_f32(),
            WeightFormat::Int8 => f32::from(byte(4 * channels + i) as i8) * words[i % channels],
        }
    };
    (0..weight.len()).map(value).collect()
}
