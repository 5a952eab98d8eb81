//! Optimisers: which update node each parameter gets, and the state it needs.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId, Variable};
use crate::ops::{Adam, Add, Function, Map, Multiply, Op, Relu, Scale, Sgd, Spread, Sum};
use crate::session::{ModelGraph, Session};
use crate::shape::Shape;

/// Settings, named as in torch.optim.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    pub kind: OptimizerKind,
    /// SGD only.
    pub momentum: f32,
    /// SGD only.
    pub nesterov: bool,
    /// Adam and AdamW only.
    pub beta1: f32,
    /// Adam and AdamW only.
    pub beta2: f32,
    /// Applies to every parameter that trains, as in PyTorch.
    pub weight_decay: f32,
    /// Largest length of the gradient of all parameters together; a longer one is shortened to it
    /// (`torch.nn.utils.clip_grad_norm_`). No bound when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    Sgd,
    Adam,
    AdamW,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Sgd,
            momentum: 0.9,
            nesterov: false,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            clip: None,
        }
    }
}

impl OptimizerConfig {
    pub fn check(&self) -> Result<()> {
        let in_unit = |name: &str, x: f32| match (0.0..1.0).contains(&x) {
            true => Ok(()),
            false => Err(Error::Config(format!("optimizer.{name} = {x}: it lies in [0, 1)"))),
        };
        in_unit("momentum", self.momentum)?;
        in_unit("beta1", self.beta1)?;
        in_unit("beta2", self.beta2)?;
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(Error::Config(format!(
                "optimizer.weight_decay = {}: it is not negative",
                self.weight_decay
            )));
        }
        if let Some(clip) = self.clip.filter(|c| !(c.is_finite() && *c > 0.0)) {
            return Err(Error::Config(format!(
                "optimizer.clip = {clip}: the largest length of a gradient is above 0; leave it out for no bound"
            )));
        }
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::Config("optimizer.nesterov needs a momentum above 0".into()));
        }
        Ok(())
    }
}

/// An optimiser's state on a device.
pub struct Optimizer {
    config: OptimizerConfig,
    /// Index of each parameter that trains, with its state buffers.
    states: Vec<(usize, Vec<Variable>)>,
    rates: Variable,
}

impl Optimizer {
    /// State for every parameter of the session's network that trains, all zero.
    pub fn new(config: &OptimizerConfig, session: &mut Session) -> Result<Self> {
        let trained: Vec<bool> = session.network().parameters.iter().map(|p| p.role.trains()).collect();
        Self::of(config, &trained, session)
    }

    /// As [`Optimizer::new`], for these of the network's parameters alone.
    pub(crate) fn of(config: &OptimizerConfig, trained: &[bool], session: &mut Session) -> Result<Self> {
        let buffers = match config.kind {
            OptimizerKind::Sgd => 1,
            OptimizerKind::Adam | OptimizerKind::AdamW => 2,
        };
        let mut states = Vec::new();
        for (i, _) in trained.iter().enumerate().filter(|(_, trained)| **trained) {
            let len = session.parameters()[i].len();
            let state = (0..buffers).map(|_| session.device().variable(len)).collect::<Result<Vec<_>>>()?;
            states.push((i, state));
        }
        let rates = session.device().variable(3)?;
        Ok(Self { config: config.clone(), states, rates })
    }

