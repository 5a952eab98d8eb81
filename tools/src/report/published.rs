//! Published results of robust training on CIFAR without extra data, to see a model among them: clean
//! accuracy and accuracy under AutoAttack, linf, 8/255, in percent.

use adamant::Tradeoff;

pub struct Published {
    pub name: &'static str,
    pub network: &'static str,
    pub clean: f64,
    pub robust: f64,
}

const fn result(name: &'static str, network: &'static str, clean: f64, robust: f64) -> Published {
    Published { name, network, clean, robust }
}

const WIDE: &str = "WRN-34-10";
const SMALL: &str = "ResNet-18";

/// Of ARREST (Suzuki et al., ICCV 2023), Tables 1 and 2; of AR-AT (Waseda et al., ICLR 2025), which
/// reports LBGAT on ResNet-18, too.
static CIFAR10: [Published; 11] = [
    result("AT", WIDE, 87.14, 44.04),
    result("LAS-AT", WIDE, 86.23, 53.58),
    result("AWP", WIDE, 85.57, 54.04),
    result("S2O", WIDE, 85.67, 54.10),
    result("LBGAT", WIDE, 88.22, 52.18),
    result("ARREST", WIDE, 90.24, 50.20),
    result("AR-AT", WIDE, 90.89, 50.77),
    result("AT", SMALL, 84.71, 44.19),
    result("ARREST", SMALL, 86.63, 46.14),
    result("LBGAT", SMALL, 85.00, 48.85),
    result("AR-AT", SMALL, 87.82, 49.02),
];

/// ARREST, Table 1.
static CIFAR100: [Published; 6] = [
    result("AT", WIDE, 59.59, 22.86),
    result("LAS-AT", WIDE, 61.80, 29.03),
    result("AWP", WIDE, 60.38, 28.86),
    result("S2O", WIDE, 63.40, 27.60),
    result("LBGAT", WIDE, 70.25, 26.73),
    result("ARREST", WIDE, 73.05, 24.32),
];

pub const SOURCES: &str = "Suzuki et al., ARREST, ICCV 2023, Tables 1 and 2; Waseda et al., AR-AT, ICLR 2025";

/// The results on the data that a curve is of.
pub fn results(data: Tradeoff) -> &'static [Published] {
    match data {
        Tradeoff::Cifar10 => &CIFAR10,
        Tradeoff::Cifar100 => &CIFAR100,
    }
}
