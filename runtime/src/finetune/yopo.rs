//! YOPO: Zhang et al., "You only propagate once: accelerating adversarial training via maximal principle", 2019.
//! A pass through the whole network gives the gradient at the output of the first layer; several steps of the
//! images then go through that layer alone (YOPO-m-n, Algorithm 1).

use super::formula::Formula;
use super::loss::BatchLoss;
use super::totals::Totals;
use crate::attacks::AttackSpec;
use crate::autodiff::differentiate;
use crate::error::{Error, Result};
use crate::graph::{ValueId, Variable};
use crate::network::{BatchNormMode, Network, Source};
use crate::ops::{Accumulate, AttackStep, Copy, Fill, Op, Sum};
use crate::optim::Optimizer;
use crate::random::{Purpose, Stream};
use crate::session::{Images, ModelGraph, Session};
use crate::shape::Shape;

pub(super) struct Yopo {
    /// The layer whose output the network sees the image through.
    first: usize,
    /// The parameters of that layer and those before it.
    of_first: Vec<usize>,
    /// The gradient at its output, p of the paper with the sign of an ascent.
    costate: Variable,
    /// The sum of the gradients of each parameter that trains, by its position.
    gradients: Vec<(usize, Variable)>,
    inner_steps: u32,
}

impl Yopo {
    pub fn new(inner_steps: u32, session: &mut Session) -> Result<Self> {
        let network = session.network();
        let first = first_layer(network).ok_or_else(|| {
            Error::Config(
                "attack.kind = yopo needs a model that begins with one convolution, which all others see the image \
                 through; this one does not"
                    .into(),
            )
        })?;
        let inputs = network.layers[..=first].iter().flat_map(|layer| &layer.inputs);
        let of_first = inputs
            .filter_map(|input| match input {
                Source::Parameter(i) => Some(*i),
                Source::Image | Source::Layer(_) => None,
            })
            .collect();
        let trains: Vec<(usize, usize)> = network
            .parameters
            .iter()
            .enumerate()
            .filter(|(_, p)| p.role.trains())
            .map(|(i, p)| (i, p.shape.len()))
            .collect();
        let mut probe = session.graph(session.capacity());
        let out = probe.first_layers(Images::Clean, first)?;
        let len = probe.graph.shape(out).len();
        let device = session.device();
        let mut gradients = Vec::with_capacity(trains.len());
        for (i, len) in trains {
            gradients.push((i, device.variable(len)?));
        }
        Ok(Self { first, of_first, costate: device.variable(len)?, gradients, inner_steps })
    }

    /// Trains on the loaded batch: `spec.steps` passes through the network, whose gradients one update takes
    /// together. The learning rate is the optimiser's own.
    #[expect(clippy::too_many_arguments, reason = "what an update is made of")]
    pub fn train(
        &self,
        session: &mut Session,
        count: usize,
        spec: &AttackSpec,
        key: (u64, u32),
        mode: BatchNormMode,
        optimizer: &Optimizer,
        totals: &mut Totals,
    ) -> Result<()> {
        session.set_ball(spec.ball.eps, spec.step);
        let stream = Stream::new(key.0, Purpose::TrainingAttackStart, key.1, 0);
        session.start_random(count, spec.ball.norm, stream.key)?;
        session.run("yopo reset", 1, |m| {
            for (i, kept) in &self.gradients {
                let shape = m.network.parameters[*i].shape;
                let kept = m.graph.variable(*kept, shape);
                m.graph.update(Op::Fill(Fill { value: 0.0, shape }), &[], &[kept])?;
            }
            Ok(())
        })?;
        for _ in 0..spec.steps {
            self.propagate(session, count, mode, totals)?;
            for _ in 0..self.inner_steps {
                self.step(session, count, spec)?;
            }
            self.adjust_first(session, count)?;
        }
        session.run("yopo update", 1, |m| {
            let gradients: Vec<ValueId> = self
                .gradients
                .iter()
                .map(|(i, kept)| m.graph.variable(*kept, m.network.parameters[*i].shape))
                .collect();
            optimizer.update(m, &gradients)
        })
    }

