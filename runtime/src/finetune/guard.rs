//! The guard against catastrophic overfitting: Wong, Rice and Kolter, "Fast is better than free: revisiting
//! adversarial training", 2020. Training by single steps may lose its robustness within one epoch; what it
//! then withstands is the single step alone. A few steps of PGD on one batch tell.

use super::attack::AttackConfig;
use super::parts::parts;
use crate::attacks::{AttackSpec, Objective, Start};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::package::TrainingState;
use crate::random::Purpose;
use crate::session::Session;
use crate::shape::Tensor;

/// Steps of PGD that an epoch is judged by.
const STEPS: u32 = 5;

pub(super) struct Guard {
    /// How far the accuracy may fall in one epoch.
    allowed: f64,
    attack: AttackSpec,
    /// The accuracy after the epoch before.
    accuracy: Option<f64>,
    /// What the run goes back to.
    before: Option<(Vec<Tensor>, TrainingState)>,
    /// The run is over.
    ended: bool,
}

impl Guard {
    /// `None` for a run without attack, or without guard.
    pub fn new(allowed: Option<f64>, attack: &AttackConfig) -> Option<Self> {
        let spec = attack.measure()?;
        let attack = AttackSpec {
            kind: "pgd".into(),
            step: spec.ball.eps / 4.0,
            steps: STEPS,
            start: Start::Random,
            ..spec
        };
        allowed.map(|allowed| Self { allowed, attack, accuracy: None, before: None, ended: false })
    }

    /// Remembers the run as it is at the start of an epoch.
    pub fn remember(&mut self, weights: Vec<Tensor>, state: TrainingState) {
        self.before = Some((weights, state));
    }

    /// Judges the epoch by one of its batches: what the run goes back to, where it has overfitted.
    pub fn judge(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        seed: u64,
        epoch: u32,
    ) -> Result<Option<(Vec<Tensor>, TrainingState)>> {
        let mut correct = 0;
        for part in parts(batch, session.capacity()) {
            let count = part.len();
            session.load(&part.images, &part.labels, &part.indices)?;
            let mut objective = Objective::new(session, count, seed, Purpose::AttackStart, epoch);
            self.attack.build().perturb(&mut objective)?;
            session.score(count, Loss::CrossEntropy)?;
            correct += session.read_correct(count)?.into_iter().filter(|c| *c).count();
        }
        Ok(self.decide(correct as f64 / batch.len() as f64))
    }

    fn decide(&mut self, accuracy: f64) -> Option<(Vec<Tensor>, TrainingState)> {
        let before = self.accuracy.replace(accuracy);
        self.ended = before.is_some_and(|before| before - accuracy > self.allowed);
        if self.ended {
            self.accuracy = before;
            return self.before.take();
        }
        None
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    pub fn read(&self) -> Vec<(String, Vec<f32>)> {
        // Two halves: an accuracy is compared, and f32 would round it.
        let bits = self.accuracy.map_or(f64::NAN.to_bits(), f64::to_bits);
        let words = [bits as u32, (bits >> 32) as u32].map(f32::from_bits);
        vec![(ACCURACY.into(), words.to_vec()), (ENDED.into(), vec![f32::from(u8::from(self.ended))])]
    }

    pub fn restore(&mut self, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        let find = |name: &str, len: usize| {
            let found = tensors.iter().find(|(n, v)| n == name && v.len() == len);
            found.map(|(_, v)| v).ok_or_else(|| Error::Config(format!("the checkpoint has no '{name}'")))
        };
        let words = find(ACCURACY, 2)?;
        let bits = u64::from(words[0].to_bits()) | u64::from(words[1].to_bits()) << 32;
        self.accuracy = Some(f64::from_bits(bits)).filter(|a| !a.is_nan());
        self.ended = find(ENDED, 1)?[0] != 0.0;
        Ok(())
    }
}

const ACCURACY: &str = "guard.accuracy";
const ENDED: &str = "guard.ended";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finetune::Recipe;

    #[test]
    fn a_fall_ends_the_run() {
        let attack = Recipe::load("fast", &[]).unwrap().attack;
        let guard = || Guard::new(Some(0.2), &attack).unwrap();
        let state = || TrainingState {
            epochs_done: 1,
            total_epochs: 9,
            step: 3,
            seed: 0,
            best: None,
            tensors: Vec::new(),
            settings: String::new(),
        };
        let mut falls = guard();
        for (accuracy, ends) in [(0.1, false), (0.4, false), (0.25, false), (0.04, true)] {
            falls.remember(Vec::new(), state());
            assert_eq!(falls.decide(accuracy).is_some(), ends, "{accuracy}");
            assert_eq!(falls.has_ended(), ends);
        }
        let mut resumed = guard();
        resumed.restore(&falls.read()).unwrap();
        assert_eq!((resumed.accuracy, resumed.ended), (Some(0.25), true));
        let mut fresh = guard();
        fresh.restore(&guard().read()).unwrap();
        assert_eq!((fresh.accuracy, fresh.ended), (None, false));
        assert!(fresh.restore(&[]).is_err());
        assert!(Guard::new(None, &attack).is_none());
    }
}
