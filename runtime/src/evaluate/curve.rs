//! Robust accuracy as a function of the radius, and its mean over the radii.

use serde::{Deserialize, Serialize};

use super::{Order, Outcome, count_of};
use crate::attacks::AttackSpec;
use crate::ops::Norm;
use crate::report::{fraction, wilson};

/// How many images withstand the attacks of one norm, radius by radius.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Curve {
    pub norm: String,
    /// From radius 0, the clean images, up.
    pub points: Vec<CurvePoint>,
    /// Expected robustness: the mean robust accuracy when the radius is uniform between 0 and the
    /// largest measured, with straight lines between the points (Epsilon-scheduling,
    /// arXiv:2509.23325).
    pub expected: f64,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct CurvePoint {
    pub eps: f64,
    /// Images that withstand every attack of this radius and of all smaller ones: what fools a model in
    /// a small ball is in each larger one as well.
    pub robust_correct: u64,
    /// Part of all images, 0 to 1.
    pub robust_accuracy: f64,
    /// Wilson's interval of 95% confidence.
    pub interval: [f64; 2],
}

impl Outcome {
    /// A curve for each norm that has attacks of two radii or more besides 0.
    pub fn curves(&self, attacks: &[AttackSpec]) -> Vec<Curve> {
        [Norm::Linf, Norm::L2].into_iter().filter_map(|norm| self.curve(norm, attacks)).collect()
    }

    fn curve(&self, norm: Norm, attacks: &[AttackSpec]) -> Option<Curve> {
        let mut of_norm: Vec<(f32, &[bool])> = attacks
            .iter()
            .zip(&self.robust)
            .filter(|(a, _)| a.norm_name() == norm.to_string() && a.ball.eps > 0.0)
            .map(|(a, robust)| (a.ball.eps, &robust[..]))
            .collect();
        // What fell to an attack before, in a larger ball, says nothing about a smaller one.
        if self.order == Order::InTurn && !of_norm.is_sorted_by_key(|(eps, _)| *eps) {
            return None;
        }
        of_norm.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut left = self.clean.clone();
        let mut points = vec![self.point(0.0, &left)];
        for same in of_norm.chunk_by(|a, b| a.0 == b.0) {
            for (_, robust) in same {
                left.iter_mut().zip(*robust).for_each(|(left, robust)| *left &= robust);
            }
            points.push(self.point(same[0].0, &left));
        }
        let expected = expected(&points);
        (points.len() > 2).then(|| Curve { norm: norm.to_string(), points, expected })
    }

    fn point(&self, eps: f32, left: &[bool]) -> CurvePoint {
        let (correct, images) = (count_of(left), left.len() as u64);
        CurvePoint {
            eps: f64::from(eps),
            robust_correct: correct,
            robust_accuracy: fraction(correct, images),
            interval: wilson(correct, images),
        }
    }
}

/// The area under the points, by the trapezoid rule, over the width.
fn expected(points: &[CurvePoint]) -> f64 {
    let width = points.last().map_or(0.0, |p| p.eps) - points.first().map_or(0.0, |p| p.eps);
    let part = |p: &[CurvePoint]| (p[1].eps - p[0].eps) * (p[0].robust_accuracy + p[1].robust_accuracy) / 2.0;
    if width > 0.0 { points.windows(2).map(part).sum::<f64>() / width } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(order: Order) -> (Outcome, Vec<AttackSpec>) {
        let specs = ["pgd:eps=0.2", "square:eps=0.1", "pgd:eps=0.1", "pgd:norm=l2,eps=1"];
        let outcome = Outcome {
            clean: vec![true, true, true, false],
            robust: vec![
                // In the larger ball the attack missed the image that falls in the smaller one.
                vec![false, true, true, false],
                vec![true, false, true, false],
                vec![true; 4],
                vec![false; 4],
            ],
            order,
            ..Outcome::default()
        };
        (outcome, specs.map(|text| AttackSpec::parse(text, None, None).unwrap()).to_vec())
    }

    #[test]
    fn points_are_worst_cases_up_to_their_radius() {
        let (outcome, specs) = outcome(Order::Independent);
        let curves = outcome.curves(&specs);
        assert_eq!(curves.len(), 1, "one radius makes no curve");
        let points: Vec<_> = curves[0].points.iter().map(|p| (p.eps as f32, p.robust_correct)).collect();
        assert_eq!(points, [(0.0, 3), (0.1, 2), (0.2, 1)]);
        // Trapezoids: (3/4 + 2/4) / 2 and (2/4 + 1/4) / 2, of equal width.
        assert!((curves[0].expected - 0.5).abs() < 1e-7, "{}", curves[0].expected);
    }

    #[test]
    fn radii_out_of_turn_make_no_curve() {
        let (mut outcome, mut specs) = outcome(Order::InTurn);
        assert!(outcome.curves(&specs).is_empty());
        specs.swap(0, 2);
        outcome.robust.swap(0, 2);
        assert_eq!(outcome.curves(&specs)[0].points.len(), 3);
    }
}
