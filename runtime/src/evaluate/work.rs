//! How far an evaluation is.

use super::Order;
use crate::attacks::{Attack, AttackSpec, Passes};

/// The work of an evaluation in forward passes of single images, as far as it can be foreseen: what falls
/// to an attack saves the passes that were still to come.
pub(super) struct Work {
    /// Passes of an image in one attempt, and attempts.
    attacks: Vec<(f64, u32)>,
    order: Order,
    done: f64,
}

/// Where an attack is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub attack: usize,
    pub attempt: u32,
    /// Images that this attempt meets, and how many of them it has met.
    pub meets: usize,
    pub met: usize,
    /// Images of the batch under way, and the part of the attempt that they have behind them.
    pub batch: usize,
    pub part: f64,
    /// Images that withstand this attack so far, and those that are right without any.
    pub standing: u64,
    pub right: u64,
}

impl Work {
    pub(super) fn new(
        specs: &[AttackSpec],
        attacks: &[Box<dyn Attack>],
        classes: usize,
        order: Order,
    ) -> Self {
        let passes = |spec: &AttackSpec| f64::from(spec.steps) * spec.passes(classes) + 1.0;
        let attacks = specs.iter().zip(attacks).map(|(s, a)| (passes(s), a.attempts(classes))).collect();
        Self { attacks, order, done: 0.0 }
    }

    fn fraction(done: f64, left: f64) -> f64 {
        if done + left > 0.0 { done / (done + left) } else { 1.0 }
    }

    /// What the attacks from number `first` on take, if nothing more falls.
    fn from(&self, first: usize, standing: f64, right: f64) -> f64 {
        let images = if self.order == Order::InTurn { standing } else { right };
        self.attacks[first..].iter().map(|&(passes, attempts)| passes * f64::from(attempts) * images).sum()
    }

    /// The part of everything, when so many of the clean images are measured.
    pub(super) fn clean(&mut self, measured: usize, images: usize, right: u64) -> f64 {
        self.done = measured as f64;
        let unknown = (images - measured) as f64;
        let most = unknown + right as f64;
        Self::fraction(self.done, unknown + self.from(0, most, most))
    }

    /// The part of everything, in the middle of an attack.
    pub(super) fn attack(&self, at: Place) -> f64 {
        let (passes, attempts) = self.attacks[at.attack];
        let here = at.met as f64 + at.part * at.batch as f64;
        let later = f64::from(attempts - at.attempt - 1) * at.standing as f64;
        let others = self.from(at.attack + 1, at.standing as f64, at.right as f64);
        Self::fraction(self.done + passes * here, passes * (at.meets as f64 - here + later) + others)
    }

    /// The part of an attempt that a batch has behind it.
    pub(super) fn part(&self, attack: usize, passes: Passes) -> f64 {
        let spent = passes.forwards as f64 + 2.0 * passes.gradients as f64;
        (spent / self.attacks[attack].0).min(1.0)
    }

    /// So many attempts of an attack have met so many images.
    pub(super) fn done(&mut self, attack: usize, attempts: u32, images: usize) {
        self.done += self.attacks[attack].0 * f64::from(attempts) * images as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(order: Order) -> Work {
        let specs: Vec<AttackSpec> = ["pgd:steps=50,restarts=2", "square:queries=100"]
            .map(|t| AttackSpec::parse(t, None, None).unwrap())
            .into();
        let attacks: Vec<_> = specs.iter().map(AttackSpec::build).collect();
        Work::new(&specs, &attacks, 10, order)
    }

    /// Ten images, of which eight are right: PGD's attempts take 101 passes each, Square's 101.
    #[test]
    fn what_fell_is_no_work_any_more() {
        let place = |attempt, meets, met, part, standing| Place {
            attack: 0,
            attempt,
            meets,
            met,
            batch: 4,
            part,
            standing,
            right: 8,
        };
        let mut work = work(Order::InTurn);
        assert_eq!(work.clean(5, 10, 4), 5.0 / (10.0 + 9.0 * 303.0));
        assert_eq!(work.clean(10, 10, 8), 10.0 / (10.0 + 8.0 * 303.0));
        // Half of the first four.
        assert_eq!(work.attack(place(0, 8, 0, 0.5, 8)), (10.0 + 202.0) / (10.0 + 8.0 * 303.0));
        // All four fell: neither the second attempt nor Square meets them.
        let found = work.attack(place(0, 8, 4, 0.0, 4));
        assert_eq!(found, (10.0 + 404.0) / (10.0 + 8.0 * 101.0 + 4.0 * 202.0));
        work.done(0, 1, 8);
        let found = work.attack(place(1, 4, 4, 0.0, 0));
        assert_eq!(found, 1.0, "nothing is left to attack");

        // Where attacks do not depend on each other, Square meets all that are right.
        let mut work = self::work(Order::Independent);
        work.clean(10, 10, 8);
        work.done(0, 1, 8);
        let found = work.attack(place(1, 4, 4, 0.0, 0));
        assert_eq!(found, (10.0 + 12.0 * 101.0) / (10.0 + 20.0 * 101.0));
        let passes = Passes { forwards: 1, gradients: 25 };
        assert!((work.part(0, passes) - 51.0 / 101.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_to_do_is_done() {
        assert_eq!(work(Order::Independent).clean(0, 0, 0), 1.0);
    }
}
