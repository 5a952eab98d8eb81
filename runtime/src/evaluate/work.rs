//! How far an evaluation is.

use crate::attacks::{Attack, AttackSpec};

/// The work of an evaluation in forward passes of the data set, to tell how far it is.
pub(super) struct Work {
    attacks: Vec<(f64, u32)>,
    done: f64,
}

impl Work {
    pub(super) fn new(specs: &[AttackSpec], attacks: &[Box<dyn Attack>], classes: usize) -> Self {
        let mut work = Vec::with_capacity(specs.len());
        for (spec, attack) in specs.iter().zip(attacks) {
            let attempts = attack.attempts(classes);
            work.push((f64::from(attempts) * f64::from(spec.steps) * spec.passes() + 1.0, attempts));
        }
        Self { attacks: work, done: 0.0 }
    }

    fn part(&self, done: f64) -> f64 {
        done / (1.0 + self.attacks.iter().map(|(work, _)| work).sum::<f64>())
    }

    /// The part of everything, when `part` of the clean images are done.
    pub(super) fn clean(&mut self, part: f64) -> f64 {
        self.done = part;
        self.part(self.done)
    }

    /// The part of everything, when `part` of an attempt is done.
    pub(super) fn attack(&self, i: usize, attempt: u32, part: f64) -> f64 {
        let (work, attempts) = self.attacks[i];
        self.part(self.done + work * (f64::from(attempt) + part) / f64::from(attempts))
    }

    pub(super) fn done(&mut self, i: usize) {
        self.done += self.attacks[i].0;
    }
}
