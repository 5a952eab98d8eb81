//! Every operation: the kernels compute what the CPU twins do, and the twins what the definitions say.

use std::collections::BTreeSet;

use adamant::op::{BatchNorm, Conv2d, FusedBatchNorm, ImageNorm, Op, Order, Relu};
use adamant::{Device, Shape, Tensor};
use adamant_tests::cases::{self, Case, Input};
use adamant_tests::gpu::gpu;
use adamant_tests::run::{check_twins, run};
use adamant_tests::{Failures, Tolerance, compare};

#[test]
fn every_operation_has_cases() {
    let covered: BTreeSet<&str> = cases::all().iter().map(|case| case.op.name()).collect();
    let missing: Vec<_> = Op::NAMES.iter().filter(|name| !covered.contains(*name)).collect();
    assert!(missing.is_empty(), "operations without a case: {missing:?}");
}

#[test]
fn elementwise() {
    check_twins(&cases::elementwise::cases());
}

#[test]
fn convolution() {
    check_twins(&cases::convolution::forward());
}

#[test]
fn convolution_with_epilogues() {
    check_twins(&cases::convolution::fused());
}

#[test]
fn convolution_with_compact_weights() {
    check_twins(&cases::compact::cases());
}

/// What bytes and halves stand for is written out once more in the cases, and each convolution adds up the same
/// products in the same order as with f32, but for those that go by tiles there.
#[test]
fn compact_weights_are_widened_exactly() {
    let mut cpu = Device::cpu();
    let mut failures = Failures::new();
    for case in cases::compact::cases() {
        failures.check(&case.name, is_widened_exactly(&case, &mut cpu));
    }
    failures.report();
}

fn is_widened_exactly(case: &Case, cpu: &mut Device) -> Result<(), String> {
    let Op::CompactConv2d(op) = case.op else { return Err("not compact".into()) };
    let values = |i: usize| case.inputs[i].values(&case.stream(), i);
    let given = |i: usize| Input::Given(case.inputs[i].shape(), values(i));
    let mut inputs: Vec<Input> = (0..case.inputs.len()).map(given).collect();
    inputs[1] = Input::Given(op.weight, cases::compact::widened(op.format, op.weight, &values(1)));
    let full = Case::new("widened", Op::FusedConv2d(op.conv), inputs);
    let in_tiles = cases::convolution::GEOMETRIES
        .iter()
        .any(|g| g.in_tiles && (g.x, g.w, g.conv) == (case.inputs[0].shape(), op.weight, op.conv.conv));
    let tolerance = if in_tiles { Tolerance::Approximate } else { Tolerance::Exact };
    compare(&run(case, cpu)?[0].data, &run(&full, cpu)?[0].data, tolerance)
}

#[test]
fn convolution_weights() {
    check_twins(&cases::convolution::weights());
}

#[test]
fn convolution_grad_input() {
    check_twins(&cases::convolution::grad_input());
}

#[test]
fn convolution_grad_weight() {
    check_twins(&cases::convolution::grad_weight());
}

#[test]
fn normalization() {
    check_twins(&cases::normalization::cases());
}

#[test]
fn pools() {
    check_twins(&cases::window::pools());
}

#[test]
fn pads() {
    check_twins(&cases::window::pads());
}

#[test]
fn reductions() {
    check_twins(&cases::reduction::cases());
}

#[test]
fn classification() {
    check_twins(&cases::classification::cases());
}

#[test]
fn attacks() {
    check_twins(&cases::attack::cases());
}

#[test]
fn per_image() {
    check_twins(&cases::per_image::cases());
}

#[test]
fn adaptive_attacks() {
    check_twins(&cases::adaptive::cases());
}

#[test]
fn updates() {
    check_twins(&cases::update::cases());
}

