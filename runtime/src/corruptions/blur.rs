//! Blur of lenses, glass and motion.

use super::picture::{Border, Draws, Picture, gaussian, motion, zoom};
use super::{Corruption, Group};

/// Out of focus: radius of the disk, and the deviation that smooths its rim.
pub(super) const DEFOCUS: Corruption = Corruption {
    name: "defocus_blur",
    group: Group::Blur,
    extra: false,
    differs: None,
    cifar: [&[0.3, 0.4], &[0.4, 0.5], &[0.5, 0.6], &[1.0, 0.2], &[1.5, 0.1]],
    imagenet: [&[3.0, 0.1], &[4.0, 0.5], &[6.0, 0.5], &[8.0, 0.5], &[10.0, 0.5]],
    apply: defocus,
};

/// Frosted glass: deviation of the blur before and after, how far pixels move, and how often.
pub(super) const GLASS: Corruption = Corruption {
    name: "glass_blur",
    group: Group::Blur,
    extra: false,
    differs: None,
    cifar: [&[0.05, 1.0, 1.0], &[0.25, 1.0, 1.0], &[0.4, 1.0, 1.0], &[0.25, 1.0, 2.0], &[0.4, 1.0, 2.0]],
    imagenet: [&[0.7, 1.0, 2.0], &[0.9, 2.0, 1.0], &[1.0, 2.0, 3.0], &[1.1, 3.0, 2.0], &[1.5, 4.0, 2.0]],
    apply: glass,
};

/// Motion of the camera, at most 45 degrees from level: radius and deviation of the streak.
pub(super) const MOTION: Corruption = Corruption {
    name: "motion_blur",
    group: Group::Blur,
    extra: false,
    differs: Some("the streak is ImageMagick's formula, not its program"),
    cifar: [&[6.0, 1.0], &[6.0, 1.5], &[6.0, 2.0], &[8.0, 2.0], &[9.0, 2.5]],
    imagenet: [&[10.0, 3.0], &[15.0, 5.0], &[15.0, 8.0], &[15.0, 12.0], &[20.0, 15.0]],
    apply: |picture, c, draws| {
        let (size, angle) = ([picture.height, picture.width], draws.uniform(-45.0, 45.0));
        picture.filter(|plane| motion(plane, size, c[0], c[1], angle));
    },
};

/// Towards the subject: the largest factor, and the step between factors.
pub(super) const ZOOM: Corruption = Corruption {
    name: "zoom_blur",
    group: Group::Blur,
    extra: false,
    differs: None,
    cifar: [&[1.06, 0.01], &[1.11, 0.01], &[1.16, 0.01], &[1.21, 0.01], &[1.26, 0.01]],
    imagenet: [&[1.11, 0.01], &[1.16, 0.01], &[1.21, 0.02], &[1.26, 0.02], &[1.31, 0.03]],
    apply: zoomed,
};

/// The parameter is the deviation.
pub(super) const GAUSSIAN: Corruption = Corruption {
    name: "gaussian_blur",
    group: Group::Blur,
    extra: true,
    differs: None,
    cifar: [&[0.4], &[0.6], &[0.7], &[0.8], &[1.0]],
    imagenet: [&[1.0], &[2.0], &[3.0], &[4.0], &[6.0]],
    apply: |picture, c, _| {
        let size = [picture.height, picture.width];
        picture.filter(|plane| gaussian(plane, size, c[0], 4.0, Border::Nearest));
    },
};

/// A disk of this radius with a smoothed rim: weights of the pixels up to `reach` away, row by row.
fn disk(radius: f64, alias: f64) -> (i64, Vec<f64>) {
    let reach = if radius <= 8.0 { 8 } else { radius as i64 };
    let side = (2 * reach + 1) as usize;
    let inside = |i: i64| {
        let (y, x) = (i / side as i64 - reach, i % side as i64 - reach);
        f64::from(u8::from((y * y + x * x) as f64 <= radius * radius))
    };
    let disk: Vec<f64> = (0..(side * side) as i64).map(inside).collect();
    let sum: f64 = disk.iter().sum();
    let disk: Vec<f64> = disk.iter().map(|v| v / sum).collect();
    // OpenCV's Gaussian of three or five points.
    let half = if radius <= 8.0 { 1 } else { 2 };
    let truncate = (f64::from(half) + 0.25) / alias;
    (reach, gaussian(&disk, [side, side], alias, truncate - 0.5 / alias, Border::Reflect101))
}

fn defocus(picture: &mut Picture, c: &[f64], _: &mut Draws) {
    let (reach, kernel) = disk(c[0], c[1]);
    let (height, width, side) = (picture.height, picture.width, 2 * reach + 1);
    let taps: Vec<(i64, i64, f64)> = (0..side * side)
        .map(|i| (i / side - reach, i % side - reach, kernel[i as usize]))
        .filter(|tap| tap.2 != 0.0)
        .collect();
    picture.filter(|plane| {
        let at = |i: usize| {
            let (y, x) = ((i / width) as i64, (i % width) as i64);
            let pixel = |dy: i64, dx: i64| {
                let row = Border::Reflect101.inside(y + dy, height);
                plane[row * width + Border::Reflect101.inside(x + dx, width)]
            };
            taps.iter().map(|&(dy, dx, weight)| weight * pixel(dy, dx)).sum()
        };
        (0..height * width).map(at).collect()
    });
}

fn glass(picture: &mut Picture, c: &[f64], draws: &mut Draws) {
    let (height, width) = (picture.height, picture.width);
    let smooth = |picture: &mut Picture| {
        picture.filter(|plane| gaussian(plane, [height, width], c[0], 4.0, Border::Nearest));
    };
    smooth(picture);
    // The authors shuffle bytes.
    picture.map(|v| (v.clamp(0.0, 1.0) * 255.0 + 1e-9).floor() / 255.0);
    let far = c[1] as i64;
    for _ in 0..c[2] as usize {
        for y in (far + 1..=height as i64 - far).rev() {
            for x in (far + 1..=width as i64 - far).rev() {
                let (dx, dy) = (draws.whole(-far, far), draws.whole(-far, far));
                let (to, from) = (y * width as i64 + x, (y + dy) * width as i64 + x + dx);
                // The authors' swap of two views of one array copies: the pixel that it takes stays.
                for plane in &mut picture.planes {
                    if let (Some(&value), true) = (plane.get(from as usize), (to as usize) < plane.len()) {
                        plane[to as usize] = value;
                    }
                }
            }
        }
    }
    smooth(picture);
}

fn zoomed(picture: &mut Picture, c: &[f64], _: &mut Draws) {
    let size = [picture.height, picture.width];
    // As many as np.arange gives.
    let count = ((c[0] - 1.0) / c[1]).ceil() as usize;
    picture.filter(|plane| {
        let mut sum = plane.to_vec();
        for i in 0..count {
            let zoomed = zoom(plane, size, 1.0 + i as f64 * c[1]);
            sum.iter_mut().zip(zoomed).for_each(|(a, b)| *a += b);
        }
        sum.iter().map(|v| v / (count + 1) as f64).collect()
    });
}
