//! Signs that a number says less than it seems to. `tools/docs/warnings.md` tells what each flag means and
//! what to do about it.

use super::{LossRise, Order, Outcome, count_of};
use crate::attacks::{AttackSpec, show_fraction};
use crate::ops::{LogitLossKind, Norm};
use crate::report::Warning;

/// What AutoAttack's authors allow Square to find that gradients did not, as a part of the images; we
/// allow transfer the same.
const SQUARE_ALLOWANCE: f64 = 0.002;

/// An linf ball that nothing withstands: any image can become uniform grey in it.
const HUGE_EPS: f32 = 0.5;

/// Images from which accuracies are compared with chance, and with each other.
const ENOUGH_IMAGES: f64 = 100.0;

/// A ball so many times larger fools some image more, if the attack works at all.
const FLAT_FACTOR: f32 = 3.999;

/// A radius or a step as people write it.
fn radius(value: f32) -> String {
    show_fraction(f64::from(value))
}

impl Outcome {
    /// All warnings. `classes` is the number that the model tells apart.
    pub(super) fn warnings(&self, attacks: &[AttackSpec], classes: usize) -> Vec<Warning> {
        let mut warnings = Vec::new();
        self.about_model(attacks, classes, &mut warnings);
        for (i, attack) in attacks.iter().enumerate() {
            self.about_attack(i, attack, attacks, &mut warnings);
        }
        warnings
    }

    fn about_model(&self, attacks: &[AttackSpec], classes: usize, warnings: &mut Vec<Warning>) {
        let mut warn = |flag: &str, message: String| warnings.push(Warning { flag: flag.into(), message });
        let images = self.clean.len() as f64;
        let clean = self.clean_correct() as f64 / images.max(1.0);
        let chance = 1.0 / classes as f64;
        let deviation = (chance * (1.0 - chance) / images.max(1.0)).sqrt();
        if images >= ENOUGH_IMAGES && clean < chance + 3.0 * deviation {
            warn(
                "clean-near-chance",
                format!(
                    "clean accuracy {:.1}% is what guessing among {classes} classes gives: check --mean and --std, \
                     the order of the classes, and that the data is what the model was trained on",
                    100.0 * clean
                ),
            );
        }
        if !self.absent_classes.is_empty() && images >= ENOUGH_IMAGES {
            let (absent, plural) = (self.absent_classes.len(), self.absent_classes.len() != 1);
            warn(
                "absent-class",
                format!(
                    "{absent} of the model's {classes} classes {} no image among these: the accuracies say nothing \
                     about {}",
                    if plural { "have" } else { "has" },
                    if plural { "them" } else { "it" }
                ),
            );
        }
        if self.signs.not_finite > 0 {
            warn(
                "non-finite-logits",
                format!(
                    "{} image(s) of the first batch have logits that are not finite: they count as misclassified; \
                     check the weights and --mean and --std",
                    self.signs.not_finite
                ),
            );
        }
        if self.signs.constant {
            warn(
                "constant-logits",
                "every image of the first batch has the same logits: the model does not see its input".into(),
            );
        }
        if self.signs.randomized {
            warn(
                "randomized",
                "the same images got different logits: gradients of a model that answers at random mislead \
                 attacks, and its robustness is overestimated"
                    .into(),
            );
        }
        if self.signs.probabilities {
            warn(
                "softmax-output",
                "the model's output is a probability distribution: gradients vanish where it is sure of itself; \
                 export the model without its softmax"
                    .into(),
            );
        }
        if self.zero_gradients > 0 {
            warn(
                "zero-gradient",
                format!(
                    "{} image(s) have a gradient of exactly zero: attacks that follow the gradient cannot move \
                     them, and their robustness is overestimated",
                    self.zero_gradients
                ),
            );
        }
        let right = self.clean_correct() as f64;
        let guessing = chance + 3.0 * (chance * (1.0 - chance) / right.max(1.0)).sqrt();
        for (n, &correct) in self.surrogate_correct.iter().enumerate() {
            let part = correct as f64 / right.max(1.0);
            if right >= ENOUGH_IMAGES && part < guessing {
                warn(
                    "surrogate-near-chance",
                    format!(
                        "surrogate {} gets {:.1}% right of the images that the model gets right, as guessing would: \
                         what fools it says nothing; check its normalisation and the order of its classes",
                        n + 1,
                        100.0 * part
                    ),
                );
            }
        }
        let needs = |kind: &str| match kind {
            "apgd-dlr" => LogitLossKind::Dlr.classes(),
            "apgd-t" => LogitLossKind::TargetDlr.classes(),
            _ => 0,
        };
        let replaced: Vec<&str> =
            attacks.iter().map(|a| a.kind.as_str()).filter(|kind| needs(kind) > classes).collect();
        if !replaced.is_empty() {
            warn(
                "few-classes",
                format!(
                    "with {classes} classes the difference of logits ratio is not defined: {} takes the plain \
                     difference of logits instead",
                    replaced.join(" and ")
                ),
            );
        }
    }