/// The CPU convolution lowers to matrix products in tiles; the definition does not.
#[test]
fn convolution_follows_its_definition() {
    let mut cpu = Device::cpu();
    let mut failures = Failures::new();
    // The last case of a geometry has a bias; the definition is compared without.
    let plain = cases::convolution::forward().into_iter().filter(|case| case.inputs.len() == 2);
    for case in plain.filter(|case| case.inputs[0].shape().len() < 100_000) {
        failures.check(&case.name, follows_definition(&case, &mut cpu));
    }
    failures.report();
}

fn follows_definition(case: &Case, cpu: &mut Device) -> Result<(), String> {
    let Op::Conv2d(conv) = case.op else { return Err("not a convolution".into()) };
    let found = run(case, cpu)?.remove(0);
    let tensor = |i: usize| Tensor::new(case.inputs[i].shape(), case.inputs[i].values(&case.stream(), i));
    let expected = cases::convolution::reference(&conv, &tensor(0), &tensor(1), found.shape);
    compare(&found.data, &expected.data, cases::convolution::REFERENCE)
}

fn on_cpu(op: Op, inputs: &[(Shape, &[f32])]) -> Vec<f32> {
    let inputs: Vec<Input> =
        inputs.iter().map(|(shape, values)| Input::Given(*shape, values.to_vec())).collect();
    run(&Case::new("by hand", op, inputs), &mut Device::cpu()).expect("it runs").remove(0).data
}

/// A number that is not one must not disappear in an activation: a diverged model would look sound.
#[test]
fn not_a_number_stays_visible() {
    let row = Shape::vector(3);
    assert!(on_cpu(Op::Relu(Relu::PLAIN), &[(row, &[1.0, f32::NAN, -1.0])])[1].is_nan());
    assert!(on_cpu(Op::Relu(Relu { max: 6.0 }), &[(row, &[1.0, f32::NAN, -1.0])])[1].is_nan());
    let window = adamant::op::Window::global(1, 3);
    let image = Shape([1, 1, 3, 1]);
    for values in [[1.0, f32::NAN, -1.0], [f32::NAN, 1.0, 2.0], [1.0, 2.0, f32::NAN]] {
        let max = on_cpu(Op::MaxPool(adamant::op::MaxPool { window }), &[(image, &values)]);
        assert!(max[0].is_nan(), "{values:?}");
    }
    use adamant::op::{Function, LargestOther, LogSoftmax, Map};
    for function in [Function::Exp, Function::Abs, Function::Sign, Function::SquareRoot, Function::Tanh] {
        let y = on_cpu(Op::Map(Map::plain(function)), &[(row, &[1.0, f32::NAN, 0.0])]);
        assert!(y[1].is_nan() && !y[0].is_nan(), "{function:?}");
    }
    let logits = [f32::NAN, 2.0, 1.0];
    assert!(on_cpu(Op::LogSoftmax(LogSoftmax), &[(row, &logits)]).iter().all(|y| y.is_nan()));
    let rival =
        |label: f32| on_cpu(Op::LargestOther(LargestOther), &[(row, &logits), (Shape::SCALAR, &[label])])[0];
    assert!(rival(f32::from_bits(1)).is_nan());
    assert_eq!(rival(f32::from_bits(0)), 2.0, "the label's own value does not count");
}

/// Nor where a BatchNorm rectifies, in the kernel for one channel and in that for four.
#[test]
fn not_a_number_stays_visible_where_a_batch_norm_rectifies() {
    for channels in [3, 4] {
        let row = Shape::vector(channels);
        let all = |value: f32| Input::Given(row, vec![value; channels]);
        let mut residual = vec![-9.0; channels];
        residual[1] = f32::NAN;
        let norm = BatchNorm { epsilon: 1e-5, momentum: 0.1 };
        let op = FusedBatchNorm { norm, residual: true, relu: Some(Relu { max: 6.0 }) };
        let inputs = [all(2.0), all(1.0), all(0.0), all(0.0), all(1.0), Input::Given(row, residual)];
        let case = Case::new("by hand", Op::FusedBatchNorm(op), inputs);
        for mut device in [Device::cpu(), gpu()] {
            let y = run(&case, &mut device).expect("it runs").remove(0).data;
            assert!(y[0] == 0.0 && y[1].is_nan() && y[2] == 0.0, "{y:?}");
        }
    }
}

