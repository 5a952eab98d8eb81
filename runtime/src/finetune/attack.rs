//! The adversary that training meets, as a recipe sets it: the axis `[attack]`.

use serde::{Deserialize, Serialize};

use super::friendly::Friendly;
use super::n_fgsm::NFgsm;
use crate::attacks::{Attack, AttackSpec, Ball, DRA_PART, DRA_RADIUS, Start, parse_fraction};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::ops::Norm;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttackKind {
    None,
    Fgsm,
    /// One step of 1.25 eps from a random start (Wong et al., 2020).
    FgsmRs,
    /// One step of eps from noise twice as large, unprojected (de Jorge et al., 2022).
    NFgsm,
    Bim,
    MiFgsm,
    Pgd,
    /// PGD towards another class, drawn at random for each image and batch (the ImageNet protocol of Balaji et
    /// al., 2019).
    PgdRandomTarget,
    /// Hou et al., 2022. `eps` bounds the mean change of an image.
    Dra,
    /// PGD that leaves an image alone soon after it is misclassified (Zhang et al., 2020).
    Friendly,
    /// The gradient that training has anyway moves the images; each batch comes `steps` times (Shafahi et
    /// al., 2019).
    Free,
    /// `steps` passes a batch, with `inner_steps` steps of the images through the first layer after each
    /// (Zhang et al., 2019).
    Yopo,
    /// Few steps from where the attack on an image ended in the epoch before (Zheng et al., 2020).
    Atta,
}

/// What the attack of training raises. The loss of training is chosen apart from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttackObjective {
    /// The cross-entropy of the label.
    #[default]
    Ce,
    /// The divergence from the prediction for the clean image (TRADES).
    Kl,
    /// The largest other logit less that of the label.
    Margin,
}

impl AttackObjective {
    /// The loss that is raised, where it is one of the logits and the label.
    pub(super) const fn loss(self) -> Loss {
        match self {
            Self::Ce | Self::Kl => Loss::CrossEntropy,
            Self::Margin => Loss::Margin,
        }
    }
}

/// A number that may be written as a fraction: `8/255`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fraction(pub f32);

impl Serialize for Fraction {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As a fraction of 255 only where that reads back as the same number.
        let eighths = (f64::from(self.0) * 255.0 * 8.0).round() / 8.0;
        let text = format!("{eighths}/255");
        if parse_fraction(&text).is_ok_and(|x| x == self.0) {
            serializer.serialize_str(&text)
        } else {
            serializer.serialize_str(&self.0.to_string())
        }
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(f64),
        }
        match Either::deserialize(deserializer)? {
            Either::Text(text) => parse_fraction(&text).map(Self).map_err(serde::de::Error::custom),
            Either::Number(number) => Ok(Self(number as f32)),
        }
    }
}

/// The table `[attack]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackConfig {
    pub kind: AttackKind,
    #[serde(default = "linf")]
    pub norm: Norm,
    /// Radius of the ball, in pixels of [0, 1]; for dra the bound of an image's mean change.
    #[serde(default = "zero")]
    pub eps: Fraction,
    /// Step length. When absent a quarter of eps; 1.25 eps for fgsm-rs, eps for n-fgsm and free, eps / steps
    /// for dra, eps / 2 for atta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Fraction>,
    #[serde(default = "one")]
    pub steps: u32,
    #[serde(default)]
    pub start: Start,
    #[serde(default)]
    pub objective: AttackObjective,
    /// How much of the guide's term of the loss the attack raises beside the cross-entropy: 1 is all of it. 0 when
    /// absent, as in ARREST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide: Option<f32>,
    /// Dra: the part of an image's values that change (p). 1/3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Fraction>,
    /// Friendly: steps that an image still takes once it is misclassified, in stages; [0, 1, 2] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tau: Option<Vec<u32>>,
    /// Friendly: the parts of the run after which the next stage of `tau` begins; [5/12, 3/4] when absent,
    /// none when only `tau` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tau_stages: Option<Vec<f64>>,
    /// Atta: images start anew in each epoch whose number is a multiple of this. 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_epochs: Option<u32>,
    /// Yopo: steps through the first layer after each pass (n). 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_steps: Option<u32>,
    /// Friendly: deviation of the normal noise that is added before each step (omega). 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f32>,
}

fn linf() -> Norm {
    Norm::Linf
}

