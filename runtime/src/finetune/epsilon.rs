//! How the radius of the training attack changes over a run. The step length changes in proportion.

use serde::{Deserialize, Serialize};

use super::attack::{AttackConfig, AttackKind, Fraction};
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
    /// Each image's own: it grows while the image withstands a larger ball, and shrinks while it does not
    /// withstand its own (IAAT, Algorithm 2).
    Iaat,
    /// Each image's own: times `rho` / doubt, where doubt is the distance of the label to the likeliest
    /// class in the eyes of a calibration head (DAAT, equation 12).
    Daat,
    /// `(1 - doubt + rho) attack.eps` (DAAT, equation 16).
    DaatLinear,
    /// The same in quarters of `attack.eps`, rounded up.
    DaatPiecewise,
    /// Each image's own: where the attack on it crosses the boundary; `attack.eps` is the margin that is wide
    /// enough (MMA, d_max).
    Mma,
}

/// How the radii of iaat change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IaatRule {
    /// Algorithm 2: by two probes; an image that is misclassified as it is stays clean.
    #[default]
    Paper,
    /// That of the authors' code: such an image is attacked, and its radius shrinks.
    Code,
    /// The largest multiple of `gamma` up to `largest` that the image withstands, found by trying all
    /// (the paper's section 5.2).
    LineSearch,
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
    /// Iaat: how much larger the ball of its first probe is. 1.9/255 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gamma: Option<Fraction>,
    /// Iaat: part of the newly found radius in the smoothed one, 0 to 1. 0.1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f32>,
    /// Iaat: epochs at `attack.eps` before radii change. 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_epochs: Option<u32>,
    /// Iaat: how radii change. The paper's rule when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<IaatRule>,
    /// Iaat: steps of the attacks that radii are chosen by. `attack.steps` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_steps: Option<u32>,
    /// Iaat: the radius below which none falls (eps_lb of the paper). 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smallest: Option<Fraction>,
    /// Iaat by line search: the largest radius that is tried. Twice `attack.eps` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest: Option<Fraction>,
    /// Daat: the tolerated doubt, in stages; [0.05, 0.2, 0.3] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rho: Option<Vec<f32>>,
    /// Daat: the parts of the run after which the next stage of `rho` begins; [0.75, 0.9] when absent,
    /// none when only `rho` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rho_stages: Option<Vec<f64>>,
    /// Daat: temperature of the calibration head's probabilities. 2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tau: Option<f32>,
    /// Daat: the largest radius, as a multiple of `attack.eps`. 1 when absent; 1.25 is the enlarged variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enlarge: Option<f32>,
}

impl EpsilonPolicy {
    /// Whether each image has a radius of its own.
    pub(super) const fn is_per_image(self) -> bool {
        matches!(self, Self::Iaat | Self::Mma) || self.is_daat()
    }

    /// Whether the radius follows the doubt of a calibration head.
    pub(super) const fn is_daat(self) -> bool {
        matches!(self, Self::Daat | Self::DaatLinear | Self::DaatPiecewise)
    }
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

    pub(super) fn gamma(&self) -> f32 {
        self.gamma.map_or(1.9 / 255.0, |gamma| gamma.0)
    }

    pub(super) fn beta(&self) -> f32 {
        self.beta.unwrap_or(0.1)
    }

    pub(super) fn warmup_epochs(&self) -> u32 {
        self.warmup_epochs.unwrap_or(5)
    }

    pub(super) fn smallest(&self) -> f32 {
        self.smallest.map_or(0.0, |smallest| smallest.0)
    }

    pub(super) fn largest(&self, attack: &AttackConfig) -> f32 {
        self.largest.map_or(2.0 * attack.eps.0, |largest| largest.0)
    }

    pub(super) fn tau(&self) -> f32 {
        self.tau.unwrap_or(2.0)
    }

    pub(super) fn enlarge(&self) -> f32 {
        self.enlarge.unwrap_or(1.0)
    }

    fn rho_values(&self) -> Vec<f32> {
        self.rho.clone().unwrap_or_else(|| vec![0.05, 0.2, 0.3])
    }

    fn rho_stages(&self) -> Vec<f64> {
        match (&self.rho_stages, &self.rho) {
            (Some(stages), _) => stages.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => vec![0.75, 0.9],
        }
    }

    /// The tolerated doubt in `epoch`, counted from 0, of `epochs`. A stage begins in the epoch whose
    /// number, counted from 1, is its part of the run: 75 and 90 of 100 in the paper.
    pub(super) fn rho(&self, epoch: u32, epochs: u32) -> f32 {
        let part = (f64::from(epoch) + 1.0) / f64::from(epochs);
        let stage = self.rho_stages().iter().filter(|&&s| part >= s - 1e-9).count();
        self.rho_values()[stage]
    }

