//! Weather: snow, frost, fog, light, and drops on the lens.

use super::picture::{Border, Draws, Picture, gaussian, motion, zoom};
use super::{Corruption, Group};

/// Mean and deviation of the flakes, how much they are enlarged, the threshold of what is snow, radius
/// and deviation of their fall, and the weight of the picture.
pub(super) const SNOW: Corruption = Corruption {
    name: "snow",
    group: Group::Weather,
    extra: false,
    differs: Some("the fall of the flakes is ImageMagick's formula, not its program"),
    cifar: [
        &[0.1, 0.2, 1.0, 0.6, 8.0, 3.0, 0.95],
        &[0.1, 0.2, 1.0, 0.5, 10.0, 4.0, 0.9],
        &[0.15, 0.3, 1.75, 0.55, 10.0, 4.0, 0.9],
        &[0.25, 0.3, 2.25, 0.6, 12.0, 6.0, 0.85],
        &[0.3, 0.3, 1.25, 0.65, 14.0, 12.0, 0.8],
    ],
    imagenet: [
        &[0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8],
        &[0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7],
        &[0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7],
        &[0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65],
        &[0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55],
    ],
    apply: snow,
};

/// The weights of the picture and of the frost.
pub(super) const FROST: Corruption = Corruption {
    name: "frost",
    group: Group::Weather,
    extra: false,
    differs: Some(
        "the frost is drawn, with the statistics of the five photographs that the authors lay over images",
    ),
    cifar: [&[1.0, 0.2], &[1.0, 0.3], &[0.9, 0.4], &[0.85, 0.4], &[0.75, 0.45]],
    imagenet: [&[1.0, 0.4], &[0.8, 0.6], &[0.7, 0.7], &[0.65, 0.7], &[0.6, 0.75]],
    apply: frost,
};

/// Strength, and how fast the fog gets smoother.
pub(super) const FOG: Corruption = Corruption {
    name: "fog",
    group: Group::Weather,
    extra: false,
    differs: None,
    cifar: [&[0.2, 3.0], &[0.5, 3.0], &[0.75, 2.5], &[1.0, 2.0], &[1.5, 1.75]],
    imagenet: [&[1.5, 2.0], &[2.0, 2.0], &[2.5, 1.7], &[2.5, 1.5], &[3.0, 1.4]],
    apply: |picture, c, draws| {
        let brightest = picture.planes.iter().flatten().fold(0.0, |a: f64, &b| a.max(b));
        let fog = plasma(picture.height, picture.width, c[1], draws);
        for plane in &mut picture.planes {
            let lit = |(v, fog): (&mut f64, &f64)| *v = (*v + c[0] * fog) * brightest / (brightest + c[0]);
            plane.iter_mut().zip(&fog).for_each(lit);
        }
    },
};

/// What is added to the value of each pixel.
pub(super) const BRIGHTNESS: Corruption = Corruption {
    name: "brightness",
    group: Group::Weather,
    extra: false,
    differs: None,
    cifar: [&[0.05], &[0.1], &[0.15], &[0.2], &[0.3]],
    imagenet: [&[0.1], &[0.2], &[0.3], &[0.4], &[0.5]],
    apply: |picture, c, _| picture.map_hsv(|[h, s, v]| [h, s, (v + c[0]).clamp(0.0, 1.0)]),
};

/// Mean and deviation of the liquid, its smoothness, the threshold, the strength of water or the
/// smoothness of mud, and whether it is mud.
pub(super) const SPATTER: Corruption = Corruption {
    name: "spatter",
    group: Group::Weather,
    extra: true,
    differs: Some("drops of water are lit by their own slope, not by OpenCV's edges and distances"),
    cifar: [
        &[0.62, 0.1, 0.7, 0.7, 0.5, 0.0],
        &[0.65, 0.1, 0.8, 0.7, 0.5, 0.0],
        &[0.65, 0.3, 1.0, 0.69, 0.5, 0.0],
        &[0.65, 0.1, 0.7, 0.69, 0.6, 1.0],
        &[0.65, 0.1, 0.5, 0.68, 0.6, 1.0],
    ],
    imagenet: [
        &[0.65, 0.3, 4.0, 0.69, 0.6, 0.0],
        &[0.65, 0.3, 3.0, 0.68, 0.6, 0.0],
        &[0.65, 0.3, 2.0, 0.68, 0.5, 0.0],
        &[0.65, 0.3, 1.0, 0.65, 1.5, 1.0],
        &[0.67, 0.4, 1.0, 0.65, 1.5, 1.0],
    ],
    apply: spatter,
};

