//! `adamant inspect`: what a model is made of, what it needs, and whether it is computed right.

use std::collections::BTreeMap;

use adamant::finetune::OptimizerConfig;
use adamant::op::Op;
use adamant::{Device, DeviceChoice, Footprint, Layer, Model, Preprocessing, Source};
use anyhow::Result;
use serde::Serialize;

use crate::Outcome;
use crate::args::InspectArgs;
use crate::model::Loaded;
use crate::output::{self, bytes, grouped, wrap};
use crate::progress::Console;

mod bisect;
mod difference;

use bisect::Bisection;
use difference::Difference;

const BATCHES: [usize; 3] = [1, 32, 128];

#[derive(Serialize)]
struct Inspection {
    schema: u32,
    model: String,
    /// Channels, height, width.
    input: [usize; 3],
    classes: usize,
    labels: Vec<String>,
    layers: BTreeMap<&'static str, usize>,
    trainable_parameters: u64,
    other_parameters: u64,
    multiply_adds: u64,
    batch_norm: String,
    opset: Option<i64>,
    producer: Option<String>,
    /// Absent when nobody said: an ONNX file cannot.
    preprocessing: Option<Preprocessing>,
    memory: Vec<Memory>,
    verification: Option<Difference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bisection: Option<Bisection>,
}

/// Predicted bytes on a device.
#[derive(Serialize)]
struct Memory {
    batch: usize,
    attack_step: u64,
    training_step: u64,
}

pub fn run(args: &InspectArgs, console: &Console) -> Result<Outcome> {
    let mut loaded = Loaded::read(&args.model)?;
    let asked = args.preprocessing.resolve(loaded.model.network.input[0])?;
    let known = asked.is_some() || loaded.notes.is_none();
    if let Some(preprocessing) = asked {
        loaded.model.preprocessing = preprocessing;
    }
    for note in loaded.notes.iter().flat_map(|n| &n.notes) {
        console.note(&format!("{}: {note}", loaded.name));
    }
    let mut found = inspect(&loaded, &args.device.device)?;
    found.preprocessing = known.then(|| loaded.model.preprocessing.clone());
    if args.verify {
        found.verification = Some(difference::measure(args, &loaded, console)?);
    }
    if args.bisect {
        found.bisection = Some(bisect::measure(args, &loaded, console)?);
    }
    output::result(&args.json, &found, &text(&found))?;
    let agrees = found.verification.as_ref().is_none_or(|v| v.ok)
        && found.bisection.as_ref().is_none_or(Bisection::ok);
    Ok(if agrees { Outcome::Done } else { Outcome::TargetMissed })
}

fn inspect(loaded: &Loaded, device: &DeviceChoice) -> Result<Inspection> {
    let model = &loaded.model;
    let network = &model.network;
    let mut layers = BTreeMap::new();
    for layer in &network.layers {
        *layers.entry(layer.op.name()).or_insert(0) += 1;
    }
    let parameters = |trains: bool| {
        let chosen = network.parameters.iter().filter(|p| p.role.trains() == trains);
        chosen.map(|p| p.shape.len() as u64).sum()
    };
    let device = Device::open(device)?;
    let memory = BATCHES.iter().map(|&batch| {
        // Adam has the most state of the optimisers of the recipes: two numbers a weight.
        let adam = OptimizerConfig { kind: adamant::finetune::OptimizerKind::Adam, ..Default::default() };
        let Footprint { attack, training, .. } = Footprint::predict(model, batch, &adam, &device)?;
        Ok(Memory { batch, attack_step: attack, training_step: training })
    });
    let own_norms = if network.has_batch_norm() { "found" } else { "none: never there, or folded" };
    Ok(Inspection {
        schema: 1,
        model: loaded.name.clone(),
        input: network.input,
        classes: network.classes()?,
        labels: model.labels.clone(),
        layers,
        trainable_parameters: parameters(true),
        other_parameters: parameters(false),
        multiply_adds: multiply_adds(model)?,
        batch_norm: loaded.notes.as_ref().map_or(own_norms.to_owned(), |n| n.batch_norm.to_string()),
        opset: loaded.notes.as_ref().map(|n| n.opset),
        producer: loaded.notes.as_ref().map(|n| n.producer.clone()),
        preprocessing: None,
        memory: memory.collect::<Result<_>>()?,
        verification: None,
        bisection: None,
    })
}

/// Multiply-adds of the convolutions and linear layers for one image: the rest is small.
fn multiply_adds(model: &Model) -> Result<u64> {
    let network = &model.network;
    let shapes = network.layer_shapes(1)?;
    let of = |(layer, shape): (&Layer, &adamant::Shape)| match (&layer.op, layer.inputs.get(1)) {
        (Op::Conv2d(_), Some(&Source::Parameter(weight))) => {
            let [height, width, channels, _] = network.parameters[weight].shape.0;
            (shape.len() * height * width * channels) as u64
        }
        _ => 0,
    };
    Ok(network.layers.iter().zip(&shapes).map(of).sum())
}

fn text(found: &Inspection) -> String {
    let [channels, height, width] = found.input;
    let layers: Vec<String> = found.layers.iter().map(|(op, count)| format!("{count} {op}")).collect();
    let numbers = |v: &[f32]| v.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let preprocessing = match &found.preprocessing {
        Some(p) => format!("mean {}; std {}", numbers(&p.mean), numbers(&p.std)),
        None => "unknown: --mean and --std say it".to_owned(),
    };
    let mut rows = vec![
        ("input", format!("{channels} x {height} x {width}, {} classes", found.classes)),
        ("layers", layers.join(", ")),
        (
            "parameters",
            format!(
                "{} to train, {} others",
                grouped(found.trainable_parameters),
                grouped(found.other_parameters)
            ),
        ),
        ("work", format!("{} multiply-adds an image", grouped(found.multiply_adds))),
        ("batch norm", found.batch_norm.clone()),
        ("preprocessing", preprocessing),
    ];
    if let (Some(opset), Some(producer)) = (found.opset, &found.producer) {
        rows.push(("onnx", format!("opset {opset}, written by {producer}")));
    }
    if !found.labels.is_empty() {
        let shown: Vec<_> = found.labels.iter().take(10).map(String::as_str).collect();
        let more = if found.labels.len() > shown.len() { ", ..." } else { "" };
        rows.push(("labels", format!("{}{more}", shown.join(", "))));
    }
    let mut text = format!("{}\n", found.model);
    for (name, value) in rows {
        text += &format!("{}\n", wrap(&format!("{name:<15}{value}"), 15));
    }
    text += &format!("\n{:<20}{:>14}{:>18}\n", "memory by batch", "attack step", "training step");
    for m in &found.memory {
        text += &format!("{:<20}{:>14}{:>18}\n", m.batch, bytes(m.attack_step), bytes(m.training_step));
    }
    if let Some(v) = &found.verification {
        text += &format!(
            "\nlogits on {}\ndiffer by {:.1e} from tract's on {} random images, largest logit {:.1}: {}\n",
            v.device,
            v.max_difference,
            v.images,
            v.largest_logit,
            if v.ok { "ok" } else { "FAILED" }
        );
    }
    if let Some(bisection) = &found.bisection {
        text += &bisection.text();
    }
    text
}
