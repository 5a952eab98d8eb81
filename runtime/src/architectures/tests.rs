//! Checks against the numbers of the PyTorch code that each architecture names.

use super::*;
use crate::network::{Network, Role};
use crate::shape::Shape;

fn network(name: &str, input: [usize; 3], classes: usize) -> Network {
    draft(name, input, classes).unwrap().network
}

fn trainable(network: &Network) -> usize {
    network.parameters.iter().filter(|p| p.role.trains()).map(|p| p.shape.len()).sum()
}

fn message(name: &str, input: [usize; 3], classes: usize) -> String {
    match Architecture::build(name, input, classes, 0) {
        Err(Error::Config(message)) => message,
        other => panic!("{name} {input:?} {classes}: {:?}", other.map(|m| m.network)),
    }
}

/// The output shape of a layer for a batch of two.
fn shape(network: &Network, layer: &str) -> Shape {
    let index = network.layers.iter().position(|l| l.name == layer).unwrap();
    network.layer_shapes(2).unwrap()[index]
}

#[test]
fn parameter_counts_are_the_published_ones() {
    for a in architectures() {
        assert_eq!(trainable(&network(a.name, a.input, a.classes)), a.parameters, "{}", a.name);
    }
    // With the stem for CIFAR.
    assert_eq!(trainable(&network("resnet18", [3, 32, 32], 10)), 11_173_962);
    assert_eq!(trainable(&network("resnet50", [3, 32, 32], 10)), 23_520_842);
}

/// The convolutions, BatchNorms and linear layer of `preact-resnet18`, added up by hand.
#[test]
fn preact_resnet18_by_formula() {
    let mut sum = 3 * 64 * 9;
    let mut from = 64;
    for to in [64, 128, 256, 512] {
        let convolutions = 9 * (from * to + 3 * to * to);
        let norms = 2 * from + 3 * 2 * to;
        let projection = if from == to { 0 } else { from * to };
        sum += convolutions + norms + projection;
        from = to;
    }
    sum += 2 * 512 + 512 * 10 + 10;
    assert_eq!(trainable(&network("preact-resnet18", [3, 32, 32], 10)), sum);
}

#[test]
fn any_channels_sizes_and_classes() {
    for a in architectures() {
        for (input, classes) in
            [(a.input, a.classes), ([1, 28, 36], 2), ([4, 65, 96], 1001), ([3, 224, 192], 7)]
        {
            let network = network(a.name, input, classes);
            let shapes = network.layer_shapes(2).unwrap();
            assert_eq!(shapes.last(), Some(&Shape([2, 1, 1, classes])), "{} {input:?}", a.name);
            assert_eq!(network.classes().unwrap(), classes);
        }
    }
}

#[test]
fn names_are_unique() {
    for a in architectures() {
        let network = network(a.name, a.input, a.classes);
        let layers = network.layers.iter().map(|l| &l.name);
        let parameters = network.parameters.iter().map(|p| &p.name);
        for mut names in [layers.collect::<Vec<_>>(), parameters.collect()] {
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", a.name);
        }
    }
}

#[test]
fn stages_have_the_published_shapes() {
    let thin = network("resnet20", [3, 32, 32], 10);
    assert_eq!(shape(&thin, "layer1.2.relu2"), Shape([2, 32, 32, 16]));
    assert_eq!(shape(&thin, "layer2.0.shortcut.slice"), Shape([2, 16, 16, 16]));
    assert_eq!(shape(&thin, "layer3.2.relu2"), Shape([2, 8, 8, 64]));

    let small = network("resnet18", [3, 32, 32], 10);
    assert_eq!(shape(&small, "relu"), Shape([2, 32, 32, 64]));
    assert_eq!(shape(&small, "layer4.1.relu2"), Shape([2, 4, 4, 512]));

    let large = network("resnet50", [3, 224, 224], 1000);
    assert_eq!(shape(&large, "maxpool"), Shape([2, 56, 56, 64]));
    assert_eq!(shape(&large, "layer2.0.conv1"), Shape([2, 56, 56, 128]));
    assert_eq!(shape(&large, "layer2.0.conv2"), Shape([2, 28, 28, 128]));
    assert_eq!(shape(&large, "layer4.2.relu3"), Shape([2, 7, 7, 2048]));
    assert_eq!(
        shape(&network("wide-resnet50-2", [3, 224, 224], 5), "layer4.0.conv2"),
        Shape([2, 7, 7, 1024])
    );

    assert_eq!(shape(&network("wrn-34-10", [3, 32, 32], 10), "relu"), Shape([2, 8, 8, 640]));
    assert_eq!(shape(&network("mnist-cnn", [1, 28, 28], 10), "flatten"), Shape([2, 1, 1, 1024]));
}

#[test]
fn parameters_have_the_names_of_the_state_dict() {
    for (name, expected) in [
        (
            "mnist-cnn",
            ["feature_extractor.conv1.weight", "feature_extractor.conv1.bias", "classifier.fc3.bias"],
        ),
        ("resnet20", ["conv1.weight", "layer2.0.bn2.running_mean", "linear.weight"]),
        ("resnet50", ["layer1.0.downsample.0.weight", "layer1.0.downsample.1.running_var", "fc.weight"]),
        ("preact-resnet18", ["layer2.0.shortcut.0.weight", "bn.weight", "linear.bias"]),
        ("wrn-28-10", ["block1.layer.0.convShortcut.weight", "block3.layer.3.bn2.bias", "bn1.running_var"]),
    ] {
        let network = network(name, [3, 32, 32], 10);
        for expected in expected {
            assert!(network.parameters.iter().any(|p| p.name == expected), "{name} has no {expected}");
        }
    }
}

