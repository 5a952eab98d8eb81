//! Kernels that were measured on an adapter are checked, kept, and used from then on.

use std::sync::{Arc, Mutex};

use adamant::op::{BatchNormTrain, CompactConv2d, Conv2d, Conv2dGradWeight, FusedConv2d, Op, WeightFormat};
use adamant::{Architecture, Benchmark, Device, Graph, Shape, Workload};
use adamant_tests::cases::compact;
use adamant_tests::gpu::gpu;

const CONV: Conv2d = Conv2d { pads: [1; 4], ..Conv2d::LINEAR };
const X: Shape = Shape([3, 6, 7, 16]);
const W: Shape = Shape([3, 3, 16, 32]);
const Y: Shape = Shape([3, 6, 7, 32]);

/// A device that measures, with what it says.
fn tuned(folder: &std::path::Path) -> (Device, Arc<Mutex<Vec<String>>>) {
    let (mut device, said) = (gpu(), Arc::<Mutex<Vec<String>>>::default());
    let listener = Arc::clone(&said);
    device.tune(
        Some(folder),
        Box::new(move |text| listener.lock().expect("nobody panics").push(text.to_owned())),
    );
    (device, said)
}

/// A convolution and its weight gradient; returns what they compute.
fn run(device: &mut Device) -> Vec<f32> {
    let mut graph = Graph::new();
    let values = |len: usize| (0..len).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect::<Vec<f32>>();
    let [x, w] = [X, W].map(|s| {
        let variable = device.variable_from(&values(s.len())).expect("it fits");
        graph.variable(variable, s)
    });
    let [y, dw] = [Y, W].map(|s| (device.variable(s.len()).expect("it fits"), s));
    let outputs = [y, dw].map(|(variable, s)| graph.variable(variable, s));
    graph.update(Op::Conv2d(CONV), &[x, w], &outputs[..1]).expect("shapes fit");
    let gradient = Op::Conv2dGradWeight(Conv2dGradWeight { conv: CONV, weight: W });
    graph.update(gradient, &[x, outputs[0]], &outputs[1..]).expect("shapes fit");
    let mut program = device.compile(&graph).expect("it compiles");
    device.run(&mut program).expect("it runs");
    let mut found = device.read(y.0).expect("it is read");
    found.extend(device.read(dw.0).expect("it is read"));
    found
}

#[test]
fn what_was_measured_is_used_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut device, said) = tuned(folder.path());
    let found = run(&mut device);
    let expected = run(&mut Device::cpu());
    adamant_tests::compare(&found, &expected, adamant_tests::Tolerance::Approximate)
        .expect("kernels are checked");
    let first = std::mem::take(&mut *said.lock().expect("nobody panics"));
    assert!(first[0].contains("measuring kernels for 2 operations"), "{first:?}");
    let counts = device.choices().counts();
    assert_eq!(counts.values().sum::<usize>(), 2, "{counts:?}");
    assert!(counts.keys().any(|k| k.starts_with("conv2d_grad_weight")), "{counts:?}");

    // Another program does not measure again, and computes the same bits.
    let (mut again, said) = tuned(folder.path());
    assert_eq!(run(&mut again), found);
    assert_eq!(*said.lock().expect("nobody panics"), Vec::<String>::new());
    assert_eq!(again.choices().counts(), counts);
}

/// A kernel that widens weights is measured on words that stand for finite ones, and checked like all others.
/// Random numbers are no variances, nor have its outputs one shape.
#[test]
fn what_has_several_outputs_is_not_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut device, said) = tuned(folder.path());
    let run = |device: &mut Device| {
        let mut graph = Graph::new();
        let channels = Shape::vector(X.channels());
        let inputs = [X, channels, channels].map(|s| {
            let values: Vec<f32> = (0..s.len()).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect();
            graph.variable(device.variable_from(&values).expect("it fits"), s)
        });
        let variables = [X, channels, channels].map(|s| (device.variable(s.len()).expect("it fits"), s));
        let outputs = variables.map(|(variable, s)| graph.variable(variable, s));
        let op = Op::BatchNormTrain(BatchNormTrain { epsilon: 1e-5 });
        graph.update(op, &inputs, &outputs).expect("shapes fit");
        let mut program = device.compile(&graph).expect("it compiles");
        device.run(&mut program).expect("it runs");
        device.read(variables[0].0).expect("it is read")
    };
    let (found, expected) = (run(&mut device), run(&mut Device::cpu()));
    adamant_tests::compare(&found, &expected, adamant_tests::Tolerance::Approximate).expect("it is the same");
    assert_eq!(*said.lock().expect("nobody panics"), Vec::<String>::new());
}

#[test]
fn compact_convolutions_are_measured_too() {
    for format in [WeightFormat::F16, WeightFormat::Int8] {
        let run = |device: &mut Device| {
            let mut graph = Graph::new();
            let values = |len: usize| (0..len).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect::<Vec<f32>>();
            let words = compact::words(format, W.channels(), &values(W.len()));
            let inputs =
                [(values(X.len()), X), (words.clone(), Shape::vector(words.len()))].map(|(values, shape)| {
                    graph.variable(device.variable_from(&values).expect("it fits"), shape)
                });
            let y = device.variable(Y.len()).expect("it fits");
            let output = graph.variable(y, Y);
            let op = CompactConv2d { conv: FusedConv2d::plain(CONV, false), weight: W, format };
            graph.update(Op::CompactConv2d(op), &inputs, &[output]).expect("shapes fit");
            let mut program = device.compile(&graph).expect("it compiles");
            device.run(&mut program).expect("it runs");
            device.read(y).expect("it is read")
        };
        let folder = tempfile::tempdir().expect("a folder");
        let (mut device, said) = tuned(folder.path());
        let (found, expected) = (run(&mut device), run(&mut Device::cpu()));
        adamant_tests::compare(&found, &expected, adamant_tests::Tolerance::Approximate)
            .unwrap_or_else(|e| panic!("{format:?}: {e}"));
        assert_eq!(device.choices().counts().len(), 1, "{format:?}");
        let said = said.lock().expect("nobody panics").join("\n");
        assert!(!said.contains("warning"), "{format:?}: {said}");
    }
}

/// On the adapter's own clock, where it has one: in the units, and of the steps, that are asked for.
#[test]
fn the_steps_of_a_program_take_a_part_of_its_time() {
    let model = Architecture::build("resnet8", [3, 16, 16], 10, 0).expect("it is known");
    let mut benchmark = Benchmark::new(gpu(), &model, 64, 0).expect("it fits");
    benchmark.run(Workload::TrainStep).expect("it runs");
    let start = std::time::Instant::now();
    let steps = benchmark.profile(Workload::TrainStep).expect("it runs");
    let wall = start.elapsed().as_secs_f64();
    let total: f64 = steps.iter().map(|step| step.seconds).sum();
    assert!(steps.len() > 50 && steps.iter().all(|step| step.seconds >= 0.0), "{steps:?}");
    assert!(total > wall / 1000.0 && total < wall, "{total} s of {wall} s");
}
