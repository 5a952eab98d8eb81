//! AWP, adversarial weight perturbation: Wu, Xia and Wang, "Adversarial weight perturbation helps robust
//! generalization", 2020. Before each update the weights are moved to where the loss is higher; the
//! gradient is taken there, and the move is taken back afterwards.

use crate::autodiff::differentiate;
use crate::error::Result;
use crate::finetune::formula::Formula;
use crate::finetune::loss::BatchLoss;
use crate::finetune::parts::Sums;
use crate::graph::{Graph, ValueId, Variable};
use crate::network::{BatchNormMode, Role};
use crate::ops::{Accumulate, Copy, Function, Op, Spread, Sum};
use crate::session::{ModelGraph, Session};

/// Rate of the step up the loss that gives the direction. It cancels but for very small gradients.
const RATE: f32 = 0.01;

/// The move of every convolution and linear weight; biases and normalisation stay.
pub struct WeightPerturbation {
    gamma: f32,
    /// Index of each parameter that moves, with the room for its move.
    moves: Vec<(usize, Variable)>,
}

impl WeightPerturbation {
    pub fn new(gamma: f32, session: &mut Session) -> Result<Self> {
        let parameters = &session.network().parameters;
        let weights: Vec<(usize, usize)> = (0..parameters.len())
            .filter(|&i| parameters[i].role == Role::Weight)
            .map(|i| (i, parameters[i].shape.len()))
            .collect();
        let mut moves = Vec::with_capacity(weights.len());
        for (i, len) in weights {
            moves.push((i, session.device().variable(len)?));
        }
        Ok(Self { gamma, moves })
    }

    /// Moves each weight tensor w by `gamma |w| / (|d| + 1e-20) d`, where d is a step up the mean of the
    /// losses that `loss` adds to the graph of the `count` loaded images. Running statistics stay. Losses of
    /// several kinds are told apart by `variant`.
    pub fn apply(
        &self,
        session: &mut Session,
        count: usize,
        variant: u32,
        mode: BatchNormMode,
        loss: impl FnOnce(&mut ModelGraph, BatchNormMode) -> Result<BatchLoss>,
    ) -> Result<()> {
        let mode = if mode == BatchNormMode::BatchUpdate { BatchNormMode::Batch } else { mode };
        session.run_variant("awp", variant, count, |m| {
            let BatchLoss { losses, .. } = loss(m, mode)?;
            let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / count as f32 }), &[losses])?;
            let weights: Vec<ValueId> = self.positions().iter().map(|&i| m.parameters[i]).collect();
            let gradients = differentiate(&mut m.graph, mean, &weights)?;
            self.add_move(m, &gradients)
        })
    }

    /// As [`WeightPerturbation::apply`], for a batch that comes in parts: `visit` loads each of them and calls back
    /// with its images. `of` is the size of the whole batch.
    pub(in crate::finetune) fn apply_in_parts(
        &self,
        session: &mut Session,
        sums: &Sums,
        (of, variant): (usize, u32),
        mode: BatchNormMode,
        mut visit: impl FnMut(&mut Session, &mut dyn FnMut(&mut Session, usize) -> Result<()>) -> Result<()>,
        loss: impl Fn(&mut ModelGraph, BatchNormMode) -> Result<BatchLoss>,
    ) -> Result<()> {
        let mode = if mode == BatchNormMode::BatchUpdate { BatchNormMode::Batch } else { mode };
        let positions = self.positions();
        sums.reset(session)?;
        visit(session, &mut |session, count| {
            session.run_variant("awp part", variant, count, |m| {
                let BatchLoss { losses, .. } = loss(m, mode)?;
                let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / of as f32 }), &[losses])?;
                let weights: Vec<ValueId> = positions.iter().map(|&i| m.parameters[i]).collect();
                let gradients = differentiate(&mut m.graph, mean, &weights)?;
                sums.add_of(m, &positions, &gradients)
            })
        })?;
        session.run("awp move", 1, |m| {
            let gradients = sums.values_of(m, &positions);
            self.add_move(m, &gradients)
        })
    }

    fn positions(&self) -> Vec<usize> {
        self.moves.iter().map(|(i, _)| *i).collect()
    }

    /// Adds the move by these gradients, one for each weight tensor, to a graph.
    fn add_move(&self, m: &mut ModelGraph, gradients: &[ValueId]) -> Result<()> {
        m.graph.set_label("awp");
        for (&gradient, (i, kept)) in gradients.iter().zip(&self.moves) {
            let w = m.parameters[*i];
            let g = &mut m.graph;
            let d = g.times(RATE, gradient)?;
            let (weight_length, length) = (length(g, w)?, length(g, d)?);
            let inverse = g.map(Function::Reciprocal, 1.0, 1e-20, length)?;
            let ratio = g.product(weight_length, inverse)?;
            let spread = Spread { factor: self.gamma, shape: g.shape(w) };
            let ratio = g.add(Op::Spread(spread), &[ratio])?;
            let v = g.product(ratio, d)?;
            let kept = g.variable(*kept, g.shape(w));
            g.update(Op::Copy(Copy), &[v], &[kept])?;
            g.update(Op::Accumulate(Accumulate), &[v], &[w])?;
        }
        Ok(())
    }

    /// Takes the move back, the same numbers that were added.
    pub fn restore(&self, session: &mut Session) -> Result<()> {
        session.run("awp back", 1, |m| {
            for (i, kept) in &self.moves {
                let w = m.parameters[*i];
                let v = m.graph.variable(*kept, m.graph.shape(w));
                let back = m.graph.times(-1.0, v)?;
                m.graph.update(Op::Accumulate(Accumulate), &[back], &[w])?;
            }
            Ok(())
        })
    }
}

/// The Euclidean length of all elements together.
fn length(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let squares = g.product(x, x)?;
    let sum = g.add(Op::Sum(Sum { factor: 1.0 }), &[squares])?;
    g.map(Function::SquareRoot, 1.0, 0.0, sum)
}