    fn about_attack(
        &self,
        i: usize,
        attack: &AttackSpec,
        attacks: &[AttackSpec],
        warnings: &mut Vec<Warning>,
    ) {
        let mut warn = |flag: &str, message: String| warnings.push(Warning { flag: flag.into(), message });
        let robust = self.robust_correct(i);
        let images = self.clean.len() as f64;
        // Those that look for more than one step's worth along the gradient of the cross-entropy.
        let climbs = matches!(attack.kind.as_str(), "fgsm" | "bim" | "pgd" | "mi-fgsm");
        let rise = self.signs.loss_rise.get(i).and_then(LossRise::mean);
        // Written so that NaN is a sign, too.
        if climbs
            && attack.ball.eps > 0.0
            && rise.is_some_and(|rise| rise.partial_cmp(&0.0).is_none_or(|o| o.is_le()))
        {
            warn(
                "loss-not-rising",
                format!(
                    "{} did not raise the loss of the images that it attacked: the model hides its gradients, or \
                     the step of {} is far too long",
                    attack.kind,
                    radius(attack.step)
                ),
            );
        }
        if attack.norm_name() == Norm::Linf.to_string() && attack.ball.eps >= HUGE_EPS && robust > 0 {
            warn(
                "robust-at-huge-eps",
                format!(
                    "{robust} images withstand {} at eps {}, where every image can become grey: the attack does \
                     not work on this model, and its other numbers are overestimates",
                    attack.kind,
                    radius(attack.ball.eps)
                ),
            );
        }
        if self.order == Order::Independent {
            self.about_pairs(i, attack, attacks, &mut warn);
        }
        if !attack.white_box() {
            let white: Vec<usize> = (0..i).filter(|&j| attacks[j].white_box()).collect();
            let stood: Vec<bool> =
                (0..self.clean.len()).map(|n| white.iter().all(|&j| self.robust[j][n])).collect();
            let fell =
                stood.iter().zip(&self.robust[i]).filter(|(stood, robust)| **stood && !**robust).count();
            if !white.is_empty() && fell as f64 > SQUARE_ALLOWANCE * images {
                let (flag, what) = match attack.is_transferred() {
                    true => ("transfer-beats-gradients", "Images made against the surrogate"),
                    false => ("square-beats-gradients", "Square, which sees no gradient,"),
                };
                warn(
                    flag,
                    format!(
                        "{what} fooled the model on {fell} images that withstood the {} attacks by its own gradient: \
                         gradients mislead on this model, and its robustness is overestimated",
                        white.len()
                    ),
                );
            }
        }
    }

