//! Averages of the weights, running statistics included: exponential, or plain over the last epochs.

use super::WeightsConfig;
use crate::error::{Error, Result};
use crate::graph::Variable;
use crate::ops::{Average, Op};
use crate::session::Session;
use crate::shape::{Shape, Tensor};

/// `average = d average + (1 - d) weights`.
pub(in crate::finetune) struct AveragedWeights {
    kind: Kind,
    averages: Vec<Variable>,
    /// d, as a scalar on the device.
    current: Variable,
}

#[derive(Clone, Copy)]
enum Kind {
    /// After update number t, `d = min(decay, (1 + t) / (10 + t))`.
    Exponential(f64),
    /// After an epoch, `d = n / (n + 1)`, n the epochs since this part of the run.
    Plain(f64),
}

impl AveragedWeights {
    /// The average that `config` asks for, from the weights as they are.
    pub fn new(config: &WeightsConfig, session: &mut Session) -> Result<Option<Self>> {
        let kind = match (config.ema, config.swa) {
            (Some(decay), _) => Kind::Exponential(decay),
            (None, Some(start)) => Kind::Plain(start),
            (None, None) => return Ok(None),
        };
        let weights = session.read_parameters()?;
        let device = session.device();
        let averages = weights.iter().map(|t| device.variable_from(&t.data)).collect::<Result<_>>()?;
        Ok(Some(Self { kind, averages, current: device.variable(1)? }))
    }

    /// Takes in the weights after update number `step`, counted from 1.
    pub fn after_update(&self, session: &mut Session, step: u64) -> Result<()> {
        let t = step as f64;
        match self.kind {
            Kind::Exponential(decay) => self.take_in(session, decay.min((1.0 + t) / (10.0 + t))),
            Kind::Plain(_) => Ok(()),
        }
    }

    /// Takes in the weights after `epoch`, counted from 0, of `epochs`. Until its part of the run, the plain
    /// average is the weights themselves.
    pub fn after_epoch(&self, session: &mut Session, epoch: u32, epochs: u32) -> Result<()> {
        match self.kind {
            Kind::Exponential(_) => Ok(()),
            Kind::Plain(start) => {
                let since = f64::from(epoch) - (start * f64::from(epochs) - 1e-9).ceil();
                self.take_in(session, since.max(0.0) / (since.max(0.0) + 1.0))
            }
        }
    }

    fn take_in(&self, session: &mut Session, decay: f64) -> Result<()> {
        session.device().write(self.current, &[decay as f32]);
        session.run("average", 1, |m| {
            let decay = m.graph.variable(self.current, Shape::SCALAR);
            for (i, &average) in self.averages.iter().enumerate() {
                let weights = m.parameters[i];
                let average = m.graph.variable(average, m.graph.shape(weights));
                m.graph.update(Op::Average(Average), &[weights, decay], &[average])?;
            }
            Ok(())
        })
    }

    pub fn read(&self, session: &mut Session) -> Result<Vec<Tensor>> {
        let shapes: Vec<Shape> = session.network().parameters.iter().map(|p| p.shape).collect();
        let mut values = Vec::with_capacity(shapes.len());
        for (shape, &average) in shapes.into_iter().zip(&self.averages) {
            values.push(Tensor::new(shape, session.device().read(average)?));
        }
        Ok(values)
    }

    pub fn write(&self, session: &mut Session, values: &[Tensor]) {
        for (value, &average) in values.iter().zip(&self.averages) {
            session.device().write(average, &value.data);
        }
    }
}

/// The weights under training by name, for a checkpoint whose model is their average.
pub(in crate::finetune) fn live_tensors(session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
    let values = session.read_parameters()?;
    let names = session.network().parameters.iter().map(|p| live_name(&p.name));
    Ok(names.zip(values.into_iter().map(|v| v.data)).collect())
}

/// Restores what [`live_tensors`] gave.
pub(in crate::finetune) fn restore_live(session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
    let mut values = Vec::new();
    for parameter in &session.network().parameters {
        let name = live_name(&parameter.name);
        let (_, data) = tensors
            .iter()
            .find(|(n, v)| *n == name && v.len() == parameter.shape.len())
            .ok_or_else(|| Error::Config(format!("the checkpoint has no weights '{name}' to average")))?;
        values.push(Tensor::new(parameter.shape, data.clone()));
    }
    session.write_parameters(&values)
}

fn live_name(parameter: &str) -> String {
    format!("live.{parameter}")
}
