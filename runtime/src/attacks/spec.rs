//! Attacks by name: `pgd:eps=8/255,steps=20`.

use serde::{Deserialize, Serialize};

use super::{Aim, Apgd, Attack, Ball, CwL2, DeepFool, Dra, Fab, Fgsm, MiFgsm, Pgd, Square, Start};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::ops::Norm;
use crate::spelling::did_you_mean;

/// An attack that can be asked for by name.
struct Known {
    name: &'static str,
    /// The settings that it takes.
    settings: &'static [&'static str],
    /// What `steps` is when it is not given.
    steps: u32,
    /// The length of a step when it is not given.
    step: DefaultStep,
    start: Start,
}

#[derive(Clone, Copy)]
enum DefaultStep {
    /// This part of eps.
    Part(f32),
    /// eps / 4, or 2.5 eps / steps where that is longer.
    Pgd,
    /// eps / steps.
    Share,
    /// This long, whatever eps is.
    Fixed(f32),
}

/// What the kind of an attack begins with when it was made against another model.
const TRANSFERRED: &str = "transfer-";

const STEPPED: &[&str] = &["norm", "eps", "step", "steps"];
const STARTED: &[&str] = &["norm", "eps", "step", "steps", "start", "restarts"];
const ADAPTIVE: &[&str] = &["norm", "eps", "steps", "restarts"];

const WEIGHTED: &[&str] = &["eps", "step", "steps", "searches", "c"];

/// Steps and step lengths where a paper or its authors' code has no rule of its own are PGD's.
const ATTACKS: &[Known] = &[
    known("fgsm", &["norm", "eps"], 1, DefaultStep::Part(1.0), Start::Clean),
    known("bim", STEPPED, 10, DefaultStep::Part(0.25), Start::Clean),
    known("pgd", STARTED, 20, DefaultStep::Pgd, Start::Random),
    known("pgd-t", STARTED, 20, DefaultStep::Pgd, Start::Random),
    known("pgd-random-target", STARTED, 20, DefaultStep::Pgd, Start::Random),
    known("cw", STARTED, 30, DefaultStep::Part(0.25), Start::Random),
    known("mi-fgsm", STEPPED, 10, DefaultStep::Part(0.25), Start::Clean),
    known("apgd-ce", ADAPTIVE, 100, DefaultStep::Part(2.0), Start::Random),
    known("apgd-dlr", ADAPTIVE, 100, DefaultStep::Part(2.0), Start::Random),
    known("apgd-t", ADAPTIVE, 100, DefaultStep::Part(2.0), Start::Random),
    known("cw-l2", WEIGHTED, 1000, DefaultStep::Fixed(0.01), Start::Clean),
    known("cw-l2-t", WEIGHTED, 1000, DefaultStep::Fixed(0.01), Start::Clean),
    known("deepfool", &["norm", "eps", "steps"], 50, DefaultStep::Part(0.0), Start::Clean),
    known("fab", ADAPTIVE, 100, DefaultStep::Part(0.0), Start::Clean),
    known("fab-t", ADAPTIVE, 100, DefaultStep::Part(0.0), Start::Clean),
    known("dra", &["eps", "steps", "part"], 5, DefaultStep::Share, Start::Clean),
    known("square", &["norm", "eps", "queries", "restarts"], 5000, DefaultStep::Part(0.0), Start::Random),
];

const fn known(
    name: &'static str,
    settings: &'static [&'static str],
    steps: u32,
    step: DefaultStep,
    start: Start,
) -> Known {
    Known { name, settings, steps, step, start }
}

/// An attack with its settings, as the command line and recipes name it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttackSpec {
    pub kind: String,
    pub ball: Ball,
    /// Length of a step, or of the first where it adapts; 0 where there are no steps.
    pub step: f32,
    /// Steps of one attempt; for Square, queries.
    pub steps: u32,
    pub start: Start,
    pub restarts: u32,
    /// DRA: the part of an image's elements that change.
    pub part: f32,
    /// CW-L2: values of c that its binary search tries; 0 elsewhere.
    #[serde(default)]
    pub searches: u32,
    /// CW-L2: the first of them; 0 elsewhere.
    #[serde(default)]
    pub c: f32,
}

