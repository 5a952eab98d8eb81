//! ARDist, the distance of a model from the trade-off between accuracy and robustness that others
//! reached (Suzuki et al., "ARREST", ICCV 2023, section 5.1): Euclidean, in percent points, from the
//! point (standard accuracy, AutoAttack accuracy) to a cubic fitted to published results, positive
//! above it.

use serde::{Deserialize, Serialize};

/// Whose published results.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tradeoff {
    Cifar10,
    Cifar100,
}

/// A distance, and whether it means anything.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ardist {
    pub curve: Tradeoff,
    /// Percent points; positive is better than the curve.
    pub distance: f64,
    /// Whether the accuracy is one that the curve was fitted to. Beyond it, the curve turns: a model
    /// with no robustness at all can lie above it.
    pub in_range: bool,
}

impl Tradeoff {
    /// The curve for a data set of this name.
    pub fn of(data: &str) -> Option<Self> {
        match data {
            "cifar10" => Some(Self::Cifar10),
            "cifar100" => Some(Self::Cifar100),
            _ => None,
        }
    }

    /// From the cubic term to the constant, as printed in the paper.
    const fn coefficients(self) -> [f64; 4] {
        match self {
            Self::Cifar10 => [9.877e-5, -0.3922, 63.82, -2600.0],
            Self::Cifar100 => [5.615e-4, -0.1582, 12.44, -271.8],
        }
    }

    /// The standard accuracies, in percent, from where the curve is highest to a little past the last
    /// result that the paper prints.
    pub const fn range(self) -> [f64; 2] {
        match self {
            Self::Cifar10 => [84.1, 91.0],
            Self::Cifar100 => [56.0, 74.0],
        }
    }

    /// The robust accuracy at a standard one, both in percent.
    pub fn robust_at(self, standard: f64) -> f64 {
        self.coefficients().iter().fold(0.0, |sum, c| sum * standard + c)
    }

    /// The distance of a model, whose accuracies are in percent, from the curve.
    pub fn distance(self, standard: f64, robust: f64) -> Ardist {
        let squared = |x: f64| (x - standard).powi(2) + (self.robust_at(x) - robust).powi(2);
        // The square has several minima: the nearest point of a grid is in the valley of the lowest.
        const GRID: u32 = 20_000;
        let at = |i: u32| 100.0 * f64::from(i) / f64::from(GRID);
        let nearest = (0..=GRID).min_by(|&a, &b| squared(at(a)).total_cmp(&squared(at(b)))).unwrap_or(0);
        let (mut low, mut high) = (at(nearest.saturating_sub(1)), at((nearest + 1).min(GRID)));
        for _ in 0..100 {
            let third = (high - low) / 3.0;
            if squared(low + third) <= squared(high - third) { high -= third } else { low += third }
        }
        let distance = squared(0.5 * (low + high)).sqrt();
        let [least, most] = self.range();
        Ardist {
            curve: self,
            distance: if robust >= self.robust_at(standard) { distance } else { -distance },
            in_range: (least..=most).contains(&standard),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 1 of the paper. Of AWP on CIFAR-100 it prints 2.424, which no rounding of its inputs and no
    /// change of the coefficients that leaves the other rows alone can give.
    #[test]
    fn the_papers_table() {
        use Tradeoff::{Cifar10, Cifar100};
        for (name, curve, standard, robust, expected) in [
            ("AT", Cifar10, 87.14, 44.04, -1.500),
            ("LAS-AT", Cifar10, 86.23, 53.58, 2.236),
            ("AWP", Cifar10, 85.57, 54.04, 2.314),
            ("S2O", Cifar10, 85.67, 54.10, 2.410),
            ("LBGAT", Cifar10, 88.22, 52.18, 2.706),
            ("ARREST", Cifar10, 90.24, 50.20, 3.521),
            ("AT", Cifar100, 59.59, 22.86, -3.268),
            ("LAS-AT", Cifar100, 61.80, 29.03, 3.189),
            ("AWP", Cifar100, 60.38, 28.86, 2.434),
            ("S2O", Cifar100, 63.40, 27.60, 2.786),
            ("LBGAT", Cifar100, 70.25, 26.73, 6.639),
            ("ARREST", Cifar100, 73.05, 24.32, 7.165),
        ] {
            let found = curve.distance(standard, robust);
            assert!(
                (found.distance - expected).abs() <= 1e-3,
                "{name}, {curve:?}: {found:?}, not {expected}"
            );
            assert!(found.in_range, "{name}, {curve:?}");
        }
    }

    #[test]
    fn the_sign_tells_the_side() {
        for (curve, x) in [(Tradeoff::Cifar10, 88.0), (Tradeoff::Cifar100, 65.0)] {
            let on = curve.robust_at(x);
            assert!(curve.distance(x, on).distance.abs() < 1e-6);
            assert!(curve.distance(x, on + 0.5).distance > 0.0);
            assert!(curve.distance(x, on - 0.5).distance < 0.0);
        }
    }

    /// A plain network without any robustness is 0.6 from the curve: the flag says that this is nothing.
    #[test]
    fn outside_its_range_it_is_flagged() {
        let plain = Tradeoff::Cifar10.distance(95.37, 0.0);
        assert!(!plain.in_range && (plain.distance - -0.579).abs() < 1e-2, "{plain:?}");
        assert!(!Tradeoff::Cifar10.distance(f64::NAN, 0.0).in_range);
        assert!(!Tradeoff::Cifar100.distance(20.0, 10.0).in_range);
        assert_eq!(Tradeoff::of("mnist"), None);
    }
}
