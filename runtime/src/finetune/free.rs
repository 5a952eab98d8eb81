//! Free adversarial training: Shafahi et al., "Adversarial training for free!", 2019. Each batch is trained on
//! `attack.steps` times in a row, and the gradient of the images, which a pass through the network gives
//! beside that of the weights, moves them for the next time. The perturbation stays from batch to batch
//! (Algorithm 1).

use crate::error::{Error, Result};
use crate::graph::{ValueId, Variable};
use crate::ops::{Add, AttackStep, Copy, Norm, Op, Relu};
use crate::session::{ModelGraph, Session};
use crate::shape::Shape;

use super::formula::Formula;

pub(super) struct Free {
    /// The perturbation of each place in a batch.
    delta: Variable,
}

impl Free {
    pub fn new(session: &mut Session) -> Result<Self> {
        let len = session.network().image_shape(session.capacity()).len();
        Ok(Self { delta: session.device().variable(len)? })
    }

    /// Adversarial images := the clean ones with the perturbation that the last batch left.
    pub fn start(&self, session: &mut Session, count: usize, radius: f32) -> Result<()> {
        // A step is as long as the radius.
        session.set_ball(radius, radius);
        session.run("free start", count, |m| {
            let delta = m.graph.variable(self.delta, m.graph.shape(m.images));
            let moved = m.graph.add(Op::Add(Add), &[m.images, delta])?;
            let clipped = m.graph.add(Op::Relu(Relu { max: 1.0 }), &[moved])?;
            m.graph.update(Op::Copy(Copy), &[clipped], &[m.adversarial])
        })
    }

    /// Adds a step of the images along their gradient to a training graph.
    pub fn step(&self, m: &mut ModelGraph, gradient: ValueId) -> Result<()> {
        m.graph.set_label("free step");
        let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
        let [radius, step] = [m.buffers.radius, m.buffers.step].map(|v| m.graph.variable(v, one));
        let op = Op::AttackStep(AttackStep { norm: Norm::Linf });
        m.graph.update(op, &[m.images, gradient, radius, step], &[m.adversarial])?;
        let moved = m.graph.minus(m.adversarial, m.images)?;
        let delta = m.graph.variable(self.delta, image);
        m.graph.update(Op::Copy(Copy), &[moved], &[delta])
    }

    pub fn read(&self, session: &mut Session) -> Result<(String, Vec<f32>)> {
        Ok((NAME.into(), session.device().read(self.delta)?))
    }

    pub fn restore(&self, session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        let (_, values) = tensors
            .iter()
            .find(|(n, v)| n == NAME && v.len() == self.delta.len())
            .ok_or_else(|| Error::Config(format!("the checkpoint has no '{NAME}' of such batches")))?;
        session.device().write(self.delta, values);
        Ok(())
    }
}

const NAME: &str = "free.delta";
