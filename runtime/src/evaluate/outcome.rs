//! What an evaluation found, image by image: enough to report it, to go on, and to put parts together.

use serde::{Deserialize, Serialize};

use super::{Order, Signs};
use crate::attacks::{AttackSpec, Passes};
use crate::error::{Error, Result};
use crate::report::{AttackResult, CleanResult, EvaluationReport, WorstCase};

/// Which images were classified correctly, in file order.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    #[serde(with = "bits")]
    pub clean: Vec<bool>,
    /// For each attack: correct both clean and attacked; of attacks in turn, also by those before.
    #[serde(with = "bits::many")]
    pub robust: Vec<Vec<bool>>,
    /// For each attack: seconds spent.
    pub seconds: Vec<f64>,
    /// For each attack: passes through the network, summed over the images that it met; results of
    /// earlier versions have none.
    #[serde(default)]
    pub passes: Vec<Passes>,
    /// For each attack that looks for the nearest misclassified image, how far away those are that it
    /// found, in its norm, the nearest first; empty for the others.
    #[serde(default)]
    pub distances: Vec<Vec<f32>>,
    /// For each surrogate: how many it gets right of the images that the model gets right.
    #[serde(default)]
    pub surrogate_correct: Vec<u64>,
    /// Images whose gradient was exactly zero everywhere at the clean image.
    pub zero_gradients: usize,
    pub order: Order,
    pub signs: Signs,
    /// Classes that no image has.
    pub absent_classes: Vec<usize>,
}

impl Outcome {
    pub fn clean_correct(&self) -> u64 {
        count_of(&self.clean)
    }

    /// The images that attack `index` meets.
    pub(super) fn before(&self, index: usize) -> &Vec<bool> {
        match self.order {
            Order::InTurn if index > 0 => &self.robust[index - 1],
            _ => &self.clean,
        }
    }

    /// Images that withstood attack `index`.
    pub fn robust_correct(&self, index: usize) -> u64 {
        count_of(&self.robust[index])
    }

    /// Images that withstood every attack.
    pub fn worst_case(&self) -> u64 {
        (0..self.clean.len()).filter(|&n| self.clean[n] && self.robust.iter().all(|r| r[n])).count() as u64
    }

    /// Mean and median distance of the misclassified images that attack `index` found, and how many they
    /// are; `None` where it does not look for the nearest, or found none.
    pub fn distance(&self, index: usize) -> Option<Distance> {
        let found = self.distances.get(index)?;
        let middle = found.len() / 2;
        let median = match found.len() {
            0 => return None,
            n if n % 2 == 1 => f64::from(found[middle]),
            _ => 0.5 * (f64::from(found[middle - 1]) + f64::from(found[middle])),
        };
        let mean = found.iter().copied().map(f64::from).sum::<f64>() / found.len() as f64;
        Some(Distance { found: found.len(), mean, median })
    }

    /// The outcome in the words of `evaluate --json`.
    pub fn report(&self, attacks: &[AttackSpec], context: &ReportContext<'_>) -> EvaluationReport {
        let images = self.clean.len() as u64;
        let results: Vec<AttackResult> = attacks
            .iter()
            .enumerate()
            .map(|(i, spec)| {
                let mut result = AttackResult {
                    name: spec.kind.clone(),
                    norm: spec.norm_name(),
                    eps: f64::from(spec.ball.eps),
                    step: f64::from(spec.step),
                    steps: spec.steps,
                    restarts: spec.restarts,
                    robust_correct: 0,
                    robust_accuracy: 0.0,
                    seconds: self.seconds[i],
                };
                result.set_correct(self.robust_correct(i), images);
                result
            })
            .collect();
        EvaluationReport {
            schema: EvaluationReport::SCHEMA,
            model: context.model.to_owned(),
            data: context.data.to_owned(),
            split: context.split.to_owned(),
            images,
            seed: context.seed,
            device: context.device.to_owned(),
            clean: CleanResult::new(self.clean_correct(), images),
            warnings: self.warnings(attacks, context.classes),
            worst_case: WorstCase::new(self.worst_case(), images),
            attacks: results,
        }
    }