    /// The positions of the parameters that train, among the network's.
    #[cfg(feature = "train")]
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.states.iter().map(|(i, _)| *i)
    }

    /// The parameters that train, as values of `model`'s graph.
    pub fn trainable(&self, model: &ModelGraph) -> Vec<ValueId> {
        self.states.iter().map(|(i, _)| model.parameters[*i]).collect()
    }

    /// As [`Optimizer::trainable`], of a network's parameters with other values, one for each.
    pub(crate) fn trainable_of(&self, parameters: &[ValueId]) -> Vec<ValueId> {
        self.states.iter().map(|(i, _)| parameters[*i]).collect()
    }

    /// Adds the update of every parameter; `gradients` are in the order of [`Optimizer::trainable`].
    pub fn update(&self, model: &mut ModelGraph, gradients: &[ValueId]) -> Result<()> {
        let factor = self.shortening(&mut model.graph, gradients)?;
        let parameters = model.parameters.clone();
        self.update_of(model, &parameters, gradients, factor)
    }

    /// What shortens these gradients to the bound on their common length, where there is one.
    pub(crate) fn shortening(&self, graph: &mut Graph, gradients: &[ValueId]) -> Result<Option<ValueId>> {
        match self.config.clip {
            Some(longest) => shortening(graph, gradients, longest),
            None => Ok(None),
        }
    }

    /// As [`Optimizer::update`], of the same network with other parameters, and with gradients times `factor`.
    pub(crate) fn update_of(
        &self,
        model: &mut ModelGraph,
        parameters: &[ValueId],
        gradients: &[ValueId],
        factor: Option<ValueId>,
    ) -> Result<()> {
        let c = &self.config;
        for ((i, state), &gradient) in self.states.iter().zip(gradients) {
            let shape = model.network.parameters[*i].shape;
            let gradient = match factor {
                // One after the other: no more than one shortened gradient takes memory at once.
                Some(factor) => shortened(&mut model.graph, gradient, factor)?,
                None => gradient,
            };
            model.graph.set_label(&format!("update {}", model.network.parameters[*i].name));
            let mut targets = vec![parameters[*i]];
            targets.extend(state.iter().map(|v| model.graph.variable(*v, shape)));
            let (op, rates) = match c.kind {
                OptimizerKind::Sgd => {
                    let op = Sgd { momentum: c.momentum, nesterov: c.nesterov, weight_decay: c.weight_decay };
                    (Op::Sgd(op), Shape::SCALAR)
                }
                OptimizerKind::Adam | OptimizerKind::AdamW => {
                    let op = Adam {
                        beta1: c.beta1,
                        beta2: c.beta2,
                        epsilon: 1e-8,
                        weight_decay: c.weight_decay,
                        decoupled: c.kind == OptimizerKind::AdamW,
                    };
                    (Op::Adam(op), Shape::vector(3))
                }
            };
            let rates = model.graph.variable(self.rates, rates);
            model.graph.update(op, &[gradient, rates], &targets)?;
        }
        Ok(())
    }

    /// Uploads the learning rate for update number `step`, counted from 1.
    pub fn set_rate(&self, session: &mut Session, rate: f64, step: u64) {
        let correction = |beta: f32| (1.0 - f64::from(beta).powf(step as f64)) as f32;
        let rates = [rate as f32, correction(self.config.beta1), correction(self.config.beta2)];
        session.device().write(self.rates, &rates);
    }

    /// The state by name, for a checkpoint.
    pub fn read(&self, session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
        let mut tensors = Vec::new();
        for (i, state) in &self.states {
            for (k, variable) in state.iter().enumerate() {
                let name = state_name(&session.network().parameters[*i].name, k);
                tensors.push((name, session.device().read(*variable)?));
            }
        }
        Ok(tensors)
    }

    /// Restores a state that [`Optimizer::read`] gave.
    pub fn write(&self, session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        for (i, state) in &self.states {
            for (k, variable) in state.iter().enumerate() {
                let name = state_name(&session.network().parameters[*i].name, k);
                let (_, values) =
                    tensors.iter().find(|(n, v)| *n == name && v.len() == variable.len()).ok_or_else(
                        || Error::Config(format!("the checkpoint has no optimiser state '{name}'")),
                    )?;
                session.device().write(*variable, values);
            }
        }
        Ok(())
    }
}

/// `min(1, longest / (length + 1e-6))`, where `length` is that of all gradients together.
fn shortening(g: &mut Graph, gradients: &[ValueId], longest: f32) -> Result<Option<ValueId>> {
    g.set_label("clip");
    let mut squares: Option<ValueId> = None;
    for &gradient in gradients {
        let square = g.add(Op::Multiply(Multiply), &[gradient, gradient])?;
        let sum = g.add(Op::Sum(Sum { factor: 1.0 }), &[square])?;
        squares = Some(match squares {
            Some(earlier) => g.add(Op::Add(Add), &[earlier, sum])?,
            None => sum,
        });
    }
    let Some(squares) = squares else { return Ok(None) };
    let length = g.add(Op::Map(Map::plain(Function::SquareRoot)), &[squares])?;
    let inverse = Map { function: Function::Reciprocal, scale: 1.0, shift: 1e-6 };
    let inverse = g.add(Op::Map(inverse), &[length])?;
    let factor = g.add(Op::Scale(Scale { factor: longest }), &[inverse])?;
    Ok(Some(g.add(Op::Relu(Relu { max: 1.0 }), &[factor])?))
}

fn shortened(g: &mut Graph, gradient: ValueId, factor: ValueId) -> Result<ValueId> {
    g.set_label("clip");
    let factor = g.add(Op::Spread(Spread { factor: 1.0, shape: g.shape(gradient) }), &[factor])?;
    g.add(Op::Multiply(Multiply), &[gradient, factor])
}

fn state_name(parameter: &str, index: usize) -> String {
    format!("optimizer.{index}.{parameter}")
}
