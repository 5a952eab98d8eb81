//! What an epoch adds up on the device: losses, their terms, and images classified correctly.

use super::loss::BatchLoss;
use crate::error::Result;
use crate::graph::Variable;
use crate::ops::{Accumulate, Correct, Op, Sum};
use crate::session::{ModelGraph, Session};
use crate::shape::Shape;

/// The most terms that a run's losses have.
const TERMS: usize = 6;

pub(super) struct Totals {
    loss: Variable,
    correct: Variable,
    terms: [Variable; TERMS],
    /// The names of the terms, in the order of their totals.
    names: Vec<&'static str>,
}

impl Totals {
    pub fn new(session: &mut Session) -> Result<Self> {
        let device = session.device();
        let [loss, correct] = [device.variable(1)?, device.variable(1)?];
        let mut terms = [loss; TERMS];
        for term in &mut terms {
            *term = device.variable(1)?;
        }
        Ok(Self { loss, correct, terms, names: Vec::new() })
    }

    pub fn reset(&self, session: &mut Session) {
        for variable in [self.loss, self.correct].into_iter().chain(self.terms) {
            session.device().write(variable, &[0.0]);
        }
    }

    /// Adds to a training graph what counts a batch. Before the update of the weights or after it: it reads
    /// what the forward pass left.
    pub fn count(&mut self, m: &mut ModelGraph, loss: &BatchLoss) -> Result<()> {
        m.graph.set_label("metrics");
        let correct = m.graph.add(Op::Correct(Correct), &[loss.forward.logits, m.labels])?;
        let mut totals = vec![(loss.losses, self.loss), (correct, self.correct)];
        for &(name, values) in &loss.terms {
            let place = self.names.iter().position(|n| *n == name).unwrap_or_else(|| {
                self.names.push(name);
                self.names.len() - 1
            });
            // A further term would go without its line in the metrics, never into another's.
            totals.extend(self.terms.get(place).map(|&total| (values, total)));
        }
        for (values, total) in totals {
            let sum = m.graph.add(Op::Sum(Sum { factor: 1.0 }), &[values])?;
            let total = m.graph.variable(total, Shape::SCALAR);
            m.graph.update(Op::Accumulate(Accumulate), &[sum], &[total])?;
        }
        Ok(())
    }

    /// Every sum, for a checkpoint within an epoch.
    pub fn read_all(&self, session: &mut Session) -> Result<Vec<f32>> {
        let all = [self.loss, self.correct].into_iter().chain(self.terms);
        all.map(|variable| Ok(session.device().read(variable)?[0])).collect()
    }

    /// Restores what [`Totals::read_all`] gave; false where that was of something else.
    pub fn write_all(&self, session: &mut Session, sums: &[f32]) -> bool {
        let all = [self.loss, self.correct].into_iter().chain(self.terms);
        all.zip(sums).for_each(|(variable, &sum)| session.device().write(variable, &[sum]));
        sums.len() == 2 + TERMS
    }

    /// The sums of the losses and of the images classified correctly.
    pub fn read(&self, session: &mut Session) -> Result<(f32, f32)> {
        let loss = session.device().read(self.loss)?[0];
        Ok((loss, session.device().read(self.correct)?[0]))
    }

    /// The sum of each term.
    pub fn read_terms(&self, session: &mut Session) -> Result<Vec<(&'static str, f32)>> {
        let mut sums = Vec::new();
        for (name, &total) in self.names.iter().zip(&self.terms) {
            sums.push((*name, session.device().read(total)?[0]));
        }
        Ok(sums)
    }
}
