//! Attacks by name: `pgd:eps=8/255,steps=20`.

use super::{Attack, Ball, Fgsm, Pgd, Start};
use crate::error::{Error, Result};
use crate::ops::Norm;

/// What the attacks are called and what they take.
const ATTACKS: &[(&str, &[&str])] =
    &[("fgsm", &["norm", "eps"]), ("pgd", &["norm", "eps", "step", "steps", "start", "restarts"])];

/// An attack with its settings, as the command line and recipes name it.
#[derive(Clone, PartialEq, Debug)]
pub struct AttackSpec {
    pub kind: String,
    pub ball: Ball,
    pub step: f32,
    pub steps: u32,
    pub start: Start,
    pub restarts: u32,
}

/// Parses `8/255` or `0.03`.
pub fn parse_fraction(text: &str) -> Result<f32> {
    let bad = || Error::Config(format!("'{text}' is not a number; write 8/255 or 0.03"));
    let number = |s: &str| s.trim().parse::<f64>().ok().filter(|x| x.is_finite());
    let value = match text.split_once('/') {
        Some((a, b)) => {
            let (a, b) = (number(a).ok_or_else(bad)?, number(b).ok_or_else(bad)?);
            if b == 0.0 {
                return Err(bad());
            }
            a / b
        }
        None => number(text).ok_or_else(bad)?,
    };
    Ok(value as f32)
}

impl AttackSpec {
    /// Parses `NAME[:KEY=VALUE,...]`. `norm` and `eps` are used where the text has none; eps
    /// defaults to 8/255 for linf and 0.5 for l2. PGD defaults to 20 steps of 2.5 eps / steps from a
    /// random start (Madry's rule).
    pub fn parse(text: &str, norm: Option<Norm>, eps: Option<f32>) -> Result<Self> {
        let (kind, settings) = text.split_once(':').unwrap_or((text, ""));
        let Some((_, known)) = ATTACKS.iter().find(|(name, _)| *name == kind) else {
            let names: Vec<&str> = ATTACKS.iter().map(|(name, _)| *name).collect();
            return Err(Error::Config(format!("unknown attack '{kind}'; there are {}", names.join(", "))));
        };
        let mut values = std::collections::HashMap::new();
        for setting in settings.split(',').filter(|s| !s.trim().is_empty()) {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| Error::Config(format!("'{setting}' in attack '{text}': write KEY=VALUE")))?;
            let key = key.trim();
            if !known.contains(&key) {
                return Err(Error::Config(format!(
                    "attack '{kind}' has no setting '{key}'; it has {}",
                    known.join(", ")
                )));
            }
            values.insert(key, value.trim());
        }
        let norm = match values.get("norm") {
            Some(name) => parse_norm(name)?,
            None => norm.unwrap_or(Norm::Linf),
        };
        let eps = match (values.get("eps"), eps) {
            (Some(text), _) => parse_fraction(text)?,
            (None, Some(eps)) => eps,
            (None, None) if norm == Norm::Linf => 8.0 / 255.0,
            (None, None) => 0.5,
        };
        let whole = |key: &str, default: u32| match values.get(key) {
            Some(v) => {
                v.parse().map_err(|_| Error::Config(format!("{key}={v} in attack '{text}': a whole number")))
            }
            None => Ok(default),
        };
        let steps = whole("steps", if kind == "fgsm" { 1 } else { 20 })?;
        let step = match values.get("step") {
            Some(text) => parse_fraction(text)?,
            None if kind == "fgsm" => eps,
            None => 2.5 * eps / steps.max(1) as f32,
        };
        let start = match values.get("start").copied() {
            None if kind == "fgsm" => Start::Clean,
            None | Some("random") => Start::Random,
            Some("clean") => Start::Clean,
            Some("normal") => Start::Normal,
            Some(other) => {
                return Err(Error::Config(format!("start={other}: it is random, clean or normal")));
            }
        };
        let spec = Self {
            kind: kind.into(),
            ball: Ball { norm, eps },
            step,
            steps,
            start,
            restarts: whole("restarts", 1)?,
        };
        spec.check()?;
        Ok(spec)
    }

    /// Refuses settings out of their range.
    pub fn check(&self) -> Result<()> {
        let positive = |name: &str, x: f32| match x.is_finite() && x >= 0.0 {
            true => Ok(()),
            false => {
                Err(Error::Config(format!("attack {}: {name} is {x}; it must not be negative", self.kind)))
            }
        };
        positive("eps", self.ball.eps)?;
        positive("step", self.step)?;
        if self.steps == 0 || self.restarts == 0 {
            return Err(Error::Config(format!("attack {}: at least one step and one restart", self.kind)));
        }
        if self.ball.norm == Norm::Linf && self.ball.eps > 1.0 {
            return Err(Error::Config(format!(
                "attack {}: eps {} is beyond the range of a pixel, [0, 1]; did you mean {}/255?",
                self.kind, self.ball.eps, self.ball.eps
            )));
        }
        Ok(())
    }

    /// The attack itself.
    pub fn build(&self) -> Box<dyn Attack> {
        let Self { ball, step, steps, start, restarts, .. } = *self;
        match self.kind.as_str() {
            "fgsm" => Box::new(Fgsm { ball }),
            _ => Box::new(Pgd { ball, step, steps, start, restarts }),
        }
    }
}

/// Parses `linf` or `l2`.
pub(crate) fn parse_norm(name: &str) -> Result<Norm> {
    match name.to_lowercase().as_str() {
        "linf" => Ok(Norm::Linf),
        "l2" => Ok(Norm::L2),
        _ => Err(Error::Config(format!("unknown norm '{name}'; there are linf, l2"))),
    }
}

impl std::str::FromStr for Norm {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        parse_norm(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions() {
        assert_eq!(parse_fraction("8/255").unwrap(), 8.0 / 255.0);
        assert_eq!(parse_fraction(" 0.03 ").unwrap(), 0.03);
        for bad in ["", "a", "1/0", "8/", "nan", "inf", "1/2/3"] {
            assert!(parse_fraction(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn defaults_follow_madry() {
        let spec = AttackSpec::parse("pgd:eps=8/255", None, None).unwrap();
        assert_eq!((spec.steps, spec.start, spec.restarts), (20, Start::Random, 1));
        assert!((spec.step - 1.0 / 255.0).abs() < 1e-9);
        let spec = AttackSpec::parse("fgsm", Some(Norm::L2), None).unwrap();
        assert_eq!((spec.ball.norm, spec.ball.eps, spec.step), (Norm::L2, 0.5, 0.5));
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text| AttackSpec::parse(text, None, None).unwrap_err().to_string();
        assert!(message("pdg").contains("fgsm, pgd"));
        assert!(message("pgd:stepz=3").contains("'stepz'"));
        assert!(message("pgd:eps=8").contains("8/255"));
        assert!(message("pgd:steps=0").contains("at least one step"));
        assert!(message("pgd:step=-1").contains("negative"));
        assert!(message("fgsm:steps=2").contains("no setting 'steps'"));
    }
}