/// Searches of CW-L2 and its first c where none are given: the paper's. Its 10,000 steps are not the
/// default here.
const SEARCHES: u32 = 9;
const FIRST_C: f32 = 1e-3;

/// DRA's part where none is given: the paper's for CIFAR-10.
pub(crate) const DRA_PART: f32 = 1.0 / 3.0;

/// The radius in linf in which PGD does as much as DRA, as a multiple of DRA's eps. Its paper has eps 1 beside PGD in
/// 2.55, and 2 beside 4 to 5; by the first-order gain of the loss it is 1.6 for gradients that are normally distributed
/// and 2 for Laplace's.
pub const DRA_RADIUS: f32 = 2.0;

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

/// Writes what [`parse_fraction`] reads: as a fraction of 255 where that is shorter, or says more.
pub fn show_fraction(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    let eighths = (value * 255.0 * 8.0).round() / 8.0;
    let (decimal, fraction) = (rounded.to_string(), format!("{eighths}/255"));
    let exact = (value * 255.0 - eighths).abs() < 1e-4;
    // As exact as f32 is.
    let precise = (rounded - value).abs() < 1e-7;
    if exact && (fraction.len() < decimal.len() || !precise) { fraction } else { decimal }
}

impl AttackSpec {
    /// The names of all attacks.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ATTACKS.iter().map(|known| known.name)
    }

    /// Parses `NAME[:KEY=VALUE,...]`. `norm` and `eps` are used where the text has none; eps
    /// defaults to 8/255 for linf and 0.5 for l2. The other defaults are those of each attack's paper:
    /// PGD, for one, takes 20 steps from a random start, of eps / 4: the 2/255 at 8/255 with which PGD-20 is
    /// measured (Rice et al., 2020; Wu et al., 2020); with fewer than ten steps, of 2.5 eps / steps (Madry's
    /// rule), so that they can cross the ball.
    pub fn parse(text: &str, norm: Option<Norm>, eps: Option<f32>) -> Result<Self> {
        let (kind, settings) = text.split_once(':').unwrap_or((text, ""));
        let Some(known) = ATTACKS.iter().find(|known| known.name == kind) else {
            let names: Vec<&str> = Self::names().collect();
            let (all, near) = (names.join(", "), did_you_mean(kind, &names));
            return Err(Error::Config(format!("unknown attack '{kind}'; there are {all}{near}")));
        };
        let mut values = std::collections::HashMap::new();
        for setting in settings.split(',').filter(|s| !s.trim().is_empty()) {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| Error::Config(format!("'{setting}' in attack '{text}': write KEY=VALUE")))?;
            let key = key.trim();
            if !known.settings.contains(&key) {
                let (all, near) = (known.settings.join(", "), did_you_mean(key, known.settings));
                return Err(Error::Config(format!(
                    "attack '{kind}' has no setting '{key}'; it has {all}{near}"
                )));
            }
            values.insert(key, value.trim());
        }
        let norm = match values.get("norm") {
            Some(name) => parse_norm(name)?,
            None if kind.starts_with("cw-l2") => Norm::L2,
            None if !known.settings.contains(&"norm") => Norm::Linf,
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
        let steps = whole(if kind == "square" { "queries" } else { "steps" }, known.steps)?;
        let step = match (values.get("step"), known.step) {
            (Some(text), _) => parse_fraction(text)?,
            (None, DefaultStep::Part(part)) => part * eps,
            (None, DefaultStep::Pgd) => eps * (2.5 / steps.max(1) as f32).max(0.25),
            (None, DefaultStep::Share) => eps / steps.max(1) as f32,
            (None, DefaultStep::Fixed(step)) => step,
        };
        let start = match values.get("start").copied() {
            None => known.start,
            Some("random") => Start::Random,
            Some("clean") => Start::Clean,
            Some("normal") => Start::Normal,
            Some(other) => {
                return Err(Error::Config(format!("start={other}: it is random, clean or normal")));
            }
        };
        let weighted = known.settings.contains(&"c");
        let spec = Self {
            kind: kind.into(),
            ball: Ball { norm, eps },
            step,
            steps,
            start,
            restarts: whole("restarts", 1)?,
            part: values.get("part").map_or(Ok(DRA_PART), |text| parse_fraction(text))?,
            searches: whole("searches", if weighted { SEARCHES } else { 0 })?,
            c: values
                .get("c")
                .map_or(Ok(if weighted { FIRST_C } else { 0.0 }), |text| parse_fraction(text))?,
        };
        spec.check()?;
        Ok(spec)
    }

    /// This attack, made against another model and shown to this one.
    pub fn transferred(&self) -> Self {
        Self { kind: format!("{TRANSFERRED}{}", self.kind), ..self.clone() }
    }

    /// Whether it was made against another model.
    pub fn is_transferred(&self) -> bool {
        self.kind.starts_with(TRANSFERRED)
    }

    /// Whether it follows the gradient of the model itself, step after step.
    pub fn white_box(&self) -> bool {
        self.kind != "square" && !self.is_transferred()
    }

    /// The passes that an image takes in one step of one attempt on a model of `classes`, where a forward
    /// pass is 1 and a gradient 2.
    pub fn passes(&self, classes: usize) -> f64 {
        match self.kind.as_str() {
            "square" => 1.0,
            "fab-t" => 3.0,
            // A gradient for each of the classes that they look at.
            "deepfool" => 2.0 * f64::from(Aim::Likely.targets(classes)) + 1.0,
            "fab" => 2.0 * classes.saturating_sub(1) as f64 + 1.0,
            "cw-l2" | "cw-l2-t" => 2.0 * f64::from(self.searches),
            _ => 2.0,
        }
    }

    /// What `eps` bounds of an image's change: its norm, or its mean for DRA.
    pub fn norm_name(&self) -> String {
        match self.kind.trim_start_matches(TRANSFERRED) {
            "dra" => "mean".into(),
            _ => self.ball.norm.to_string(),
        }
    }

    /// Whether it looks for the nearest misclassified image: its eps only says which of those count.
    pub fn minimises(&self) -> bool {
        matches!(self.kind.as_str(), "deepfool" | "fab" | "fab-t" | "cw-l2" | "cw-l2-t")
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
        let weighted = matches!(self.kind.trim_start_matches(TRANSFERRED), "cw-l2" | "cw-l2-t");
        if weighted && (self.searches == 0 || self.c <= 0.0 || !self.c.is_finite()) {
            return Err(Error::Config(format!(
                "attack {}: at least one search, and a c above 0; got searches={} and c={}",
                self.kind, self.searches, self.c
            )));
        }
        if !(0.0..=1.0).contains(&self.part) {
            return Err(Error::Config(format!(
                "attack {}: part is {}; it lies in [0, 1]",
                self.kind, self.part
            )));
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
        let Self { ball, step, steps, start, restarts, part, searches, c, .. } = *self;
        let pgd = |name, loss, aim| Box::new(Pgd { name, ball, step, steps, start, restarts, loss, aim });
        let apgd = |name, loss, aim| Box::new(Apgd { name, ball, steps, restarts, loss, aim });
        let cw_l2 = |name, aim| Box::new(CwL2 { name, eps: ball.eps, steps, searches, rate: step, c, aim });
        let fab = |name, aim| Box::new(Fab { name, ball, steps, restarts, aim });
        match self.kind.trim_start_matches(TRANSFERRED) {
            "fgsm" => Box::new(Fgsm { ball }),
            "bim" => pgd("bim", Loss::CrossEntropy, Aim::Any),
            "pgd-t" => pgd("pgd-t", Loss::TargetCrossEntropy, Aim::Likely),
            "pgd-random-target" => pgd("pgd-random-target", Loss::TargetCrossEntropy, Aim::Random),
            "cw" => pgd("cw", Loss::CarliniWagner, Aim::Any),
            "mi-fgsm" => Box::new(MiFgsm { ball, step, steps }),
            "apgd-ce" => apgd("apgd-ce", Loss::CrossEntropy, Aim::Any),
            "apgd-dlr" => apgd("apgd-dlr", Loss::Dlr, Aim::Any),
            "apgd-t" => apgd("apgd-t", Loss::TargetDlr, Aim::Likely),
            "cw-l2" => cw_l2("cw-l2", Aim::Any),
            "cw-l2-t" => cw_l2("cw-l2-t", Aim::Likely),
            "deepfool" => Box::new(DeepFool { ball, steps }),
            "fab" => fab("fab", Aim::Any),
            "fab-t" => fab("fab-t", Aim::Likely),
            "dra" => Box::new(Dra { eps: ball.eps, steps, part }),
            "square" => Box::new(Square { ball, queries: steps, restarts }),
            _ => pgd("pgd", Loss::CrossEntropy, Aim::Any),
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
    fn pgd_takes_quarters_of_the_radius_but_crosses_the_ball() {
        let spec = |text| AttackSpec::parse(text, None, None).unwrap();
        let pgd = spec("pgd:eps=8/255");
        assert_eq!((pgd.steps, pgd.start, pgd.restarts), (20, Start::Random, 1));
        for (text, step) in
            [("pgd", 2.0), ("pgd:steps=1000", 2.0), ("pgd:steps=10", 2.0), ("pgd-t:steps=4", 5.0)]
        {
            assert!((spec(text).step - step / 255.0).abs() < 1e-9, "{text}: {}", spec(text).step);
        }
        let spec = AttackSpec::parse("fgsm", Some(Norm::L2), None).unwrap();
        assert_eq!((spec.ball.norm, spec.ball.eps, spec.step), (Norm::L2, 0.5, 0.5));
    }

    /// An attack that `build` does not know would silently be PGD.
    #[test]
    fn every_name_builds_its_attack() {
        for name in AttackSpec::names() {
            assert_eq!(AttackSpec::parse(name, None, None).unwrap().build().name(), name);
        }
    }

    #[test]
    fn defaults_follow_the_papers() {
        let spec = |text| AttackSpec::parse(text, None, Some(0.04)).unwrap();
        assert_eq!((spec("bim").steps, spec("bim").step, spec("bim").start), (10, 0.01, Start::Clean));
        assert_eq!((spec("apgd-t").steps, spec("apgd-t").step), (100, 0.08));
        let dra = AttackSpec::parse("dra", Some(Norm::L2), Some(0.04)).unwrap();
        assert_eq!((dra.steps, dra.step, dra.part), (5, 0.04 / 5.0, 1.0 / 3.0));
        assert_eq!(dra.norm_name(), "mean");
        assert_eq!(spec("dra:part=1/6").part, 1.0 / 6.0);
        let cw = AttackSpec::parse("cw-l2", Some(Norm::Linf), None).unwrap();
        assert_eq!((cw.ball, cw.step), (Ball { norm: Norm::L2, eps: 0.5 }, 0.01));
        assert_eq!((cw.steps, cw.searches, cw.c), (1000, 9, 1e-3));
        assert_eq!(spec("square").steps, 5000);
        assert_eq!(spec("square:queries=70").steps, 70);
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text| AttackSpec::parse(text, None, None).unwrap_err().to_string();
        assert!(message("pdg").contains("fgsm, bim, pgd"));
        assert!(message("pdg").ends_with("; did you mean 'pgd'?"));
        assert!(message("pgd:restart=3").ends_with("; did you mean 'restarts'?"));
        assert!(message("square:steps=7").contains("queries"));
        assert!(message("pgd:stepz=3").contains("'stepz'"));
        assert!(message("pgd:eps=8").contains("8/255"));
        assert!(message("pgd:steps=0").contains("at least one step"));
        assert!(message("pgd:step=-1").contains("negative"));
        assert!(message("dra:part=1.5").contains("[0, 1]"));
        assert!(message("cw-l2:norm=linf").contains("no setting 'norm'"));
        assert!(message("cw-l2:c=0").contains("c above 0"));
        assert!(message("cw-l2-t:searches=0").contains("at least one search"));
        assert!(message("dra:norm=l2").contains("no setting 'norm'"));
        assert!(message("fgsm:steps=2").contains("no setting 'steps'"));
    }
}