    /// Comparisons of attack `i` with one that should be weaker.
    fn about_pairs(
        &self,
        i: usize,
        attack: &AttackSpec,
        attacks: &[AttackSpec],
        warn: &mut impl FnMut(&str, String),
    ) {
        let robust = count_of(&self.robust[i]);
        let grown = |other: &AttackSpec| {
            let same = (&other.kind, other.ball.norm) == (&attack.kind, attack.ball.norm);
            same && other.ball.eps > 0.0
                && attack.ball.eps >= FLAT_FACTOR * other.ball.eps
                && attack.steps >= other.steps
        };
        let flat = |j: &usize| grown(&attacks[*j]) && count_of(&self.robust[*j]) == robust;
        if let Some(j) = (0..attacks.len()).find(flat)
            && robust > 0
            && self.clean.len() as f64 >= ENOUGH_IMAGES
        {
            warn(
                "flat-in-eps",
                format!(
                    "{} leaves {robust} images robust at eps {} as at {}: a larger ball should fool more; the attack \
                     does not work on this model, or the model masks its gradients",
                    attack.kind,
                    radius(attack.ball.eps),
                    radius(attacks[j].ball.eps)
                ),
            );
        }
        for (j, other) in attacks.iter().enumerate().filter(|&(j, _)| j != i) {
            let before = count_of(&self.robust[j]);
            if robust <= before {
                continue;
            }
            if attack.kind == "pgd" && other.kind == "fgsm" && attack.ball == other.ball {
                warn(
                    "pgd-weaker-than-fgsm",
                    format!(
                        "PGD with {} steps leaves {robust} images robust, FGSM only {before}: its step or number \
                         of steps is wrong, or the model masks its gradients",
                        attack.steps
                    ),
                );
            }
            let larger = attack.ball.norm == other.ball.norm && attack.ball.eps > other.ball.eps;
            if attack.kind == other.kind && larger && attack.steps >= other.steps {
                warn(
                    "larger-eps-weaker",
                    format!(
                        "{} leaves {robust} images robust at eps {}, but only {before} at the smaller {}: the \
                         attack does not converge, or the model masks its gradients",
                        attack.kind,
                        radius(attack.ball.eps),
                        radius(other.ball.eps)
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Signs;

    fn rise(sum: f64) -> LossRise {
        LossRise { sum, images: 1 }
    }

    /// `robust[i]` of 1,000 images withstand attack `i`; the first of the data always.
    fn outcome(robust: &[usize]) -> Outcome {
        Outcome {
            clean: vec![true; 1000],
            robust: robust.iter().map(|&r| (0..1000).map(|n| n < r).collect()).collect(),
            seconds: vec![0.0; robust.len()],
            signs: Signs { loss_rise: vec![rise(1.0); robust.len()], ..Signs::default() },
            ..Outcome::default()
        }
    }

    fn specs(texts: &[&str]) -> Vec<AttackSpec> {
        texts.iter().map(|text| AttackSpec::parse(text, None, None).unwrap()).collect()
    }

    fn flags(outcome: &Outcome, attacks: &[&str]) -> Vec<String> {
        let warnings = outcome.warnings(&specs(attacks), 10);
        warnings.into_iter().map(|w| w.flag).collect()
    }

    #[test]
    fn a_sound_model_has_none() {
        assert_eq!(flags(&outcome(&[500, 400, 399]), &["fgsm", "pgd", "square"]), Vec::<String>::new());
    }

    #[test]
    fn signs_of_the_model() {
        let mut outcome = outcome(&[]);
        outcome.clean = (0..1000).map(|n| n < 100).collect();
        outcome.zero_gradients = 1;
        outcome.absent_classes = vec![3];
        outcome.signs =
            Signs { randomized: true, probabilities: true, constant: true, not_finite: 1, loss_rise: vec![] };
        let expected = [
            "clean-near-chance",
            "absent-class",
            "non-finite-logits",
            "constant-logits",
            "randomized",
            "softmax-output",
            "zero-gradient",
        ];
        assert_eq!(flags(&outcome, &[]), expected);
    }

    #[test]
    fn a_surrogate_that_guesses_is_doubted() {
        let of = |correct, images| {
            let mut outcome = outcome(&[]);
            outcome.clean = vec![true; images];
            outcome.surrogate_correct = vec![images as u64, correct];
            outcome.warnings(&[], 10).pop()
        };
        let warning = of(105, 1000).expect("a tenth is what guessing gives");
        assert!(
            warning.flag == "surrogate-near-chance" && warning.message.starts_with("surrogate 2 gets 10.5%")
        );
        assert_eq!((of(300, 1000), of(5, 50)), (None, None), "better than that, or too few to tell");
    }

    #[test]
    fn few_classes_change_the_loss() {
        let warnings = |classes| outcome(&[1, 1]).warnings(&specs(&["apgd-dlr", "apgd-t"]), classes);
        assert!(warnings(2)[0].message.contains("apgd-dlr and apgd-t"));
        assert!(warnings(3)[0].message.contains("ratio is not defined: apgd-t takes"));
        assert!(warnings(4).is_empty());
    }

    #[test]
    fn attacks_that_do_not_work() {
        let mut still = outcome(&[500]);
        still.signs.loss_rise = vec![rise(0.0)];
        assert_eq!(flags(&still, &["pgd"]), ["loss-not-rising"]);
        let message = &still.warnings(&specs(&["pgd"]), 10)[0].message;
        assert!(message.contains("the step of 2/255 is"), "{message}");
        still.signs.loss_rise = vec![rise(f64::NAN)];
        assert_eq!(flags(&still, &["pgd"]), ["loss-not-rising"]);
        // Without an image to attack, or where the loss is another, nothing is said.
        still.signs.loss_rise = vec![LossRise::default()];
        assert!(flags(&still, &["pgd"]).is_empty());
        still.signs.loss_rise = vec![rise(-1.0)];
        assert!(flags(&still, &["apgd-ce"]).is_empty());
        assert_eq!(flags(&outcome(&[1]), &["pgd:eps=0.5"]), ["robust-at-huge-eps"]);
        assert!(flags(&outcome(&[0]), &["pgd:eps=0.5"]).is_empty());
    }

    #[test]
    fn attacks_that_contradict_each_other() {
        assert_eq!(flags(&outcome(&[400, 401]), &["fgsm", "pgd"]), ["pgd-weaker-than-fgsm"]);
        assert_eq!(flags(&outcome(&[400, 401]), &["pgd:eps=2/255", "pgd:eps=8/255"]), ["larger-eps-weaker"]);
        assert!(flags(&outcome(&[401, 400]), &["pgd:eps=2/255", "pgd:eps=8/255"]).is_empty());
        assert_eq!(flags(&outcome(&[400, 400]), &["pgd:eps=2/255", "pgd:eps=8/255"]), ["flat-in-eps"]);
        assert!(flags(&outcome(&[400, 400]), &["pgd:eps=4/255", "pgd:eps=8/255"]).is_empty());
        assert!(flags(&outcome(&[0, 0]), &["pgd:eps=2/255", "pgd:eps=8/255"]).is_empty());
        assert_eq!(flags(&outcome(&[400, 397]), &["apgd-ce", "square"]), ["square-beats-gradients"]);
        assert!(flags(&outcome(&[400, 398]), &["apgd-ce", "square"]).is_empty());
        assert!(flags(&outcome(&[400]), &["square"]).is_empty());
        let specs = |texts| specs(texts).into_iter().enumerate();
        let transferred: Vec<AttackSpec> =
            specs(&["pgd", "pgd"]).map(|(i, s)| if i == 1 { s.transferred() } else { s }).collect();
        let flag = |robust| outcome(robust).warnings(&transferred, 10).pop().map(|w| w.flag);
        assert_eq!(flag(&[400, 397]).as_deref(), Some("transfer-beats-gradients"));
        assert_eq!(flag(&[400, 500]), None);
    }
}