    /// The pass through the whole network: the gradients of all but the first layer, and the costate.
    fn propagate(
        &self,
        session: &mut Session,
        count: usize,
        mode: BatchNormMode,
        totals: &mut Totals,
    ) -> Result<()> {
        session.run("yopo pass", count, |m| {
            let forward = m.forward(Images::Adversarial, mode)?;
            m.graph.set_label("loss");
            let losses = m.graph.cross_entropy(forward.logits, m.labels)?;
            let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / count as f32 }), &[losses])?;
            let rest = self.gradients.iter().filter(|(i, _)| !self.of_first.contains(i));
            let (places, kept): (Vec<usize>, Vec<Variable>) = rest.copied().unzip();
            let mut wrt: Vec<ValueId> = places.iter().map(|&i| m.parameters[i]).collect();
            let out = forward.layers[self.first];
            wrt.push(out);
            let gradients = differentiate(&mut m.graph, mean, &wrt)?;
            add_to(m, &gradients[..places.len()], &kept)?;
            let costate = m.graph.variable(self.costate, m.graph.shape(out));
            m.graph.update(Op::Copy(Copy), &[gradients[places.len()]], &[costate])?;
            let terms = vec![("adversarial", losses)];
            totals.count(m, &BatchLoss { losses, terms, forward })
        })
    }

    /// The Hamiltonian: the sum of the first layer's outputs times their costate.
    fn hamiltonian(&self, m: &mut ModelGraph) -> Result<ValueId> {
        let out = m.first_layers(Images::Adversarial, self.first)?;
        let costate = m.graph.variable(self.costate, m.graph.shape(out));
        let product = m.graph.product(out, costate)?;
        m.graph.add(Op::Sum(Sum { factor: 1.0 }), &[product])
    }

    /// A step of the images through the first layer alone.
    fn step(&self, session: &mut Session, count: usize, spec: &AttackSpec) -> Result<()> {
        let norm = spec.ball.norm;
        session.run_variant("yopo step", norm as u32, count, |m| {
            let hamiltonian = self.hamiltonian(m)?;
            let gradient = differentiate(&mut m.graph, hamiltonian, &[m.adversarial])?[0];
            let one = Shape::per_image(count);
            let [radius, step] = [m.buffers.radius, m.buffers.step].map(|v| m.graph.variable(v, one));
            let inputs = [m.images, gradient, radius, step];
            m.graph.update(Op::AttackStep(AttackStep { norm }), &inputs, &[m.adversarial])
        })
    }

    /// The gradients of the first layer, at where the steps have led.
    fn adjust_first(&self, session: &mut Session, count: usize) -> Result<()> {
        session.run("yopo first layer", count, |m| {
            let hamiltonian = self.hamiltonian(m)?;
            let own = self.gradients.iter().filter(|(i, _)| self.of_first.contains(i));
            let (places, kept): (Vec<usize>, Vec<Variable>) = own.copied().unzip();
            let wrt: Vec<ValueId> = places.iter().map(|&i| m.parameters[i]).collect();
            let gradients = differentiate(&mut m.graph, hamiltonian, &wrt)?;
            add_to(m, &gradients, &kept)
        })
    }
}

fn add_to(m: &mut ModelGraph, gradients: &[ValueId], kept: &[Variable]) -> Result<()> {
    for (&gradient, &kept) in gradients.iter().zip(kept) {
        let total = m.graph.variable(kept, m.graph.shape(gradient));
        m.graph.update(Op::Accumulate(Accumulate), &[gradient], &[total])?;
    }
    Ok(())
}

/// The first convolution, where nothing after it sees the image or what is before it.
fn first_layer(network: &Network) -> Option<usize> {
    let first = network.layers.iter().position(|layer| matches!(layer.op, Op::Conv2d(_)))?;
    let around = |input: &Source| match input {
        Source::Image => true,
        Source::Layer(i) => *i < first,
        Source::Parameter(_) => false,
    };
    let later = network.layers[first + 1..].iter().flat_map(|layer| &layer.inputs);
    (!later.into_iter().any(around)).then_some(first)
}