    /// Adds what was found on the images that follow these: another part of one evaluation.
    ///
    /// # Errors
    /// [`Error::Config`] when the parts met other attacks.
    pub fn append(&mut self, other: &Self) -> Result<()> {
        if (self.order, self.robust.len()) != (other.order, other.robust.len()) {
            return Err(Error::Config(
                "parts of an evaluation have the same attacks in the same order".into(),
            ));
        }
        self.clean.extend(&other.clean);
        for (mine, theirs) in self.robust.iter_mut().zip(&other.robust) {
            mine.extend(theirs);
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            *mine += theirs;
        }
        // Of one part alone they would be wrong for the whole.
        if self.passes.len() == other.passes.len() {
            for (mine, theirs) in self.passes.iter_mut().zip(&other.passes) {
                mine.forwards += theirs.forwards;
                mine.gradients += theirs.gradients;
            }
        } else {
            self.passes.clear();
        }
        if self.distances.len() == other.distances.len() {
            for (mine, theirs) in self.distances.iter_mut().zip(&other.distances) {
                theirs.iter().for_each(|&distance| insert(mine, distance));
            }
        } else {
            self.distances.clear();
        }
        if self.surrogate_correct.len() == other.surrogate_correct.len() {
            let both = self.surrogate_correct.iter_mut().zip(&other.surrogate_correct);
            both.for_each(|(mine, theirs)| *mine += theirs);
        } else {
            self.surrogate_correct.clear();
        }
        self.zero_gradients += other.zero_gradients;
        self.signs.append(&other.signs);
        self.absent_classes.retain(|class| other.absent_classes.contains(class));
        Ok(())
    }

    /// Whether it is about `images` images and has what belongs to each of its attacks: what was read
    /// from a file need not.
    pub fn is_whole(&self, images: usize) -> bool {
        let attacks = self.robust.len();
        self.clean.len() == images
            && self.robust.iter().all(|r| r.len() == images)
            && self.seconds.len() == attacks
            && self.seconds.iter().all(|s| s.is_finite() && *s >= 0.0)
            && self.signs.loss_rise.len() == attacks
            && [self.passes.len(), self.distances.len()].iter().all(|&len| len == attacks || len == 0)
            && self.surrogate_correct.iter().all(|&right| right <= self.clean_correct())
            && self.distances.iter().all(|all| all.is_sorted() && all.iter().all(|d| d.is_finite()))
    }
}

/// Adds to numbers in order.
pub(super) fn insert(sorted: &mut Vec<f32>, value: f32) {
    let at = sorted.partition_point(|x| x.total_cmp(&value).is_lt());
    sorted.insert(at, value);
}

/// How far away the nearest misclassified images are.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Distance {
    /// Images that were found.
    pub found: usize,
    /// In the attack's norm, pixels in [0, 1].
    pub mean: f64,
    pub median: f64,
}

pub(super) fn count_of(flags: &[bool]) -> u64 {
    flags.iter().filter(|f| **f).count() as u64
}

/// What a report says about where its numbers come from.
pub struct ReportContext<'a> {
    pub model: &'a str,
    pub data: &'a str,
    pub split: &'a str,
    pub seed: u64,
    pub device: &'a str,
    pub classes: usize,
}