/// An attack that lost its way must not look as if it had found something near.
#[test]
fn an_image_that_is_not_a_number_has_no_norm() {
    let images = Shape([2, 1, 1, 300]);
    for order in [Order::L1, Order::L2, Order::Max] {
        for place in [0, 150, 299] {
            let mut values = vec![0.5; images.len()];
            values[place] = f32::NAN;
            let case =
                Case::new("by hand", Op::ImageNorm(ImageNorm { order }), [Input::Given(images, values)]);
            for mut device in [Device::cpu(), gpu()] {
                let norms = run(&case, &mut device).expect("it runs").remove(0).data;
                assert!(norms[0].is_nan() && norms[1] > 0.0, "{order:?}, {place}: {norms:?}");
            }
        }
    }
}

/// What a user can compute on paper.
#[test]
fn by_hand() {
    let one = Shape([1, 1, 1, 1]);
    let linear = on_cpu(Op::Conv2d(Conv2d::LINEAR), &[(one, &[3.0]), (one, &[2.0]), (one, &[-1.0])]);
    assert_eq!(linear, [5.0]);
    let edges = Conv2d { pads: [1; 4], ..Conv2d::LINEAR };
    let ones =
        on_cpu(Op::Conv2d(edges), &[(Shape([1, 3, 3, 1]), &[1.0; 9]), (Shape([3, 3, 1, 1]), &[1.0; 9])]);
    assert_eq!(ones, [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]);
    let flat = on_cpu(Op::Flatten(adamant::op::Flatten), &[(Shape([1, 1, 2, 2]), &[1.0, 2.0, 3.0, 4.0])]);
    assert_eq!(flat, [1.0, 3.0, 2.0, 4.0]);
}

/// An image with no gradient, or inside its ball, is where it was; every other one is in its ball.
#[test]
fn attack_steps_stay_in_the_ball_and_the_box() {
    let mut cpu = Device::cpu();
    let mut failures = Failures::new();
    for case in cases::attack::cases() {
        if let Op::AttackStep(_) | Op::AttackStart(_) | Op::NormalStart(_) = case.op {
            failures.check(&case.name, stays_inside(&case, &mut cpu));
        }
    }
    failures.report();
}

fn stays_inside(case: &Case, cpu: &mut Device) -> Result<(), String> {
    use adamant::op::{AttackStart, AttackStep, Norm};
    let found = run(case, cpu)?.remove(0);
    let clean = case.inputs[0].values(&case.stream(), 0);
    let (norm, position) = match case.op {
        Op::AttackStart(AttackStart { norm }) => (norm, 1),
        Op::AttackStep(AttackStep { norm }) => (norm, 2),
        Op::NormalStart(_) => (Norm::Linf, 1),
        _ => return Err("not an attack".into()),
    };
    let radius = case.inputs[position].values(&case.stream(), position);
    let per_image = found.shape.per_batch();
    let images = found.data.chunks_exact(per_image).zip(clean.chunks_exact(per_image));
    for (n, ((image, clean), radius)) in images.zip(radius).enumerate() {
        if let Some(outside) = image.iter().find(|x| !(0.0..=1.0).contains(*x)) {
            return Err(format!("image {n} has a value of {outside}"));
        }
        let moved = image.iter().zip(clean).map(|(a, b)| f64::from(a - b).abs());
        let length = match norm {
            Norm::Linf => moved.fold(0.0, f64::max),
            Norm::L2 => moved.map(|d| d * d).sum::<f64>().sqrt(),
        };
        let allowed = f64::from(radius) + Tolerance::Close.absolute();
        if length > allowed {
            return Err(format!("image {n} moved by {length}, its radius is {radius}"));
        }
    }
    Ok(())
}