/// Cloud-like heights in [0, 1], by the diamond-square algorithm on a torus.
fn plasma(height: usize, width: usize, decay: f64, draws: &mut Draws) -> Vec<f64> {
    let side = height.max(width).max(2).next_power_of_two();
    let mut map = vec![0.0; side * side];
    let (mut step, mut wibble) = (side, 100.0);
    while step >= 2 {
        let half = step / 2;
        let at = |y: usize, x: usize| (y % side) * side + x % side;
        for y in (0..side).step_by(step) {
            for x in (0..side).step_by(step) {
                let corners =
                    map[at(y, x)] + map[at(y + step, x)] + map[at(y, x + step)] + map[at(y + step, x + step)];
                map[at(y + half, x + half)] = corners / 4.0 + wibble * draws.uniform(-wibble, wibble);
            }
        }
        for y in (0..side).step_by(step) {
            for x in (0..side).step_by(step) {
                let (middle, corner) = (map[at(y + half, x + half)], map[at(y, x)]);
                let top = middle + map[at(y + side - half, x + half)] + corner + map[at(y, x + step)];
                let left = middle + map[at(y + half, x + side - half)] + corner + map[at(y + step, x)];
                map[at(y, x + half)] = top / 4.0 + wibble * draws.uniform(-wibble, wibble);
                map[at(y + half, x)] = left / 4.0 + wibble * draws.uniform(-wibble, wibble);
            }
        }
        step = half;
        wibble /= decay;
    }
    let low = map.iter().copied().fold(f64::INFINITY, f64::min);
    let high = map.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let range = (high - low).max(1e-12);
    let cut = |i: usize| (map[(i / width) * side + i % width] - low) / range;
    (0..height * width).map(cut).collect()
}

/// What OpenCV calls the grey of a colour.
fn grey(picture: &Picture) -> Vec<f64> {
    match &picture.planes[..] {
        [r, g, b] => {
            let mix = |i: usize| 0.299 * r[i] + 0.587 * g[i] + 0.114 * b[i];
            (0..r.len()).map(mix).collect()
        }
        planes => planes[0].clone(),
    }
}

fn snow(picture: &mut Picture, c: &[f64], draws: &mut Draws) {
    let (size, len) = ([picture.height, picture.width], picture.height * picture.width);
    let flakes: Vec<f64> = (0..len).map(|_| draws.normal(c[0], c[1])).collect();
    let mut flakes = zoom(&flakes, size, c[2]);
    for v in &mut flakes {
        // Through an image of bytes, as the authors' flakes go.
        *v = if *v < c[3] { 0.0 } else { (v.clamp(0.0, 1.0) * 255.0).floor() / 255.0 };
    }
    let fallen = motion(&flakes, size, c[4], c[5], draws.uniform(-135.0, -45.0));
    let grey = grey(picture);
    for plane in &mut picture.planes {
        for (i, v) in plane.iter_mut().enumerate() {
            let whiter = v.max(grey[i] * 1.5 + 0.5);
            *v = c[6] * *v + (1.0 - c[6]) * whiter + fallen[i] + fallen[len - 1 - i];
        }
    }
}

/// A frosted pane: its colour, how much the frost on it varies, and how much one part of it does from
/// another.
struct Pane {
    colour: [f64; 3],
    within: f64,
    between: f64,
}

const fn pane(colour: [f64; 3], within: f64, between: f64) -> Pane {
    Pane { colour, within, between }
}