#[test]
fn every_depth_and_width_of_a_wide_resnet() {
    // Published for WRN-16-8 and WRN-40-2 in the paper's table 5: 11.0M and 2.2M.
    assert_eq!(trainable(&network("wrn-16-8", [3, 32, 32], 10)), 10_961_370);
    assert_eq!(trainable(&network("wrn-40-2", [3, 32, 32], 10)), 2_243_546);
    // A width of 1 needs no projection in the first group.
    let thin = network("wrn-10-1", [3, 32, 32], 10);
    assert!(!thin.parameters.iter().any(|p| p.name.starts_with("block1") && p.name.contains("convShortcut")));
    assert_eq!(
        network("wrn-32-10", [3, 32, 32], 10).parameters,
        network("wrn-34-10", [3, 32, 32], 10).parameters
    );
}

#[test]
fn faults_say_what_to_do() {
    assert!(
        message("resnet21", [3, 32, 32], 10).contains("unknown architecture 'resnet21'; there are resnet20")
    );
    assert!(message("WRN-28-10", [3, 32, 32], 10).contains("there are wrn-28-10,"));
    assert!(message("", [3, 32, 32], 10).contains("mnist-cnn"));
    assert!(message("wrn-30-10", [3, 32, 32], 10).contains("6n+4"));
    assert!(message("wrn-4-10", [3, 32, 32], 10).contains("6n+4"));
    assert!(message("wrn-28-0", [3, 32, 32], 10).contains("width"));
    assert!(message("mnist-cnn", [1, 15, 28], 10).contains("16x16"));
    assert!(message("resnet18", [3, 32, 7], 10).contains("8x8"));
    assert!(message("resnet20", [0, 32, 32], 10).contains("1 channel"));
    assert!(message("resnet20", [3, 32, 32], 1).contains("2 classes"));
    // Sizes that no machine holds are refused before anything is allocated.
    assert!(message("resnet20", [3, 32, 32], 1 << 40).contains("linear.weight"));
    assert!(message("wrn-28-65535", [3, 32, 32], 10).contains("values in total"));
    assert!(Architecture::build("resnet18", [3, usize::MAX, usize::MAX], 10, 0).is_err());
}

#[test]
fn the_least_size_is_enough() {
    for a in architectures() {
        let least = a.family.least_size();
        assert_eq!(network(a.name, [1, least, least], 2).classes().unwrap(), 2, "{}", a.name);
    }
}

#[test]
fn the_seed_decides_the_weights() {
    let build = |seed| Architecture::build("resnet8", [3, 32, 32], 10, seed).unwrap();
    assert_eq!(build(1), build(1));
    assert_ne!(build(1).values, build(2).values);
    // Two parameters of one shape draw from different streams.
    let model = build(1);
    let value = |name| &model.values[model.network.parameters.iter().position(|p| p.name == name).unwrap()];
    assert_ne!(value("layer1.0.conv1.weight"), value("layer1.0.conv2.weight"));
}

#[test]
fn weights_spread_as_in_pytorch() {
    let close = |model: &Model, name: &str, expected: f64| {
        let index = model.network.parameters.iter().position(|p| p.name == name).unwrap();
        let values = &model.values[index].data;
        let mean =
            |f: &dyn Fn(f64) -> f64| values.iter().map(|&v| f(v.into())).sum::<f64>() / values.len() as f64;
        let deviation = mean(&|v| v * v).sqrt();
        assert!((deviation / expected - 1.0).abs() < 0.05, "{name}: {deviation}, expected {expected}");
        assert!(mean(&|v| v).abs() < 0.05 * expected, "{name}: mean {}", mean(&|v| v));
    };
    let resnet = Architecture::build("resnet18", [3, 32, 32], 1000, 3).unwrap();
    close(&resnet, "layer4.0.conv1.weight", (2.0_f64 / (9.0 * 512.0)).sqrt());
    close(&resnet, "fc.weight", (1.0_f64 / (3.0 * 512.0)).sqrt());
    let preact = Architecture::build("preact-resnet18", [3, 32, 32], 10, 3).unwrap();
    close(&preact, "layer4.0.conv1.weight", (1.0_f64 / (3.0 * 9.0 * 256.0)).sqrt());
    let thin = Architecture::build("resnet20", [3, 32, 32], 10, 3).unwrap();
    close(&thin, "layer3.0.conv1.weight", (2.0_f64 / (9.0 * 32.0)).sqrt());
}

#[test]
fn batch_norm_starts_as_identity() {
    let model = Architecture::build("resnet8", [3, 32, 32], 10, 0).unwrap();
    for (parameter, value) in model.network.parameters.iter().zip(&model.values) {
        let expected = match parameter.role {
            Role::Scale | Role::RunningVariance => 1.0,
            Role::Shift | Role::RunningMean => 0.0,
            _ => continue,
        };
        assert!(value.data.iter().all(|&v| v == expected), "{}", parameter.name);
    }
}
