//! Which layer a device computes wrong: each alone, on the same inputs, beside the CPU executor.

use adamant::op::{Copy, Normalize, Op};
use adamant::{Device, Graph, Model, Purpose, Shape, Source, Stream, Tensor, ValueId};
use anyhow::Result;
use serde::Serialize;

use crate::args::InspectArgs;
use crate::measure::open_device;
use crate::model::Loaded;
use crate::progress::Console;

/// Random images that the layers see.
const IMAGES: usize = 2;

/// Largest difference that rounding explains, as a part of the layer's largest value.
const TOLERANCE: f32 = 1e-3;

#[derive(Serialize)]
pub struct Bisection {
    pub device: String,
    pub layers: Vec<LayerDifference>,
}

#[derive(Serialize)]
pub struct LayerDifference {
    pub layer: String,
    pub op: &'static str,
    pub shape: String,
    /// Largest difference, as a part of the largest value; absent when a value was not a number.
    pub difference: Option<f32>,
    pub ok: bool,
}

impl Bisection {
    pub fn ok(&self) -> bool {
        self.layers.iter().all(|l| l.ok)
    }

    pub fn text(&self) -> String {
        let mut text = format!("\nevery layer on {}, beside the CPU executor\n", self.device);
        for l in &self.layers {
            let difference = l.difference.map_or("not a number".to_owned(), |d| format!("{d:.1e}"));
            let verdict = if l.ok { "" } else { "  WRONG" };
            let name: String = l.layer.chars().take(34).collect();
            text += &format!("{name:<35}{:<12}{:<16}{difference:>9}{verdict}\n", l.op, l.shape);
        }
        text
    }
}

/// Computes every layer on a device, each from what the CPU executor made of the layers before it.
pub fn measure(args: &InspectArgs, loaded: &Loaded, console: &Console) -> Result<Bisection> {
    let mut device = open_device(&args.device, console)?;
    let mut cpu = Device::cpu();
    let Model { network, values: parameters, preprocessing, .. } = &loaded.model;
    let stream = Stream::new(0, Purpose::Probe, 0, 0);
    let random = |shape: Shape| (0..shape.len() as u32).map(|i| stream.uniform(i, 0)).collect();
    let boundary = network.image_shape(IMAGES);
    let channels = Shape::vector(network.input[0]);
    let normalize = [
        Tensor::new(boundary, random(boundary)),
        Tensor::new(channels, preprocessing.mean.clone()),
        Tensor::new(channels, preprocessing.std.clone()),
    ];
    let mut layers = Vec::new();
    let mut both = |name: &str, op: &Op, inputs: &[&Tensor]| -> Result<Tensor> {
        let expected = run(&mut cpu, op, inputs)?;
        let found = run(&mut device, op, inputs)?;
        let difference = difference(&found.data, &expected.data);
        layers.push(LayerDifference {
            layer: name.to_owned(),
            op: op.name(),
            shape: format!("{:?}", expected.shape),
            difference,
            ok: difference.is_some_and(|d| d <= TOLERANCE),
        });
        Ok(expected)
    };
    let image = both("normalize", &Op::Normalize(Normalize), &normalize.each_ref())?;
    let mut outputs: Vec<Tensor> = Vec::with_capacity(network.layers.len());
    for layer in &network.layers {
        let value = |source: &Source| match *source {
            Source::Image => &image,
            Source::Layer(i) => &outputs[i],
            Source::Parameter(i) => &parameters[i],
        };
        let inputs: Vec<&Tensor> = layer.inputs.iter().map(value).collect();
        let output = both(&layer.name, &layer.op, &inputs)?;
        outputs.push(output);
    }
    Ok(Bisection { device: device.name(), layers })
}

fn run(device: &mut Device, op: &Op, inputs: &[&Tensor]) -> Result<Tensor> {
    let mut graph = Graph::new();
    let mut values: Vec<ValueId> = Vec::with_capacity(inputs.len());
    for input in inputs {
        let variable = device.variable_from(&input.data)?;
        values.push(graph.variable(variable, input.shape));
    }
    let output = graph.add(op.clone(), &values)?;
    let shape = graph.shape(output);
    let result = device.variable(shape.len())?;
    let target = graph.variable(result, shape);
    graph.update(Op::Copy(Copy), &[output], &[target])?;
    let mut program = device.compile(&graph)?;
    device.run(&mut program)?;
    Ok(Tensor::new(shape, device.read(result)?))
}

fn difference(found: &[f32], expected: &[f32]) -> Option<f32> {
    let largest = expected.iter().fold(0.0_f32, |a, e| a.max(e.abs())).max(f32::MIN_POSITIVE);
    let finite = found.len() == expected.len() && found.iter().chain(expected).all(|v| v.is_finite());
    let apart = found.iter().zip(expected).fold(0.0_f32, |a, (f, e)| a.max((f - e).abs()));
    finite.then_some(apart / largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_seen() {
        assert_eq!(difference(&[1.0, -2.0], &[1.0, -2.0]), Some(0.0));
        assert_eq!(difference(&[1.0, -1.0], &[1.0, -2.0]), Some(0.5));
        assert_eq!(difference(&[1.0, f32::NAN], &[1.0, -2.0]), None);
        assert_eq!(difference(&[1.0], &[1.0, 0.0]), None);
    }
}
