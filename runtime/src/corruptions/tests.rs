use super::picture::{from_hsv, to_hsv};
use super::*;

fn noise(shape: [usize; 3]) -> Vec<u8> {
    (0..shape.iter().product::<usize>()).map(|i| (i * 7919 % 256) as u8).collect()
}

#[test]
fn names_are_told_apart_and_the_benchmark_comes_first() {
    let mut names: Vec<&str> = CORRUPTIONS.iter().map(|c| c.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 19);
    assert_eq!(CORRUPTIONS.iter().position(|c| c.extra), Some(15));
    assert!(CORRUPTIONS[15..].iter().all(|c| c.extra));
}

/// Each image gets the same in any company; another seed, image or severity gets another.
#[test]
fn a_corruption_is_a_function_of_seed_image_and_severity() {
    for shape in [[3, 32, 32], [1, 28, 28], [3, 17, 23], [3, 80, 65]] {
        let image = noise(shape);
        for corruption in &CORRUPTIONS {
            let name = corruption.name;
            for severity in 1..=SEVERITIES {
                let found = corruption.apply(&image, shape, severity, 1, 5);
                assert_eq!(found.len(), image.len());
                assert_eq!(found, corruption.apply(&image, shape, severity, 1, 5), "{name}");
            }
            let random = ["noise", "glass", "motion", "snow", "fog", "frost", "elastic", "spatter"];
            if random.iter().any(|r| name.contains(r)) && shape[0] == 3 {
                let strong = |seed, index| corruption.apply(&image, shape, 5, seed, index);
                assert_ne!(strong(1, 5), strong(2, 5), "{name}: another seed");
                assert_ne!(strong(1, 5), strong(1, 6), "{name}: another image");
            }
        }
    }
}

/// Severities of a table that grows do more and more to a smooth picture.
#[test]
fn severities_grow() {
    let shape = [3, 32, 32];
    let image: Vec<u8> = (0..3072).map(|i| (40 + (i % 32) * 4 + (i / 32 % 32) * 2) as u8).collect();
    for corruption in &CORRUPTIONS {
        let distance = |severity| -> f64 {
            let all = (0..8).map(|index| corruption.apply(&image, shape, severity, 0, index));
            all.map(|found| {
                found.iter().zip(&image).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>()
            })
            .sum()
        };
        // The severities of these are not in the order of what they do to pixels.
        if !["elastic_transform", "saturate", "spatter", "glass_blur"].contains(&corruption.name) {
            assert!(distance(5) > distance(1), "{}", corruption.name);
        }
        assert!(distance(5) > 0.0 || corruption.name == "glass_blur", "{}", corruption.name);
    }
}

/// Noise has the mean and the variance that its formula gives.
#[test]
fn moments_of_noise() {
    let shape = [1, 64, 64];
    let image = vec![128; 4096];
    let moments = |name: &str, severity: usize| {
        let corruption = CORRUPTIONS.iter().find(|c| c.name == name).unwrap();
        let found = corruption.apply(&image, shape, severity, 3, 0);
        let mean = found.iter().map(|&b| f64::from(b)).sum::<f64>() / 4096.0;
        let variance = found.iter().map(|&b| (f64::from(b) - mean).powi(2)).sum::<f64>() / 4096.0;
        (mean / 255.0, variance.sqrt() / 255.0)
    };
    // Half a level is cut off on average.
    let middle = (128.0 - 0.5) / 255.0;
    for (name, severity, deviation) in [
        ("gaussian_noise", 1, 0.04),
        ("gaussian_noise", 5, 0.1),
        // Poisson: sqrt(value / photons).
        ("shot_noise", 1, (0.502f64 / 500.0).sqrt()),
        ("shot_noise", 5, (0.502f64 / 50.0).sqrt()),
        ("speckle_noise", 3, 0.502 * 0.12),
    ] {
        let (mean, found) = moments(name, severity);
        assert!((mean - middle).abs() < 0.006, "{name}: mean {mean}");
        assert!((found / deviation - 1.0).abs() < 0.06, "{name}: deviation {found}, not {deviation}");
    }
    let corruption = CORRUPTIONS.iter().find(|c| c.name == "impulse_noise").unwrap();
    let found = corruption.apply(&image, shape, 5, 3, 0);
    let part = |level: u8| found.iter().filter(|&&b| b == level).count() as f64 / 4096.0;
    assert!((part(0) - 0.035).abs() < 0.01 && (part(255) - 0.035).abs() < 0.01);
}

/// Drawn frost is as bright and as rough as the authors' photographs: 500 parts of those, 32x32 at a fifth of
/// their size, have these means, deviations within a part, and differences of neighbours.
#[test]
fn frost_has_the_photographs_statistics() {
    let frost = CORRUPTIONS.iter().find(|c| c.name == "frost").unwrap();
    let (images, len) = (400, 1024);
    let black = vec![0; 3 * len];
    let (mut means, mut within, mut steps) = ([0.0; 3], 0.0, 0.0);
    for index in 0..images {
        // On black there is the frost alone, times its weight at severity 5.
        let found = frost.apply(&black, [3, 32, 32], 5, 0, index);
        let value = |c: usize, i: usize| (f64::from(found[c * len + i]) + 0.5) / 255.0 / 0.45;
        let grey: Vec<f64> = (0..len).map(|i| (0..3).map(|c| value(c, i)).sum::<f64>() / 3.0).collect();
        for (c, mean) in means.iter_mut().enumerate() {
            *mean += (0..len).map(|i| value(c, i)).sum::<f64>() / len as f64 / f64::from(images);
        }
        let middle = grey.iter().sum::<f64>() / len as f64;
        let variance = grey.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / len as f64;
        within += variance.sqrt() / f64::from(images);
        let rows = grey.chunks_exact(32).flat_map(|row| row.windows(2).map(|w| (w[0] - w[1]).abs()));
        steps += rows.sum::<f64>() / (32.0 * 31.0) / f64::from(images);
    }
    for (found, photographs) in means.into_iter().zip([0.56, 0.64, 0.69]) {
        assert!((found - photographs).abs() < 0.03, "{means:?}");
    }
    assert!((within - 0.088).abs() < 0.012, "deviation {within}");
    assert!((steps - 0.075).abs() < 0.012, "neighbours differ by {steps}");
}

#[test]
fn colours_go_to_hsv_and_back() {
    for i in 0..4096 {
        let rgb = [i % 16, i / 16 % 16, i / 256].map(|v| f64::from(v) / 15.0);
        let back = from_hsv(to_hsv(rgb));
        assert!(rgb.iter().zip(back).all(|(a, b)| (a - b).abs() < 1e-12), "{rgb:?} {back:?}");
    }
    assert_eq!(to_hsv([0.0, 1.0, 1.0]), [3.0, 1.0, 1.0]);
}

#[test]
fn images_of_any_size_are_taken() {
    for shape in [[1, 1, 1], [3, 1, 5], [3, 2, 2], [1, 3, 3], [4, 6, 5]] {
        for corruption in &CORRUPTIONS {
            for severity in 1..=SEVERITIES {
                corruption.apply(&noise(shape), shape, severity, 0, 0);
            }
        }
    }
}
