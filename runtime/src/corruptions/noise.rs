//! Noise of sensors and of wires.

use super::picture::Picture;
use super::{Corruption, Group};

/// Normal noise; the parameter is its deviation.
pub(super) const GAUSSIAN: Corruption = Corruption {
    name: "gaussian_noise",
    group: Group::Noise,
    extra: false,
    differs: None,
    cifar: [&[0.04], &[0.06], &[0.08], &[0.09], &[0.1]],
    imagenet: [&[0.08], &[0.12], &[0.18], &[0.26], &[0.38]],
    apply: |picture, c, draws| each(picture, |v| v + draws.normal(0.0, c[0])),
};

/// Too few photons: the parameter is how many make white.
pub(super) const SHOT: Corruption = Corruption {
    name: "shot_noise",
    group: Group::Noise,
    extra: false,
    differs: None,
    cifar: [&[500.0], &[250.0], &[100.0], &[75.0], &[50.0]],
    imagenet: [&[60.0], &[25.0], &[12.0], &[5.0], &[3.0]],
    apply: |picture, c, draws| each(picture, |v| draws.poisson(v * c[0]) / c[0]),
};

/// Salt and pepper; the parameter is the part of all values that are hit.
pub(super) const IMPULSE: Corruption = Corruption {
    name: "impulse_noise",
    group: Group::Noise,
    extra: false,
    differs: None,
    cifar: [&[0.01], &[0.02], &[0.03], &[0.05], &[0.07]],
    imagenet: [&[0.03], &[0.06], &[0.09], &[0.17], &[0.27]],
    apply: |picture, c, draws| {
        each(picture, |v| {
            let (hit, salt) = (draws.unit() < c[0], draws.unit() < 0.5);
            if !hit {
                v
            } else if salt {
                1.0
            } else {
                0.0
            }
        });
    },
};

/// Normal noise in proportion to the value; the parameter is its deviation.
pub(super) const SPECKLE: Corruption = Corruption {
    name: "speckle_noise",
    group: Group::Noise,
    extra: true,
    differs: None,
    cifar: [&[0.06], &[0.1], &[0.12], &[0.16], &[0.2]],
    imagenet: [&[0.15], &[0.2], &[0.35], &[0.45], &[0.6]],
    apply: |picture, c, draws| each(picture, |v| v + v * draws.normal(0.0, c[0])),
};

fn each(picture: &mut Picture, mut f: impl FnMut(f64) -> f64) {
    picture.planes.iter_mut().flatten().for_each(|v| *v = f(*v));
}