fn zero() -> Fraction {
    Fraction(0.0)
}

fn one() -> u32 {
    1
}

impl AttackConfig {
    /// The radius of a ball in which this looks for the worst image, or one that is worth as much: what robustness
    /// is asked for in. `eps`, but for dra.
    pub fn radius(&self) -> f32 {
        self.eps.0 * self.radius_of_eps()
    }

    /// How many times eps [`AttackConfig::radius`] is.
    pub(super) const fn radius_of_eps(&self) -> f32 {
        match self.kind {
            AttackKind::Dra => DRA_RADIUS,
            _ => 1.0,
        }
    }

    /// The attack, or nothing for training on clean images.
    pub fn spec(&self) -> Option<AttackSpec> {
        self.spec_at(self.eps.0)
    }

    /// The same attack in a ball of another radius, with a step in proportion.
    pub fn spec_at(&self, eps: f32) -> Option<AttackSpec> {
        use AttackKind::{
            Atta, Bim, Dra, Fgsm, FgsmRs, Free, Friendly, MiFgsm, NFgsm, None, Pgd, PgdRandomTarget, Yopo,
        };
        let kind = match self.kind {
            None => return Option::None,
            Fgsm => "fgsm",
            Bim => "bim",
            MiFgsm => "mi-fgsm",
            Dra => "dra",
            PgdRandomTarget => "pgd-random-target",
            Pgd | FgsmRs | NFgsm | Friendly | Free | Atta | Yopo => "pgd",
        };
        let usual = match self.kind {
            FgsmRs => 1.25,
            NFgsm | Free => 1.0,
            Atta => 0.5,
            Dra => 1.0 / self.steps as f32,
            _ => 0.25,
        };
        let one_step = matches!(self.kind, FgsmRs | NFgsm);
        Some(AttackSpec {
            kind: kind.into(),
            ball: Ball { norm: self.norm, eps },
            step: self.step.map_or(eps * usual, |step| {
                if eps == self.eps.0 { step.0 } else { step.0 * (eps / self.eps.0) }
            }),
            steps: if one_step { 1 } else { self.steps },
            start: if one_step { Start::Random } else { self.start },
            restarts: 1,
            part: self.part.map_or(DRA_PART, |part| part.0),
            searches: 0,
            c: 0.0,
        })
    }

    /// What training runs in a ball of this radius in `epoch`, counted from 0, of `epochs`.
    pub fn build(&self, eps: f32, epoch: u32, epochs: u32) -> Option<Box<dyn Attack>> {
        let AttackSpec { ball, step, steps, start, .. } = self.spec_at(eps)?;
        Some(match self.kind {
            AttackKind::Friendly => {
                let (tau, noise) = (self.tau_at(epoch, epochs), self.noise.unwrap_or(0.0));
                Box::new(Friendly { ball, step, steps, start, tau, noise })
            }
            AttackKind::NFgsm => Box::new(NFgsm { ball, step }),
            _ => self.spec_at(eps)?.build(),
        })
    }

    /// Where that begins, as an attack without steps; nothing for those that do more than take steps.
    pub(super) fn start_at(&self, eps: f32) -> Option<Box<dyn Attack>> {
        let spec = self.spec_at(eps).filter(|_| self.kind == AttackKind::Pgd)?;
        Some(AttackSpec { steps: 0, ..spec }.build())
    }

    /// What an epoch is measured by: the attack itself where it looks for the worst image in its ball, PGD
    /// in the same ball where it looks for another.
    pub fn measure(&self) -> Option<AttackSpec> {
        let spec = self.spec()?;
        Some(match self.kind {
            AttackKind::Pgd | AttackKind::Fgsm | AttackKind::Bim | AttackKind::MiFgsm => spec,
            _ => AttackSpec {
                kind: "pgd".into(),
                ball: Ball { eps: self.radius(), ..spec.ball },
                step: self.radius() / 4.0,
                steps: 10,
                start: Start::Random,
                ..spec
            },
        })
    }

    /// Whether all steps together do not lead from the middle of the ball to its rim: such a ball is smaller than it
    /// is said to be.
    pub fn falls_short(&self) -> bool {
        use AttackKind::{Bim, Friendly, MiFgsm, Pgd, PgdRandomTarget};
        let walks = matches!(self.kind, Bim | Friendly | MiFgsm | Pgd | PgdRandomTarget);
        let reach = self.spec().map(|spec| spec.step * spec.steps as f32);
        reach.is_some_and(|reach| walks && reach < self.eps.0 * (1.0 - 1e-5))
    }

