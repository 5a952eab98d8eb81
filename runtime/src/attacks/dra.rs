//! DRA, the dynamically regulated adversary: steps along the gradient itself, not its sign, and then only
//! where the last gradient is largest (Hou et al., "Adversarial fine-tune with dynamically regulated
//! adversary", 2022, Algorithm 1).

use super::{Attack, Ball, Objective};
use crate::error::Result;
use crate::ops::{
    AccumulateDirection, Add, Copy, Fill, ImageNorm, ImageSpread, KeepTop, Multiply, Norm, Op, Order, Relu,
};
use crate::shape::Shape;

/// `x' = x + eps / steps * sum over t of g_t / mean|g_t|` at the `part` of the elements with the largest
/// |gradient| at the end, x elsewhere; clipped to [0, 1].
///
/// The paper divides by the norm |g|_1; by its sum, eps = 1 could not be what the paper measures it as, 2.55
/// of PGD, so it is taken as the mean. Eps bounds the mean change of an image before the mask; no
/// element has a bound of its own but the box.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dra {
    /// The mean change of an image, in pixels of [0, 1].
    pub eps: f32,
    pub steps: u32,
    /// Part of the elements that change: p of the paper, 0 to 1.
    pub part: f32,
}

impl Attack for Dra {
    fn name(&self) -> &'static str {
        "dra"
    }

    /// The box: nothing else bounds a single element.
    fn ball(&self) -> Ball {
        Ball { norm: Norm::Linf, eps: 1.0 }
    }

    fn attempt(&self, objective: &mut Objective<'_>, _attempt: u32) -> Result<()> {
        let alpha = self.eps / self.steps as f32;
        objective.set_ball(&Ball { eps: self.eps, ..self.ball() }, alpha);
        objective.start_clean()?;
        let total = objective.images("dra move")?;
        objective.run("dra reset", 0, |m| {
            let shape = m.graph.shape(m.images);
            let total = m.graph.variable(total, shape);
            m.graph.update(Op::Fill(Fill { value: 0.0, shape }), &[], &[total])
        })?;
        for _ in 0..self.steps {
            objective.gradient()?;
            objective.run("dra step", 0, |m| {
                let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
                let gradient = m.graph.variable(m.buffers.gradient, image);
                let total = m.graph.variable(total, image);
                let size = m.graph.add(Op::ImageNorm(ImageNorm { order: Order::L1 }), &[gradient])?;
                let op = AccumulateDirection { decay: 1.0 };
                m.graph.update(Op::AccumulateDirection(op), &[gradient, size], &[total])?;
                let alpha = m.graph.variable(m.buffers.step, one);
                let alpha =
                    m.graph.add(Op::ImageSpread(ImageSpread { factor: 1.0, shape: image }), &[alpha])?;
                let delta = m.graph.add(Op::Multiply(Multiply), &[total, alpha])?;
                let moved = m.graph.add(Op::Add(Add), &[m.images, delta])?;
                m.graph.update(Op::Copy(Copy), &[moved], &[m.adversarial])
            })?;
        }
        objective.gradient()?;
        let keep = (f64::from(self.part) * objective.image_len() as f64).round() as u32;
        objective.run("dra mask", keep, |m| {
            let gradient = m.graph.variable(m.buffers.gradient, m.graph.shape(m.images));
            let inputs = [m.images, m.adversarial, gradient];
            let masked = m.graph.add(Op::KeepTop(KeepTop { keep }), &inputs)?;
            let clipped = m.graph.add(Op::Relu(Relu { max: 1.0 }), &[masked])?;
            m.graph.update(Op::Copy(Copy), &[clipped], &[m.adversarial])
        })
    }
}
