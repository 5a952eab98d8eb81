//! What software does to pictures.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageFormat};

use super::picture::{Border, Draws, Picture, bilinear, gaussian};
use super::{Corruption, Group};

/// What is left of each value's distance from the mean of its channel.
pub(super) const CONTRAST: Corruption = Corruption {
    name: "contrast",
    group: Group::Digital,
    extra: false,
    differs: None,
    cifar: [&[0.75], &[0.5], &[0.4], &[0.3], &[0.15]],
    imagenet: [&[0.4], &[0.3], &[0.2], &[0.1], &[0.05]],
    apply: |picture, c, _| {
        picture.filter(|plane| {
            let mean = plane.iter().sum::<f64>() / plane.len() as f64;
            plane.iter().map(|v| (v - mean) * c[0] + mean).collect()
        });
    },
};

/// As parts of the image's side: how far pixels move, the smoothness of their moves, and how far three
/// points move that the whole picture follows.
pub(super) const ELASTIC: Corruption = Corruption {
    name: "elastic_transform",
    group: Group::Digital,
    extra: false,
    differs: None,
    cifar: [
        &[0.0, 0.0, 0.08],
        &[0.05, 0.2, 0.07],
        &[0.08, 0.06, 0.06],
        &[0.1, 0.04, 0.05],
        &[0.1, 0.03, 0.03],
    ],
    imagenet: [
        &[2.0, 0.7, 0.1],
        &[2.0, 0.08, 0.2],
        &[0.05, 0.01, 0.02],
        &[0.07, 0.01, 0.02],
        &[0.12, 0.01, 0.02],
    ],
    apply: elastic,
};

/// The part of the side that is left of it.
pub(super) const PIXELATE: Corruption = Corruption {
    name: "pixelate",
    group: Group::Digital,
    extra: false,
    differs: None,
    cifar: [&[0.95], &[0.9], &[0.85], &[0.75], &[0.65]],
    imagenet: [&[0.6], &[0.5], &[0.4], &[0.3], &[0.25]],
    apply: |picture, c, _| {
        let (height, width) = (picture.height, picture.width);
        let small = [height, width].map(|side| ((side as f64 * c[0]) as usize).max(1));
        picture.filter(|plane| {
            let down = box_resize(plane, [height, width], small);
            box_resize(&down, small, [height, width])
        });
    },
};

/// The quality.
pub(super) const JPEG: Corruption = Corruption {
    name: "jpeg_compression",
    group: Group::Digital,
    extra: false,
    differs: Some("another codec than libjpeg"),
    cifar: [&[80.0], &[65.0], &[58.0], &[50.0], &[40.0]],
    imagenet: [&[25.0], &[18.0], &[15.0], &[10.0], &[7.0]],
    apply: jpeg,
};

/// Factor of the saturation, and what is added to it.
pub(super) const SATURATE: Corruption = Corruption {
    name: "saturate",
    group: Group::Digital,
    extra: true,
    differs: None,
    cifar: [&[0.3, 0.0], &[0.1, 0.0], &[1.5, 0.0], &[2.0, 0.1], &[2.5, 0.2]],
    imagenet: [&[0.3, 0.0], &[0.1, 0.0], &[2.0, 0.0], &[5.0, 0.1], &[20.0, 0.2]],
    apply: |picture, c, _| picture.map_hsv(|[h, s, v]| [h, (s * c[0] + c[1]).clamp(0.0, 1.0), v]),
};

/// The side of the images that the parameters of ImageNet-C's elastic transform are meant for, and what
/// they are parts of.
const IMAGENET: (f64, f64) = (224.0, 244.0);

fn elastic(picture: &mut Picture, c: &[f64], draws: &mut Draws) {
    let (height, width) = (picture.height, picture.width);
    let side = match height.max(width) {
        large if large > super::SMALL => large as f64 * IMAGENET.1 / IMAGENET.0,
        small => small as f64,
    };
    let (far, smooth, affine) = (c[0] * side, c[1] * side, c[2] * side);
    // The map takes three points to where they move: q = p + A p + t for each coordinate.
    let (cy, cx) = ((height / 2) as f64, (width / 2) as f64);
    let square = (height.min(width) / 3) as f64;
    let points = [[cy + square, cx + square], [cy + square, cx - square], [cy - square, cx - square]];
    // The authors write rows where OpenCV reads columns; all is symmetric but for the names.
    let moved = points.map(|[a, b]| [a + draws.uniform(-affine, affine), b + draws.uniform(-affine, affine)]);
    let map = affine_map(points, moved);
    let back = invert(map);
    picture.filter(|plane| {
        let at = |i: usize| {
            let (y, x) = ((i / width) as f64, (i % width) as f64);
            let sx = back[0][0] * x + back[0][1] * y + back[0][2];
            let sy = back[1][0] * x + back[1][1] * y + back[1][2];
            bilinear(plane, [height, width], sy, sx, Border::Reflect101)
        };
        (0..height * width).map(at).collect()
    });
    if far > 0.0 {
        let mut field = || -> Vec<f64> {
            let noise: Vec<f64> = (0..height * width).map(|_| draws.uniform(-1.0, 1.0)).collect();
            let smoothed = gaussian(&noise, [height, width], smooth, 3.0, Border::Reflect);
            smoothed.into_iter().map(|v| v * far).collect()
        };
        let (dx, dy) = (field(), field());
        picture.filter(|plane| {
            let at = |i: usize| {
                let (y, x) = ((i / width) as f64 + dy[i], (i % width) as f64 + dx[i]);
                bilinear(plane, [height, width], y, x, Border::Reflect)
            };
            (0..height * width).map(at).collect()
        });
    }
}