    /// Whether it raises another loss than `objective` says.
    const fn has_own_loss(&self) -> bool {
        matches!(
            self.kind,
            AttackKind::None | AttackKind::PgdRandomTarget | AttackKind::Free | AttackKind::Yopo
        )
    }

    /// Whether the first gradient is taken at the clean image.
    const fn starts_clean(&self) -> bool {
        match self.kind {
            AttackKind::Fgsm | AttackKind::Bim | AttackKind::MiFgsm | AttackKind::Dra => true,
            AttackKind::Pgd | AttackKind::PgdRandomTarget | AttackKind::Friendly => {
                matches!(self.start, Start::Clean)
            }
            AttackKind::None
            | AttackKind::FgsmRs
            | AttackKind::NFgsm
            | AttackKind::Free
            | AttackKind::Atta
            | AttackKind::Yopo => false,
        }
    }

    fn tau_values(&self) -> Vec<u32> {
        self.tau.clone().unwrap_or_else(|| vec![0, 1, 2])
    }

    fn tau_stages(&self) -> Vec<f64> {
        match (&self.tau_stages, &self.tau) {
            (Some(stages), _) => stages.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => vec![5.0 / 12.0, 0.75],
        }
    }

    /// Tau in `epoch`, counted from 0: a stage begins when its part of the run is over.
    fn tau_at(&self, epoch: u32, epochs: u32) -> u32 {
        let over = f64::from(epoch) / f64::from(epochs);
        let stage = self.tau_stages().iter().filter(|&&s| over >= s - 1e-9).count();
        self.tau_values()[stage]
    }

