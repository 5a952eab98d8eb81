//! Common corruptions against the authors' formulas, as SciPy, scikit-image, OpenCV and Pillow compute
//! them, and their parameters against the published table.

use adamant::{CORRUPTIONS, Corruption};
use adamant_tests::Failures;
use adamant_tests::golden::{Golden, folder};

fn corruption(name: &str) -> &'static Corruption {
    CORRUPTIONS.iter().find(|c| c.name == name).expect("a corruption of that name")
}

#[test]
fn corruptions_without_chance_are_the_authors() {
    let golden = Golden::open("corruptions.safetensors");
    let mut failures = Failures::new();
    let mut compared = 0;
    for side in [32, 72] {
        let image: Vec<u8> = golden.real(&format!("{side}.image")).1.iter().map(|&v| v as u8).collect();
        let prefix = format!("{side}.");
        for key in golden.names().iter().filter(|k| k.starts_with(&prefix) && !k.ends_with("image")) {
            let (_, expected) = golden.real(key);
            let expected: Vec<&[f32]> = expected.chunks_exact(3 * 4 * side).collect();
            assert_eq!(expected.len(), 3, "severities 1, 3 and 5");
            for (severity, expected) in [1, 3, 5].into_iter().zip(expected) {
                let corruption = corruption(&key[prefix.len()..]);
                let found = corruption.apply(&image, [3, side, side], severity, 0, 0);
                // Four rows of each plane are kept.
                let rows = found.chunks_exact(side).step_by(side / 4).flatten();
                let apart: Vec<f32> = rows.zip(expected).map(|(&a, b)| (f32::from(a) - b).abs()).collect();
                assert_eq!(apart.len(), expected.len());
                // What is exactly a level may lose it to rounding where the authors cut off the rest: it does
                // for constant areas in single precision, and for 1.5 times a difference.
                let largest = apart.iter().fold(0.0, |a: f32, &b| a.max(b));
                let off = apart.iter().filter(|&&d| d > 0.0).count() as f64 / apart.len() as f64;
                let checked = match largest <= 1.0 && off < 0.1 {
                    true => Ok(()),
                    false => Err(format!("{:.1}% of the values differ, by up to {largest}", 100.0 * off)),
                };
                failures.check(&format!("{key}, severity {severity}"), checked);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 2 * 7 * 3);
    failures.report();
}

/// From the same random numbers, what the authors' operations make of them.
#[test]
fn corruptions_by_chance_are_the_authors() {
    let golden = Golden::open("corruptions_random.safetensors");
    let picture = Golden::open("corruptions.safetensors").real("32.image").1;
    let image: Vec<u8> = picture.iter().map(|&v| v as u8).collect();
    let names = golden.names();
    assert_eq!(names.len(), 6);
    let mut failures = Failures::new();
    for name in names {
        let (_, expected) = golden.real(&name);
        for (severity, expected) in [1, 3, 5].into_iter().zip(expected.chunks_exact(3 * 4 * 32)) {
            let found = corruption(&name).apply(&image, [3, 32, 32], severity, 7, 3);
            let rows = found.chunks_exact(32).step_by(8).flatten();
            let apart: Vec<f32> = rows.zip(expected).map(|(&a, b)| (f32::from(a) - b).abs()).collect();
            assert_eq!(apart.len(), expected.len());
            // The part of a level that is cut off may differ by a rounding.
            let largest = apart.iter().fold(0.0, |a: f32, &b| a.max(b));
            let off = apart.iter().filter(|&&d| d > 0.0).count();
            let checked = match largest <= 1.0 && off <= 2 {
                true => Ok(()),
                false => Err(format!("{off} of {} values differ, by up to {largest}", apart.len())),
            };
            failures.check(&format!("{name}, severity {severity}"), checked);
        }
    }
    failures.report();
}

/// The table as the authors print it, line by line: name, then for each of CIFAR-10-C and ImageNet-C
/// five severities, parameters joined by commas.
#[test]
fn parameters_are_the_published_ones() {
    let text = std::fs::read_to_string(folder().join("corruptions.txt")).expect("the table");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(lines.len(), 19);
    for line in lines {
        let (name, numbers) = line.split_once(':').expect("a name");
        let (cifar, imagenet) = numbers.split_once('|').expect("two tables");
        for (size, table) in [([32, 32], cifar), ([224, 224], imagenet)] {
            let table: Vec<Vec<f64>> = table
                .split_whitespace()
                .map(|s| s.split(',').map(|v| v.parse().expect("a number")).collect())
                .collect();
            assert_eq!(table.len(), 5, "{name}");
            for (severity, expected) in (1..).zip(table) {
                assert_eq!(corruption(name).parameters(severity, size), expected, "{name}, {severity}");
            }
        }
    }
}