/// The affine map, as two rows for x and y, that takes three points (x, y) to three others.
fn affine_map(from: [[f64; 2]; 3], to: [[f64; 2]; 3]) -> [[f64; 3]; 2] {
    let [[ax, ay], [bx, by], [cx, cy]] = from;
    let det = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
    // Of an image too small to have three points apart, nothing moves.
    if det.abs() < 1e-12 {
        return [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
    }
    [0, 1].map(|k| {
        let (u, v) = (to[1][k] - to[0][k], to[2][k] - to[0][k]);
        let p = (u * (cy - ay) - v * (by - ay)) / det;
        let q = ((bx - ax) * v - (cx - ax) * u) / det;
        [p, q, to[0][k] - p * ax - q * ay]
    })
}

fn invert([[a, b, tx], [c, d, ty]]: [[f64; 3]; 2]) -> [[f64; 3]; 2] {
    let det = a * d - b * c;
    if det.abs() < 1e-12 {
        return [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
    }
    let (ia, ib, ic, id) = (d / det, -b / det, -c / det, a / det);
    [[ia, ib, -(ia * tx + ib * ty)], [ic, id, -(ic * tx + id * ty)]]
}

/// Pillow's resizing with its box filter: columns first, each pass rounded to bytes.
fn box_resize(plane: &[f64], [height, width]: [usize; 2], [rows, columns]: [usize; 2]) -> Vec<f64> {
    // In whole levels, so that a half is exactly one.
    let plane: Vec<f64> = plane.iter().map(|v| (v * 255.0).round()).collect();
    let windows = |from: usize, to: usize| -> Vec<Vec<(usize, f64)>> {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let window = |i: usize| {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - 0.5 * stretch + 0.5).max(0.0) as usize;
            let last = ((centre + 0.5 * stretch + 0.5) as usize).min(from);
            let inside = |k: &usize| {
                let x = (*k as f64 - centre + 0.5) / stretch;
                x > -0.5 && x <= 0.5
            };
            let taps: Vec<usize> = (first..last).filter(inside).collect();
            let weight = 1.0 / taps.len().max(1) as f64;
            taps.into_iter().map(|k| (k, weight)).collect()
        };
        (0..to).map(window).collect()
    };
    let across = windows(width, columns);
    let mut wide = vec![0.0; height * columns];
    for y in 0..height {
        for (x, taps) in across.iter().enumerate() {
            let sum: f64 = taps.iter().map(|&(k, w)| w * plane[y * width + k]).sum();
            wide[y * columns + x] = sum.round();
        }
    }
    let mut out = vec![0.0; rows * columns];
    for (y, taps) in windows(height, rows).iter().enumerate() {
        for x in 0..columns {
            let sum: f64 = taps.iter().map(|&(k, w)| w * wide[k * columns + x]).sum();
            out[y * columns + x] = sum.round() / 255.0;
        }
    }
    out
}

fn jpeg(picture: &mut Picture, c: &[f64], _: &mut Draws) {
    let (height, width) = (picture.height, picture.width);
    let bytes = picture.to_bytes();
    // Three channels are a colour picture; of any other number, each is a grey one.
    let channels = if picture.planes.len() == 3 { 3 } else { 1 };
    let pictures = bytes.chunks_exact(channels * height * width);
    for (planes, bytes) in picture.planes.chunks_exact_mut(channels).zip(pictures) {
        // Of an image that the codec does not take, nothing is lost.
        let Some(levels) = through_jpeg(bytes, [channels, height, width], c[0] as u8) else { return };
        for (k, plane) in planes.iter_mut().enumerate() {
            for (i, v) in plane.iter_mut().enumerate() {
                *v = f64::from(levels[i * channels + k]) / 255.0;
            }
        }
    }
}

/// Planar bytes of one or three channels, encoded and decoded: interleaved bytes.
fn through_jpeg(bytes: &[u8], [channels, height, width]: [usize; 3], quality: u8) -> Option<Vec<u8>> {
    let plane = height * width;
    let pixel = |i: usize| (0..channels).map(move |k| bytes[k * plane + i]);
    let interleaved: Vec<u8> = (0..plane).flat_map(pixel).collect();
    let colour = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let (w, h) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality).encode(&interleaved, w, h, colour).ok()?;
    let decoded = image::load(Cursor::new(&file), ImageFormat::Jpeg).ok()?;
    Some(if channels == 1 { decoded.to_luma8().into_raw() } else { decoded.to_rgb8().into_raw() })
}