/// Measured in parts of 32x32 of the authors' five photographs, reduced to a fifth as they do.
const PANES: [Pane; 5] = [
    pane([0.294, 0.579, 0.646], 0.055, 0.044),
    pane([0.781, 0.799, 0.835], 0.071, 0.036),
    pane([0.775, 0.793, 0.829], 0.070, 0.036),
    pane([0.558, 0.617, 0.667], 0.104, 0.042),
    pane([0.401, 0.445, 0.492], 0.132, 0.063),
];

/// Frost as bright and as rough as on one of the panes: grain on clouds, in proportions that give the
/// photographs' spectrum, which is finer in small images because those are reduced.
fn frost(picture: &mut Picture, c: &[f64], draws: &mut Draws) {
    let (height, width) = (picture.height, picture.width);
    let (grain, decay): (f64, f64) = if height.max(width) <= super::SMALL { (0.5, 1.3) } else { (0.0, 1.0) };
    let Pane { colour, within, between } = &PANES[draws.whole(0, PANES.len() as i64) as usize];
    let shift = draws.normal(0.0, *between);
    let mut clouds = plasma(height, width, decay, draws);
    standardize(&mut clouds);
    for v in &mut clouds {
        let crystals = (1.0 - grain).sqrt() * *v + grain.sqrt() * draws.normal(0.0, 1.0);
        *v = shift + within * crystals;
    }
    // A grey picture gets the middle of the colours.
    let grey = [colour.iter().sum::<f64>() / 3.0];
    let tints: &[f64] = if picture.planes.len() == 3 { colour } else { &grey };
    for (i, plane) in picture.planes.iter_mut().enumerate() {
        let tint = tints[i.min(tints.len() - 1)];
        for (v, cloud) in plane.iter_mut().zip(&clouds) {
            *v = c[0] * *v + c[1] * (tint + cloud).clamp(0.0, 1.0);
        }
    }
}

/// To mean 0 and deviation 1.
fn standardize(values: &mut [f64]) {
    let len = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / len;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / len).sqrt().max(1e-12);
    values.iter_mut().for_each(|v| *v = (*v - mean) / deviation);
}

fn spatter(picture: &mut Picture, c: &[f64], draws: &mut Draws) {
    let (size, len) = ([picture.height, picture.width], picture.height * picture.width);
    let liquid: Vec<f64> = (0..len).map(|_| draws.normal(c[0], c[1])).collect();
    let mut liquid = gaussian(&liquid, size, c[2], 4.0, Border::Nearest);
    liquid.iter_mut().for_each(|v| *v = if *v < c[3] { 0.0 } else { *v });
    if c[5] == 0.0 {
        let width = size[1];
        let pixel = |y: usize, x: usize| liquid[y.min(size[0] - 1) * width + x.min(width - 1)];
        let slope = |i: usize| {
            let (y, x) = (i / width, i % width);
            (1.0 + pixel(y + 1, x + 1) - pixel(y.saturating_sub(1), x.saturating_sub(1))).max(0.0)
        };
        let light: Vec<f64> = (0..len).map(|i| liquid[i] * slope(i)).collect();
        let most = light.iter().copied().fold(0.0, f64::max).max(1e-12);
        // Pale turquoise.
        for (plane, colour) in picture.planes.iter_mut().zip([175.0, 238.0, 238.0]) {
            let wet = |(v, l): (&mut f64, &f64)| *v += c[4] * l / most * colour / 255.0;
            plane.iter_mut().zip(&light).for_each(wet);
        }
    } else {
        let mud: Vec<f64> = liquid.iter().map(|&v| f64::from(u8::from(v > c[3]))).collect();
        let mut mud = gaussian(&mud, size, c[4], 4.0, Border::Nearest);
        mud.iter_mut().for_each(|v| *v = if *v < 0.8 { 0.0 } else { *v });
        for (plane, colour) in picture.planes.iter_mut().zip([63.0, 42.0, 20.0]) {
            let dirty = |(v, m): (&mut f64, &f64)| *v = *v * (1.0 - m) + colour / 255.0 * m;
            plane.iter_mut().zip(&mud).for_each(dirty);
        }
    }
}