    pub(super) fn check(&self) -> Result<()> {
        let fault = |message: String| Err(Error::Config(message));
        if let Some(attack) = self.spec() {
            attack.check()?;
        }
        if self.objective == AttackObjective::Kl && self.starts_clean() {
            return fault(
                "attack.objective = kl has no gradient at the clean image; set attack.kind = pgd and \
                 attack.start = random or normal"
                    .into(),
            );
        }
        if let Some(part) = self.guide {
            if !(part.is_finite() && part >= 0.0) {
                return fault(format!("attack.guide = {part}: it is finite and not negative"));
            }
            if self.objective != AttackObjective::Ce || self.has_own_loss() {
                return fault(
                    "attack.guide is raised beside the cross-entropy: it needs attack.objective = ce, and an \
                     attack.kind other than none, pgd-random-target, free and yopo"
                        .into(),
                );
            }
        }
        if self.kind == AttackKind::PgdRandomTarget && self.objective != AttackObjective::Ce {
            return fault(
                "attack.kind = pgd-random-target has an objective of its own; leave out attack.objective"
                    .into(),
            );
        }
        let unread = |key: &str, kind: &str| {
            fault(format!("attack.{key} belongs to attack.kind = {kind}; set that, or leave it out"))
        };
        if self.part.is_some() && self.kind != AttackKind::Dra {
            return unread("part", "dra");
        }
        let of_friendly = [
            ("tau", self.tau.is_some()),
            ("tau_stages", self.tau_stages.is_some()),
            ("noise", self.noise.is_some()),
        ];
        if let Some((key, _)) = of_friendly.iter().find(|(_, set)| *set && self.kind != AttackKind::Friendly)
        {
            return unread(key, "friendly");
        }
        if self.reset_epochs.is_some() && self.kind != AttackKind::Atta {
            return unread("reset_epochs", "atta");
        }
        if self.inner_steps.is_some() && self.kind != AttackKind::Yopo {
            return unread("inner_steps", "yopo");
        }
        if self.inner_steps == Some(0) {
            return fault("attack.inner_steps is at least 1".into());
        }
        if self.reset_epochs == Some(0) {
            return fault("attack.reset_epochs is at least 1".into());
        }
        let only_linf = matches!(self.kind, AttackKind::Dra | AttackKind::NFgsm | AttackKind::Free);
        if only_linf && self.norm != Norm::Linf {
            return fault(format!(
                "attack.norm = {}: dra, n-fgsm and free have no other form than that of linf",
                self.norm
            ));
        }
        if self.kind == AttackKind::Free && self.step.is_some() {
            return fault("attack.step: a step of free is eps long; leave it out".into());
        }
        let shares = matches!(self.kind, AttackKind::Free | AttackKind::Yopo);
        if shares && self.objective != AttackObjective::Ce {
            return fault(
                "attack.kind = free or yopo follows the gradient of the loss; leave out attack.objective"
                    .into(),
            );
        }
        if self.kind == AttackKind::Dra && self.step.is_some() {
            return fault("attack.step: a step of dra is eps / steps long; leave it out".into());
        }
        let stages = self.tau_stages();
        let in_order = stages.is_sorted() && stages.iter().all(|s| (0.0..=1.0).contains(s));
        if self.tau_values().len() != stages.len() + 1 || !in_order {
            return fault(format!(
                "attack.tau = {:?}, attack.tau_stages = {stages:?}: one tau more than there are stages, which \
                 are parts of the run between 0 and 1, in order",
                self.tau_values()
            ));
        }
        match self.noise.filter(|n| !(n.is_finite() && *n >= 0.0)) {
            Some(noise) => fault(format!("attack.noise = {noise}: it is finite and not negative")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finetune::epsilon::EpsilonPolicy;
    use crate::finetune::{On, PRESETS, Recipe};

    #[test]
    fn tau_grows_where_the_authors_let_it() {
        let fat = Recipe::load("fat", &[]).unwrap().attack;
        assert_eq!([1, 50, 51, 90, 91, 120].map(|e| fat.tau_at(e - 1, 120)), [0, 0, 1, 1, 2, 2]);
        let mart = Recipe::load("fat-mart", &[]).unwrap().attack;
        let found = [1, 20, 21, 40, 41, 60, 61, 80, 81, 90].map(|e| mart.tau_at(e - 1, 90));
        assert_eq!(found, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        let trades = Recipe::load("fat-trades", &[]).unwrap().attack;
        let found = [30, 31, 50, 51, 70, 71, 85].map(|e| trades.tau_at(e - 1, 85));
        assert_eq!(found, [0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn steps_have_the_lengths_of_their_papers() {
        let attack = |name: &str, settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
            Recipe::load(name, &settings).unwrap().attack
        };
        let spec = attack("fast", &[]).spec().unwrap();
        assert_eq!((spec.steps, spec.start), (1, Start::Random));
        assert!((spec.step * 255.0 - 10.0).abs() < 1e-5);
        let dra = attack("dra", &[]);
        let spec = dra.spec_at(0.5 / 255.0).unwrap();
        assert_eq!((spec.steps, spec.part), (5, 1.0 / 3.0));
        assert!((spec.step * 255.0 - 0.1).abs() < 1e-6);
        // A search that stops early, or takes one step, is not what robustness is measured by.
        for (name, radius) in [("fast", 1.0), ("dra", 2.0), ("fat", 1.0)] {
            let own = attack(name, &[]);
            let spec = own.measure().unwrap();
            assert_eq!((spec.kind.as_str(), spec.steps, spec.start), ("pgd", 10, Start::Random), "{name}");
            assert_eq!(spec.ball.eps, radius * own.eps.0, "{name}");
            assert_eq!(spec.step, spec.ball.eps / 4.0, "{name}");
        }
        let madry = attack("madry", &["attack.steps=3"]);
        assert_eq!(madry.measure(), madry.spec());
    }

    #[test]
    fn steps_reach_the_rim() {
        for preset in PRESETS {
            for on in On::DATA {
                let recipe = Recipe::load_on(preset.name, &[on], &[]).unwrap();
                // MMA's steps follow from each ball.
                let sets_steps = recipe.epsilon.policy != EpsilonPolicy::Mma;
                assert!(!(sets_steps && recipe.attack.falls_short()), "{} on {on}", preset.name);
            }
        }
        let l2 = ["attack.norm=l2", "attack.eps=0.5"].map(String::from);
        assert!(Recipe::load("trades", &l2).unwrap().attack.falls_short());
    }

    #[test]
    fn fractions_print_as_they_were_written() {
        let shown = |x: f32| toml::Value::try_from(Fraction(x)).unwrap().to_string();
        assert_eq!(shown(8.0 / 255.0), "\"8/255\"");
        assert_eq!(shown(0.5 / 255.0), "\"0.5/255\"");
        assert_eq!(shown(0.3), "\"76.5/255\"");
        assert_eq!(shown(0.031), "\"0.031\"");
    }
}