    /// Refuses what is out of range, and keys that the policy does not read.
    pub(super) fn check(&self, attack: &AttackConfig) -> Result<()> {
        let fault = |message: String| Err(Error::Config(message));
        let unread = |key: &str, policy: &str| {
            fault(format!("epsilon.{key} belongs to epsilon.policy = {policy}; set that, or leave it out"))
        };
        use EpsilonPolicy::{Fixed, Hinge, Iaat, Linear};
        if self.policy != Fixed && attack.kind == AttackKind::None {
            return fault("epsilon.policy changes the radius of an attack; attack.kind is none".into());
        }
        if self.start.is_some() && self.policy != Hinge {
            return unread("start", "hinge");
        }
        if self.end.is_some() && !matches!(self.policy, Hinge | Linear) {
            return unread("end", "hinge or linear");
        }
        if self.last.is_some() && self.policy != Linear {
            return unread("last", "linear");
        }
        let of_iaat = [
            ("gamma", self.gamma.is_some()),
            ("beta", self.beta.is_some()),
            ("warmup_epochs", self.warmup_epochs.is_some()),
            ("rule", self.rule.is_some()),
            ("probe_steps", self.probe_steps.is_some()),
            ("smallest", self.smallest.is_some()),
            ("largest", self.largest.is_some()),
        ];
        if let Some((key, _)) = of_iaat.iter().find(|(_, set)| *set && self.policy != Iaat) {
            return unread(key, "iaat");
        }
        let of_daat = [
            ("rho", self.rho.is_some()),
            ("rho_stages", self.rho_stages.is_some()),
            ("tau", self.tau.is_some()),
            ("enlarge", self.enlarge.is_some()),
        ];
        if let Some((key, _)) = of_daat.iter().find(|(_, set)| *set && !self.policy.is_daat()) {
            return unread(key, "daat, daat-linear or daat-piecewise");
        }
        let searches = self.rule == Some(IaatRule::LineSearch);
        if self.largest.is_some() && !searches {
            return unread("largest", "iaat and epsilon.rule = line-search");
        }
        if self.probe_steps == Some(0) {
            return fault("epsilon.probe_steps is at least 1".into());
        }
        if !(self.smallest() >= 0.0 && self.smallest() <= attack.eps.0) {
            return fault(format!(
                "epsilon.smallest = {} does not lie between 0 and attack.eps = {}, where every radius starts",
                self.smallest(),
                attack.eps.0
            ));
        }
        let largest = self.largest(attack);
        if searches && !(largest >= self.gamma() && self.gamma() > 0.0 && largest <= 1.0) {
            return fault(format!(
                "epsilon.gamma = {}, epsilon.largest = {largest}: a line search goes in steps of gamma, above 0, up \
                 to largest, at most 1",
                self.gamma()
            ));
        }
        if self.policy == EpsilonPolicy::Mma && attack.eps.0 <= 0.0 {
            return fault("epsilon.policy = mma looks for margins up to attack.eps, which is above 0".into());
        }
        let targeted = attack.kind == AttackKind::PgdRandomTarget && self.policy == Iaat;
        if self.policy.is_per_image() && attack.kind != AttackKind::Pgd && !targeted {
            return fault(
                "a radius for each image needs attack.kind = pgd, or with epsilon.policy = iaat pgd-random-target"
                    .into(),
            );
        }
        if !(self.gamma() >= 0.0 && (0.0..=1.0).contains(&self.beta())) {
            return fault(format!(
                "epsilon.gamma = {} and epsilon.beta = {}: the first is not negative, the second lies in [0, 1]",
                self.gamma(),
                self.beta()
            ));
        }
        let rho = self.rho_values();
        if rho.len() != self.rho_stages().len() + 1 || !rho.iter().all(|r| *r > 0.0 && r.is_finite()) {
            return fault(format!(
                "epsilon.rho = {rho:?}, epsilon.rho_stages = {:?}: one positive rho more than there are stages",
                self.rho_stages()
            ));
        }
        if !self.rho_stages().is_sorted() || !self.rho_stages().iter().all(|s| (0.0..=1.0).contains(s)) {
            return fault("epsilon.rho_stages: parts of the run between 0 and 1, in order".into());
        }
        let tau_is_fine = self.tau() > 0.0 && self.tau().is_finite();
        if !tau_is_fine || !(1.0..=4.0).contains(&self.enlarge()) {
            return fault(format!(
                "epsilon.tau = {} and epsilon.enlarge = {}: the first is above 0, the second between 1 and 4",
                self.tau(),
                self.enlarge()
            ));
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

    /// The radius at `epoch` (fractional, from 0) of `epochs`, where `eps` is `attack.eps`; for policies
    /// with a radius for each image, that of their start.
    pub fn radius(&self, eps: f32, epoch: f64, epochs: f64) -> f32 {
        match self.policy {
            EpsilonPolicy::Fixed
            | EpsilonPolicy::Iaat
            | EpsilonPolicy::Daat
            | EpsilonPolicy::DaatLinear
            | EpsilonPolicy::DaatPiecewise
            | EpsilonPolicy::Mma => eps,
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
    fn rho_changes_where_the_paper_does() {
        let daat = EpsilonConfig { policy: EpsilonPolicy::Daat, ..EpsilonConfig::default() };
        assert_eq!([74, 75, 89, 90, 100].map(|e| daat.rho(e - 1, 100)), [0.05, 0.2, 0.2, 0.3, 0.3]);
        assert_eq!(daat.rho(0, 20), 0.05);
        let one = EpsilonConfig { rho: Some(vec![1.0]), ..daat };
        assert_eq!([0, 50, 99].map(|e| one.rho(e, 100)), [1.0; 3]);
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