/// Yes and no as a text of 1 and 0: short, and it can be looked at.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    fn text(flags: &[bool]) -> String {
        flags.iter().map(|&f| if f { '1' } else { '0' }).collect()
    }

    fn flags<E: de::Error>(text: &str) -> Result<Vec<bool>, E> {
        let flag = |c| match c {
            '0' => Ok(false),
            '1' => Ok(true),
            _ => Err(E::custom(format!("'{c}' is neither 0 nor 1"))),
        };
        text.chars().map(flag).collect()
    }

    pub fn serialize<S: Serializer>(value: &[bool], serializer: S) -> Result<S::Ok, S::Error> {
        text(value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<bool>, D::Error> {
        flags(&String::deserialize(deserializer)?)
    }

    pub mod many {
        use super::{Deserialize, Deserializer, Serialize, Serializer};

        pub fn serialize<S: Serializer>(value: &[Vec<bool>], serializer: S) -> Result<S::Ok, S::Error> {
            value.iter().map(|flags| super::text(flags)).collect::<Vec<_>>().serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<bool>>, D::Error> {
            Vec::<String>::deserialize(deserializer)?.iter().map(|text| super::flags(text)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::LossRise;

    #[test]
    fn worst_case_counts_images_that_withstand_everything() {
        let outcome = Outcome {
            clean: vec![true, true, true, false],
            robust: vec![vec![true, true, false, false], vec![false, true, true, false]],
            seconds: vec![0.0; 2],
            ..Outcome::default()
        };
        assert_eq!((outcome.clean_correct(), outcome.robust_correct(0), outcome.worst_case()), (3, 2, 1));
    }

    fn part(clean: &[bool], robust: &[bool], absent: &[usize]) -> Outcome {
        let rise = LossRise { sum: clean.len() as f64, images: clean.len() };
        Outcome {
            clean: clean.to_vec(),
            robust: vec![robust.to_vec()],
            seconds: vec![1.5],
            absent_classes: absent.to_vec(),
            passes: vec![Passes { forwards: 2, gradients: 3 }],
            distances: vec![vec![clean.len() as f32]],
            surrogate_correct: vec![count_of(clean)],
            signs: Signs { loss_rise: vec![rise], ..Signs::default() },
            ..Outcome::default()
        }
    }

    #[test]
    fn parts_make_the_whole() {
        let mut all = part(&[true, true], &[true, false], &[1, 2]);
        all.append(&part(&[false], &[false], &[2, 3])).unwrap();
        let expected = part(&[true, true, false], &[true, false, false], &[2]);
        let passes = vec![Passes { forwards: 4, gradients: 6 }];
        let distances = vec![vec![1.0, 2.0]];
        let surrogate_correct = vec![2];
        assert_eq!(all, Outcome { seconds: vec![3.0], passes, distances, surrogate_correct, ..expected });
        assert_eq!(all.distance(0), Some(Distance { found: 2, mean: 1.5, median: 1.5 }));
        assert!(all.is_whole(3) && !all.is_whole(2));
        assert!(all.append(&Outcome::default()).is_err());
        // What one part does not know, the whole does not.
        let old = Outcome {
            passes: vec![],
            distances: vec![],
            surrogate_correct: vec![],
            ..part(&[true], &[true], &[])
        };
        all.append(&old).unwrap();
        assert!(all.is_whole(4) && all.passes.is_empty() && all.distance(0).is_none());
        assert!(all.surrogate_correct.is_empty());
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let outcome = Outcome { distances: vec![vec![1.0, 2.0, 9.0], vec![]], ..Outcome::default() };
        assert_eq!(outcome.distance(0), Some(Distance { found: 3, mean: 4.0, median: 2.0 }));
        assert_eq!((outcome.distance(1), outcome.distance(2)), (None, None));
    }

    #[test]
    fn flags_read_back_as_they_are_written() {
        let outcome = part(&[true, false, true], &[true, false, false], &[]);
        let text = toml::to_string(&outcome).unwrap();
        assert!(text.contains("clean = \"101\"") && text.contains("robust = [\"100\"]"), "{text}");
        assert_eq!(toml::from_str::<Outcome>(&text).unwrap(), outcome);
        assert!(toml::from_str::<Outcome>(&text.replace("101", "10x")).is_err());
    }
}
