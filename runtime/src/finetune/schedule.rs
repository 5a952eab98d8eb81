//! Learning rate schedules. Time is in epochs; the rate changes with every batch.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Linear from `start` to `peak` over `warmup_epochs`, then times `decay` with every epoch
    /// (AFT, section 4).
    SlowStartFastDecay,
    /// `peak`, times `decay` at each of `milestones`; where there are `rates`, those from there on.
    Piecewise,
    /// `peak`, times `decay` every epoch.
    Step,
    /// From `peak` to `start` along half a cosine, after a linear warm-up.
    Cosine,
    /// Linear from 0 to `peak` at `warmup_epochs`, then linear to 0 at the end.
    Cyclic,
    Constant,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    pub kind: ScheduleKind,
    /// The lowest rate: where slow-start begins, where cosine ends.
    pub start: f64,
    pub peak: f64,
    pub warmup_epochs: f64,
    pub decay: f64,
    /// Epochs at which piecewise decays.
    pub milestones: Vec<f64>,
    /// Rates of piecewise from each milestone on, where they do not fall by one factor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<f64>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Constant,
            start: 0.0,
            peak: 0.01,
            warmup_epochs: 0.0,
            decay: 0.1,
            milestones: Vec::new(),
            rates: Vec::new(),
        }
    }
}

impl Schedule {
    pub fn check(&self) -> Result<()> {
        let numbers = [self.start, self.peak, self.warmup_epochs, self.decay];
        if numbers.iter().chain(&self.milestones).chain(&self.rates).any(|x| !x.is_finite() || *x < 0.0) {
            return Err(Error::Config("schedule: every number is finite and not negative".into()));
        }
        let of_piecewise = self.kind == ScheduleKind::Piecewise && self.rates.len() == self.milestones.len();
        if !self.rates.is_empty() && !of_piecewise {
            return Err(Error::Config(
                "schedule.rates: one for each of schedule.milestones, with schedule.kind = piecewise".into(),
            ));
        }
        if self.start > self.peak {
            return Err(Error::Config(format!(
                "schedule.start = {} is above schedule.peak = {}",
                self.start, self.peak
            )));
        }
        Ok(())
    }

    /// For a run that is `factor` times as long.
    pub(super) fn stretch(&mut self, factor: f64) {
        self.warmup_epochs *= factor;
        self.milestones.iter_mut().for_each(|m| *m *= factor);
        if matches!(self.kind, ScheduleKind::SlowStartFastDecay | ScheduleKind::Step) {
            self.decay = self.decay.powf(factor.recip());
        }
    }

