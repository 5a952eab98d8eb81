//! How the radius of the training attack changes over a run. The step length changes in proportion.

use serde::{Deserialize, Serialize};

use super::recipe::{AttackConfig, AttackKind, Fraction};
use crate::error::{Error, Result};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EpsilonPolicy {
    /// `attack.eps` throughout.
    #[default]
    Fixed,
    /// 0 until `start`, then linear up to `attack.eps` at `end`, then constant; it changes with every
    /// batch (arXiv 2509.23325).
    Hinge,
    /// Linear from `attack.eps` in the first epoch down to `last` in the last one before `end`, a step
    /// an epoch; clean images from `end` on (DRA: 2/255 to 0.5/255 over 50 of 60 epochs).
    Linear,
}

/// The table `[epsilon]`. Parts of a run are from 0, its start, to 1, its end.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpsilonConfig {
    #[serde(default)]
    pub policy: EpsilonPolicy,
    /// Hinge: the part of the run after which the radius grows. 0.25 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<f64>,
    /// The part of the run after which the radius no longer changes. When absent 0.75 for hinge, 1
    /// for linear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<f64>,
    /// Linear: the radius of its last epoch, in pixels of [0, 1]. 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Fraction>,
}

impl EpsilonConfig {
    fn start(&self) -> f64 {
        self.start.unwrap_or(0.25)
    }

    fn end(&self) -> f64 {
        self.end.unwrap_or(if self.policy == EpsilonPolicy::Hinge { 0.75 } else { 1.0 })
    }

    fn last(&self) -> f32 {
        self.last.map_or(0.0, |last| last.0)
    }

    /// Refuses what is out of range, and keys that the policy does not read.
    pub(super) fn check(&self, attack: &AttackConfig) -> Result<()> {
        let fault = |message: String| Err(Error::Config(message));
        let unread = |key: &str, policy: &str| {
            fault(format!("epsilon.{key} belongs to epsilon.policy = {policy}; set that, or leave it out"))
        };
        use EpsilonPolicy::{Fixed, Hinge, Linear};
        if self.policy != Fixed && attack.kind == AttackKind::None {
            return fault("epsilon.policy changes the radius of an attack; attack.kind is none".into());
        }
        if self.start.is_some() && self.policy != Hinge {
            return unread("start", "hinge");
        }
        if self.end.is_some() && self.policy == Fixed {
            return unread("end", "hinge or linear");
        }
        if self.last.is_some() && self.policy != Linear {
            return unread("last", "linear");
        }
        for (key, part) in [("start", self.start()), ("end", self.end())] {
            if !(0.0..=1.0).contains(&part) {
                return fault(format!("epsilon.{key} = {part}: a part of the run lies between 0 and 1"));
            }
        }
        if self.policy == Hinge && self.start() > self.end() {
            return fault(format!(
                "epsilon.start = {} is after epsilon.end = {}; the radius grows from the one to the other",
                self.start(),
                self.end()
            ));
        }
        if !(self.last() >= 0.0 && self.last() <= attack.eps.0) && self.policy == Linear {
            return fault(format!(
                "epsilon.last = {} does not lie between 0 and attack.eps = {}; for a radius that grows take \
                 epsilon.policy = hinge",
                self.last(),
                attack.eps.0
            ));
        }
        Ok(())
    }

    /// The radius at `epoch` (fractional, from 0) of `epochs`, where `eps` is `attack.eps`.
    pub fn radius(&self, eps: f32, epoch: f64, epochs: f64) -> f32 {
        match self.policy {
            EpsilonPolicy::Fixed => eps,
            EpsilonPolicy::Hinge => {
                let (start, end) = (self.start() * epochs, self.end() * epochs);
                let part = match epoch {
                    t if t >= end => 1.0,
                    t if t <= start => 0.0,
                    t => (t - start) / (end - start),
                };
                (f64::from(eps) * part) as f32
            }
            EpsilonPolicy::Linear => {
                // 5/6 of 60 epochs are 50, not 50 and a rounding.
                let attacked = (self.end() * epochs - 1e-9).ceil();
                let epoch = epoch.floor();
                if epoch >= attacked {
                    return 0.0;
                }
                let part = if attacked > 1.0 { epoch / (attacked - 1.0) } else { 0.0 };
                (f64::from(eps) * (1.0 - part) + f64::from(self.last()) * part) as f32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPS: f32 = 8.0 / 255.0;

    fn hinge(start: f64, end: f64) -> EpsilonConfig {
        EpsilonConfig {
            policy: EpsilonPolicy::Hinge,
            start: Some(start),
            end: Some(end),
            ..EpsilonConfig::default()
        }
    }

    #[test]
    fn hinge_is_flat_then_linear_then_flat() {
        let at = |epoch: f64| hinge(0.25, 0.75).radius(EPS, epoch, 20.0);
        assert_eq!([at(0.0), at(5.0)], [0.0, 0.0]);
        assert_eq!([at(15.0), at(19.99)], [EPS, EPS], "the target is reached exactly");
        assert!((at(6.0) - 0.1 * EPS).abs() < 1e-8);
        assert!((at(10.0) - 0.5 * EPS).abs() < 1e-8);
        let radii: Vec<f32> = (0..=200).map(|i| at(f64::from(i) / 10.0)).collect();
        assert!(radii.windows(2).all(|w| w[0] <= w[1]));
        assert!(radii[50..=150].windows(2).all(|w| w[0] < w[1]), "it changes within epochs");
    }

    #[test]
    fn a_hinge_at_the_start_is_fixed() {
        assert!((0..100).all(|i| hinge(0.0, 0.0).radius(EPS, f64::from(i) / 10.0, 10.0) == EPS));
    }

    #[test]
    fn linear_is_the_schedule_of_dra() {
        let dra = EpsilonConfig {
            policy: EpsilonPolicy::Linear,
            end: Some(50.0 / 60.0),
            last: Some(Fraction(0.5 / 255.0)),
            ..EpsilonConfig::default()
        };
        let at = |epoch: f64| dra.radius(2.0 / 255.0, epoch, 60.0);
        assert_eq!([at(0.0), at(0.9)], [2.0 / 255.0; 2]);
        assert_eq!([at(49.0), at(49.9)], [0.5 / 255.0; 2]);
        for e in 0..50 {
            let expected = (2.0 - 1.5 * f64::from(e) / 49.0) / 255.0;
            assert!((f64::from(at(f64::from(e))) - expected).abs() < 1e-8, "epoch {e}");
        }
        assert!((50..60).all(|e| at(f64::from(e)) == 0.0));
        let whole = EpsilonConfig { policy: EpsilonPolicy::Linear, ..EpsilonConfig::default() };
        assert_eq!(whole.radius(EPS, 0.5, 1.0), EPS, "one epoch has nothing to fall to");
        assert_eq!(whole.radius(EPS, 9.0, 10.0), 0.0);
    }
}