    /// The rate at `epoch` (fractional, from 0) of `epochs`.
    pub fn rate(&self, epoch: f64, epochs: f64) -> f64 {
        let warmup = self.warmup_epochs;
        let rising = |from: f64| from + (self.peak - from) * epoch / warmup;
        match self.kind {
            ScheduleKind::SlowStartFastDecay if epoch < warmup => rising(self.start),
            ScheduleKind::SlowStartFastDecay => self.peak * self.decay.powf(epoch - warmup),
            ScheduleKind::Piecewise => {
                let passed = self.milestones.iter().filter(|&&m| epoch >= m).count();
                match passed.checked_sub(1).and_then(|last| self.rates.get(last)) {
                    Some(&rate) => rate,
                    None => self.peak * self.decay.powi(passed as i32),
                }
            }
            ScheduleKind::Step => self.peak * self.decay.powf(epoch.floor()),
            ScheduleKind::Cosine if epoch < warmup => rising(self.start),
            ScheduleKind::Cosine => {
                let progress = ((epoch - warmup) / (epochs - warmup).max(f64::MIN_POSITIVE)).min(1.0);
                self.start + (self.peak - self.start) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            ScheduleKind::Cyclic if epoch < warmup => rising(0.0),
            ScheduleKind::Cyclic => {
                let left = (epochs - epoch) / (epochs - warmup).max(f64::MIN_POSITIVE);
                self.peak * left.clamp(0.0, 1.0)
            }
            ScheduleKind::Constant => self.peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aft() -> Schedule {
        Schedule {
            kind: ScheduleKind::SlowStartFastDecay,
            start: 1e-5,
            peak: 2.5e-4,
            warmup_epochs: 3.0,
            decay: 0.5,
            ..Schedule::default()
        }
    }

    #[test]
    fn a_stretched_schedule_has_the_same_rates() {
        let piecewise = Schedule {
            kind: ScheduleKind::Piecewise,
            peak: 0.1,
            milestones: vec![5.0, 7.5],
            ..Schedule::default()
        };
        let step = Schedule { kind: ScheduleKind::Step, peak: 0.1, decay: 0.8, ..Schedule::default() };
        let kinds = [ScheduleKind::Cosine, ScheduleKind::Cyclic, ScheduleKind::Constant];
        let others = kinds.map(|kind| Schedule { kind, ..aft() });
        for schedule in [aft(), piecewise].iter().chain(&others) {
            let mut longer = schedule.clone();
            longer.stretch(1.6);
            for tenth in 0..100 {
                let time = f64::from(tenth) / 10.0;
                let (rate, same) = (schedule.rate(time, 10.0), longer.rate(time * 1.6, 16.0));
                assert!((rate - same).abs() <= 1e-9 * rate, "{schedule:?} at {time}: {rate}, {same}");
            }
        }
        // A staircase has as many steps as epochs, and falls as far.
        let mut longer = step.clone();
        longer.stretch(2.0);
        assert!((longer.rate(18.5, 20.0) - step.rate(9.5, 10.0)).abs() < 1e-9);
    }

    #[test]
    fn slow_start_fast_decay() {
        let s = aft();
        let rates: Vec<f64> = (0..=100).map(|i| s.rate(f64::from(i) / 10.0, 10.0)).collect();
        assert_eq!(rates[0], 1e-5);
        assert_eq!(rates[30], 2.5e-4);
        assert!(rates[..=30].windows(2).all(|w| w[0] < w[1]), "the start rises");
        assert!(rates[30..].windows(2).all(|w| w[0] > w[1]), "the rest falls");
        assert!((rates[40] / rates[30] - 0.5).abs() < 1e-12);
        assert!((rates[100] - 2.5e-4 / 128.0).abs() < 1e-15);
        assert!((s.rate(3.0 - 1e-9, 10.0) - s.rate(3.0, 10.0)).abs() < 1e-9, "continuous at the peak");
    }

    #[test]
    fn piecewise_and_cosine_and_cyclic() {
        let piecewise = Schedule {
            kind: ScheduleKind::Piecewise,
            peak: 0.1,
            milestones: vec![75.0, 90.0],
            ..Schedule::default()
        };
        let rate = |e| (piecewise.rate(e, 100.0) * 1e6).round() / 1e6;
        assert_eq!([rate(74.9), rate(75.0), rate(90.0)], [0.1, 0.01, 0.001]);
        let cosine = Schedule { kind: ScheduleKind::Cosine, peak: 0.2, start: 0.0, ..Schedule::default() };
        assert!((cosine.rate(0.0, 10.0) - 0.2).abs() < 1e-12);
        assert!((cosine.rate(5.0, 10.0) - 0.1).abs() < 1e-12);
        assert!(cosine.rate(10.0, 10.0).abs() < 1e-12);
        let cyclic =
            Schedule { kind: ScheduleKind::Cyclic, peak: 0.2, warmup_epochs: 5.0, ..Schedule::default() };
        assert_eq!(cyclic.rate(5.0, 15.0), 0.2);
        assert_eq!(cyclic.rate(15.0, 15.0), 0.0);
    }

    #[test]
    fn impossible_settings_are_refused() {
        assert!(Schedule { peak: f64::NAN, ..aft() }.check().is_err());
        assert!(Schedule { start: 1.0, ..aft() }.check().is_err());
        assert!(Schedule { rates: vec![0.1], ..aft() }.check().is_err());
        assert!(aft().check().is_ok());
    }
}
