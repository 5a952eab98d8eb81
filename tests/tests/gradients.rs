//! Derivatives against finite differences, on the CPU executor.
//!
//! Each operation stands in the middle of a graph: behind a coefficient, before a coefficient, and
//! under a loss whose gradient differs from element to element. A rule that ignores its upstream
//! gradient, or takes it for a constant, cannot pass.

use adamant::op::{
    Add, AvgPool, BatchNorm, BatchNormTrain, ChannelAffine, Conv2d, Copy, Correct, CrossEntropy, Flatten,
    Function, ImageSpread, ImageSum, LargestOther, LogSoftmax, LogitLoss, LogitLossKind, Map, MaxPool,
    Multiply, Normalize, Op, Pad, Relu, Scale, Slice, Spread, Sum,
};
use adamant::{Device, Error, Graph, Result, Shape, Tensor, ValueId, Variable, differentiate};
use adamant_tests::cases::convolution::GEOMETRIES;
use adamant_tests::cases::{Case, Input, normal, positive, shape, vector, window};
use adamant_tests::{Failures, Tolerance, compare};

/// Step of an element in a central difference: roundings of the loss and its third derivative are both
/// far below [`Tolerance::Rough`].
const STEP: f32 = 4e-3;

/// Directions longer than this take smaller steps: all elements move at once.
const LENGTH: f32 = 20.0;

/// Directions that a gradient is projected on.
const DIRECTIONS: usize = 6;

const CLASSES: usize = 4;

/// How the operation is embedded.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Around {
    /// One path through the operation.
    Chain,
    /// Its input and its output are both used twice.
    FanOut,
}

/// A loss as a function of the case's inputs.
struct Probe {
    device: Device,
    program: adamant::Program,
    inputs: Vec<(Variable, Vec<f32>)>,
    loss: Variable,
    gradients: Vec<Variable>,
}

fn add(graph: &mut Graph, op: Op, inputs: &[ValueId]) -> ValueId {
    graph.add(op, inputs).expect("shapes fit")
}

fn scale(graph: &mut Graph, factor: f32, x: ValueId) -> ValueId {
    add(graph, Op::Scale(Scale { factor }), &[x])
}

/// The scalar that is differentiated: 0.7 * sum of the cross-entropies of random logits of y, so
/// that every element of y has an upstream gradient of its own.
fn loss(graph: &mut Graph, device: &mut Device, case: &Case, y: ValueId) -> ValueId {
    let flat = add(graph, Op::Flatten(Flatten), &[y]);
    let flat = scale(graph, -0.6, flat);
    let shape = graph.shape(flat);
    let weight =
        Input::Normal(Shape([1, 1, shape.channels(), CLASSES]), 1.0 / (shape.channels() as f32).sqrt());
    let labels = Input::Below(Shape::per_image(shape.batch()), CLASSES as u32);
    let mut constant = |graph: &mut Graph, input: &Input, position: usize| {
        let values = input.values(&case.stream(), position);
        let variable = device.variable_from(&values).expect("host memory");
        graph.variable(variable, input.shape())
    };
    let (weight, labels) = (constant(graph, &weight, 100), constant(graph, &labels, 101));
    let logits = add(graph, Op::Conv2d(Conv2d::LINEAR), &[flat, weight]);
    let losses = add(graph, Op::CrossEntropy(CrossEntropy), &[logits, labels]);
    add(graph, Op::Sum(Sum { factor: 0.7 }), &[losses])
}

impl Probe {
    /// The gradient is taken with respect to the first `wrt` inputs.
    fn new(case: &Case, around: Around, wrt: usize) -> Result<Self> {
        let mut device = Device::cpu();
        let mut graph = Graph::new();
        let mut inputs = Vec::new();
        let mut values = Vec::new();
        for (position, input) in case.inputs.iter().enumerate() {
            let data = input.values(&case.stream(), position);
            let variable = device.variable_from(&data)?;
            values.push(graph.variable(variable, input.shape()));
            inputs.push((variable, data));
        }
        let mut arguments = values.clone();
        arguments[0] = scale(&mut graph, 1.7, values[0]);
        let x = arguments[0];
        graph.set_label(&case.name);
        let mut y = graph.add_all(case.op.clone(), &arguments)?[0];
        if around == Around::FanOut {
            let again = graph.add_all(case.op.clone(), &arguments)?[0];
            let again = scale(&mut graph, 0.3, again);
            y = add(&mut graph, Op::Add(Add), &[y, again]);
            y = add(&mut graph, Op::Add(Add), &[y, y]);
        }
        let mut total = loss(&mut graph, &mut device, case, y);
        if around == Around::FanOut {
            let side = add(&mut graph, Op::Sum(Sum { factor: 0.01 }), &[x]);
            total = add(&mut graph, Op::Add(Add), &[total, side]);
        }
        let mut keep = |graph: &mut Graph, value: ValueId| -> Result<Variable> {
            let shape = graph.shape(value);
            let variable = device.variable(shape.len())?;
            let target = graph.variable(variable, shape);
            graph.update(Op::Copy(Copy), &[value], &[target])?;
            Ok(variable)
        };
        let loss = keep(&mut graph, total)?;
        let gradients = differentiate(&mut graph, total, &values[..wrt])?
            .into_iter()
            .map(|gradient| keep(&mut graph, gradient))
            .collect::<Result<_>>()?;
        let program = device.compile(&graph)?;
        Ok(Self { device, program, inputs, loss, gradients })
    }

    fn run(&mut self) -> Result<f64> {
        self.device.run(&mut self.program)?;
        Ok(f64::from(self.device.read(self.loss)?[0]))
    }

    /// The loss with input `i` moved by `step` along `direction`.
    fn moved(&mut self, i: usize, direction: &[f32], step: f32) -> Result<f64> {
        let (variable, values) = &self.inputs[i];
        let values: Vec<f32> = values.iter().zip(direction).map(|(v, d)| v + step * d).collect();
        self.device.write(*variable, &values);
        self.run()
    }

    /// Projections of the gradient of input `i`, and the differences that they should equal, both
    /// divided by the gradient's length.
    fn projections(&mut self, i: usize, case: &Case) -> Result<(Vec<f32>, Vec<f32>)> {
        let (variable, values) = self.inputs[i].clone();
        self.device.write(variable, &values);
        self.run()?;
        let gradient = self.device.read(self.gradients[i])?;
        let length = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for k in 0..DIRECTIONS {
            let direction = normal(Shape::vector(values.len())).values(&case.stream(), 200 + k);
            let step = STEP * (LENGTH / (values.len() as f32).sqrt()).min(1.0);
            let rise = self.moved(i, &direction, step)? - self.moved(i, &direction, -step)?;
            let slope = rise / (2.0 * f64::from(step));
            let product: f64 =
                gradient.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
            found.push((product / length) as f32);
            expected.push((slope / length) as f32);
        }
        self.device.write(variable, &values);
        Ok((found, expected))
    }
}

/// Checks the gradients of the first `wrt` inputs, in a chain and in a fan-out.
fn check(failures: &mut Failures, case: &Case, wrt: usize) {
    for around in [Around::Chain, Around::FanOut] {
        for i in 0..wrt {
            let name = format!("{}, input {i}, {around:?}", case.name);
            let result = Probe::new(case, around, wrt)
                .and_then(|mut probe| probe.projections(i, case))
                .map_err(|e| e.to_string())
                // A gradient of zeros divides zero by zero, which never agrees.
                .and_then(|(found, expected)| compare(&found, &expected, Tolerance::Rough));
            failures.check(&name, result);
        }
    }
}

fn check_all(cases: &[(Case, usize)]) {
    let mut failures = Failures::new();
    for (case, wrt) in cases {
        check(&mut failures, case, *wrt);
    }
    failures.report();
}

#[test]
fn convolution() {
    let mut failures = Failures::new();
    for geometry in GEOMETRIES {
        let inputs = [
            normal(geometry.x),
            Input::Normal(geometry.w, 1.0 / ((geometry.w.len() / geometry.w.channels()) as f32).sqrt()),
            vector(geometry.w.channels()),
        ];
        check(&mut failures, &Case::new(geometry.name, Op::Conv2d(geometry.conv), inputs), 3);
    }
    failures.report();
}

#[test]
fn pools() {
    let mut failures = Failures::new();
    for (name, window, x, _) in window::windows() {
        if x.len() > 10_000 {
            continue;
        }
        // Without ties, a small enough step leaves every maximum where it is.
        let small = shape(1, x.height(), x.width(), 1);
        let case = Case::new(name, Op::MaxPool(MaxPool { window }), [Input::Distinct(small)]);
        check(&mut failures, &case, 1);
        for count_include_pad in [false, true] {
            let op = Op::AvgPool(AvgPool { window, count_include_pad });
            check(&mut failures, &Case::new(&format!("{name}, {count_include_pad}"), op, [normal(x)]), 1);
        }
    }
    failures.report();
}

#[test]
fn elementwise() {
    let x = shape(3, 3, 2, 4);
    let case = |name: &str, op: Op, input: Input| (Case::new(name, op, [input]), 1);
    check_all(&[
        case("away from zero", Op::Relu(Relu::PLAIN), Input::Distinct(x)),
        // 1.7 * x reaches 1.7: the bound lies between two values.
        case("bounded", Op::Relu(Relu { max: 0.8 }), Input::Distinct(x)),
        case("a negative factor", Op::Scale(Scale { factor: -2.0 }), normal(x)),
        case("a copy", Op::Copy(Copy), normal(x)),
        case("channels first", Op::Flatten(Flatten), normal(x)),
        case("one of two", Op::Sum(Sum { factor: 0.1 }), normal(x)),
        case("a scalar", Op::Spread(Spread { factor: 0.3, shape: x }), normal(Shape::SCALAR)),
        (Case::new("both", Op::Add(Add), [normal(x), normal(x)]), 2),
        (Case::new("both", Op::Multiply(Multiply), [normal(x), normal(x)]), 2),
        case("one value an image", Op::ImageSum(ImageSum { factor: 0.4 }), normal(x)),
        case(
            "an image's value",
            Op::ImageSpread(ImageSpread { factor: -1.2, shape: x }),
            normal(Shape::per_image(x.batch())),
        ),
    ]);
}

#[test]
fn functions() {
    let x = shape(2, 3, 2, 2);
    // The probe scales by 1.7 before, so that u lies in scale * 1.7 * [low, high] + shift.
    let case = |function: Function, scale: f32, shift: f32, low: f32, high: f32| {
        let op = Op::Map(Map { function, scale, shift });
        (Case::new(&format!("{function:?}"), op, [Input::Uniform(x, [low, high])]), 1)
    };
    check_all(&[
        case(Function::Exp, 0.7, -0.2, -1.0, 1.0),
        case(Function::Log, -0.5, 2.0, 0.0, 1.0),
        case(Function::SquareRoot, 0.6, 0.3, 0.2, 1.0),
        case(Function::Tanh, 0.8, -0.1, 0.0, 1.0),
        case(Function::Reciprocal, -0.6, 2.5, 0.0, 1.0),
        case(Function::Identity, -1.4, 0.5, -1.0, 1.0),
        (Case::new("Abs", Op::Map(Map::plain(Function::Abs)), [Input::Distinct(x)]), 1),
    ]);
}

#[test]
fn normalization() {
    let x = shape(3, 4, 5, 3);
    let running = Op::BatchNorm(BatchNorm { epsilon: 1e-3, momentum: 0.1 });
    let batch = Op::BatchNormTrain(BatchNormTrain { epsilon: 1e-3 });
    let image = Shape([2, 3, 4, 5]);
    check_all(&[
        (Case::new("images", Op::Normalize(Normalize), [normal(image), vector(3), positive(3)]), 1),
        (Case::new("constants", Op::ChannelAffine(ChannelAffine), [normal(x), vector(3), vector(3)]), 1),
        (Case::new("running", running, [normal(x), positive(3), vector(3), vector(3), positive(3)]), 3),
        (Case::new("batch", batch.clone(), [normal(x), positive(3), vector(3)]), 3),
        (Case::new("two values a channel", batch, [normal(shape(2, 1, 1, 5)), positive(5), vector(5)]), 3),
    ]);
}

#[test]
fn padding_and_slicing() {
    let x = shape(2, 5, 6, 4);
    let pad = |name: &str, pad: Pad| (Case::new(name, Op::Pad(pad), [normal(x)]), 1);
    let slice = |name: &str, slice: Slice| (Case::new(name, Op::Slice(slice), [normal(x)]), 1);
    check_all(&[
        pad("edges", Pad { before: [1, 2, 0], after: [0, 3, 0], interior: [0; 3], value: 0.0 }),
        pad("channels", Pad { before: [0, 0, 1], after: [0, 0, 2], interior: [0; 3], value: 0.5 }),
        pad("everything", Pad { before: [1, 0, 2], after: [0, 3, 1], interior: [1, 2, 1], value: 0.5 }),
        slice("from a start", Slice { start: [1, 2, 1], step: [1; 3], len: [3, 4, 2] }),
        slice("steps", Slice { start: [0; 3], step: [2, 2, 1], len: [3, 3, 4] }),
        slice("steps that leave a rest", Slice { start: [1, 0, 1], step: [3, 2, 2], len: [2, 2, 1] }),
    ]);
}

#[test]
fn cross_entropy() {
    let logits = shape(5, 1, 1, 6);
    let inputs = [normal(logits), Input::Below(Shape::per_image(5), 6)];
    check_all(&[
        (Case::new("mid-graph", Op::CrossEntropy(CrossEntropy), inputs), 1),
        (Case::new("mid-graph", Op::LogSoftmax(LogSoftmax), [normal(logits)]), 1),
        (
            Case::new(
                "mid-graph",
                Op::LargestOther(LargestOther),
                [Input::Distinct(logits), Input::Below(Shape::per_image(5), 6)],
            ),
            1,
        ),
    ]);
}

#[test]
fn logit_losses() {
    let each = Shape::per_image(5);
    // No two logits so near that a step changes their order, where the losses have kinks.
    let inputs = [Input::Distinct(shape(5, 1, 1, 6)), Input::Below(each, 6), Input::Below(each, 6)];
    let kinds = [
        LogitLossKind::Margin { confidence: 0.5 },
        LogitLossKind::Dlr,
        LogitLossKind::TargetMargin,
        LogitLossKind::TargetDlr,
    ];
    check_all(
        &kinds.map(|kind| {
            (Case::new(&format!("{kind:?}"), Op::LogitLoss(LogitLoss { kind }), inputs.clone()), 1)
        }),
    );
}

/// Image -> conv -> relu -> linear -> loss, and the gradient of what is asked for.
fn small_network(wrt: impl Fn(ValueId, ValueId, ValueId) -> Vec<ValueId>) -> (Graph, Vec<ValueId>) {
    let mut device = Device::cpu();
    let mut graph = Graph::new();
    let mut variable = |graph: &mut Graph, shape: Shape| {
        let variable = device.variable(shape.len()).expect("host memory");
        graph.variable(variable, shape)
    };
    let image = variable(&mut graph, shape(2, 4, 4, 3));
    let first = variable(&mut graph, Shape([3, 3, 3, 5]));
    let second = variable(&mut graph, Shape([1, 1, 20, 4]));
    let labels = variable(&mut graph, Shape::per_image(2));
    graph.set_label("conv1");
    let x = add(&mut graph, Op::Conv2d(Conv2d::LINEAR), &[image, first]);
    graph.set_label("relu1");
    let x = add(&mut graph, Op::Relu(Relu::PLAIN), &[x]);
    graph.set_label("fc");
    let x = add(&mut graph, Op::Flatten(Flatten), &[x]);
    let x = add(&mut graph, Op::Conv2d(Conv2d::LINEAR), &[x, second]);
    graph.set_label("loss");
    let losses = add(&mut graph, Op::CrossEntropy(CrossEntropy), &[x, labels]);
    let loss = add(&mut graph, Op::Sum(Sum { factor: 0.5 }), &[losses]);
    let gradients = differentiate(&mut graph, loss, &wrt(image, first, second)).expect("it has gradients");
    (graph, gradients)
}

fn count(graph: &Graph, name: &str) -> usize {
    graph.nodes().iter().filter(|node| node.op.name() == name).count()
}

#[test]
fn asking_for_images_plans_no_weight_gradients() {
    let (graph, gradients) = small_network(|image, _, _| vec![image]);
    assert_eq!(count(&graph, "Conv2dGradWeight"), 0);
    assert_eq!(count(&graph, "Conv2dGradInput"), 2);
    assert_eq!(graph.shape(gradients[0]), shape(2, 4, 4, 3));
}

#[test]
fn asking_for_weights_plans_no_image_gradient() {
    let (graph, gradients) = small_network(|_, first, second| vec![second, first]);
    assert_eq!(count(&graph, "Conv2dGradWeight"), 2);
    assert_eq!(count(&graph, "Conv2dGradInput"), 1, "to the first layer's output, not to the image");
    assert_eq!(graph.shape(gradients[0]), Shape([1, 1, 20, 4]), "in the order that was asked for");
    assert_eq!(graph.shape(gradients[1]), Shape([3, 3, 3, 5]));
}

#[test]
fn asking_for_the_last_layer_stops_there() {
    let (graph, _) = small_network(|_, _, second| vec![second]);
    assert_eq!(count(&graph, "Conv2dGradWeight"), 1);
    assert_eq!(count(&graph, "Conv2dGradInput"), 0);
    assert_eq!(count(&graph, "ReluGrad"), 0);
}

#[test]
fn gradient_nodes_carry_the_label_of_their_layer() {
    let (graph, _) = small_network(|image, _, _| vec![image]);
    let labels: Vec<&str> = graph
        .nodes()
        .iter()
        .filter(|node| matches!(node.op, Op::Conv2dGradInput(_) | Op::ReluGrad(_)))
        .map(|node| node.label.as_str())
        .collect();
    assert_eq!(labels, ["fc", "relu1", "conv1"]);
}

#[test]
fn what_the_loss_does_not_depend_on_has_a_gradient_of_zeros() {
    let mut device = Device::cpu();
    let mut graph = Graph::new();
    let x = device.variable_from(&[1.0, 2.0, 3.0]).expect("host memory");
    let other = device.variable_from(&[4.0, 5.0]).expect("host memory");
    let (x, other) = (graph.variable(x, Shape::vector(3)), graph.variable(other, Shape::vector(2)));
    let loss = add(&mut graph, Op::Sum(Sum { factor: 2.0 }), &[x]);
    let gradients = differentiate(&mut graph, loss, &[other, x, loss]).expect("it has gradients");
    let mut read = |value: ValueId| -> Vec<f32> {
        let out = device.variable_from(&vec![f32::NAN; graph.shape(value).len()]).expect("host memory");
        let target = graph.variable(out, graph.shape(value));
        graph.update(Op::Copy(Copy), &[value], &[target]).expect("shapes fit");
        let mut program = device.compile(&graph).expect("it fits");
        device.run(&mut program).expect("it runs");
        device.read(out).expect("host memory")
    };
    assert_eq!(read(gradients[0]), [0.0, 0.0]);
    assert_eq!(read(gradients[1]), [2.0, 2.0, 2.0]);
    assert_eq!(read(gradients[2]), [1.0], "the loss with respect to itself");
}

#[test]
fn no_derivative_names_operation_and_node() {
    let mut device = Device::cpu();
    let mut graph = Graph::new();
    let logits = device.variable(6).expect("host memory");
    let labels = device.variable(2).expect("host memory");
    let (logits, labels) =
        (graph.variable(logits, shape(2, 1, 1, 3)), graph.variable(labels, Shape::per_image(2)));
    graph.set_label("accuracy");
    let correct = add(&mut graph, Op::Correct(Correct), &[logits, labels]);
    let loss = add(&mut graph, Op::Sum(Sum { factor: 1.0 }), &[correct]);
    let error = differentiate(&mut graph, loss, &[logits]).expect_err("correctness has no gradient");
    assert!(
        matches!(&error, Error::NotDifferentiable { op: "Correct", node } if node == "accuracy"),
        "{error}"
    );
    assert_eq!(error.to_string(), "no gradient is defined for Correct (node 'accuracy')");
}

/// An input that an operation has no rule for is an error, not a gradient of zero.
#[test]
fn an_input_without_a_rule_is_an_error() {
    let mut device = Device::cpu();
    let mut graph = Graph::new();
    let mut vector = |len: usize| device.variable(len).expect("host memory");
    let (x, scale, shift) = (vector(12), vector(3), vector(3));
    let x = graph.variable(x, shape(2, 1, 2, 3));
    let (scale, shift) = (graph.variable(scale, Shape::vector(3)), graph.variable(shift, Shape::vector(3)));
    graph.set_label("baked normalisation");
    let y = add(&mut graph, Op::ChannelAffine(ChannelAffine), &[x, scale, shift]);
    let loss = add(&mut graph, Op::Sum(Sum { factor: 1.0 }), &[y]);
    differentiate(&mut graph, loss, &[x]).expect("the input has a rule");
    let error = differentiate(&mut graph, loss, &[scale]).expect_err("the constants have none");
    assert!(matches!(&error, Error::NotDifferentiable { op: "ChannelAffine", .. }), "{error}");
}

/// The checker itself has to fail when it should.
#[test]
fn a_wrong_gradient_does_not_pass() {
    let case = Case::new("wrong", Op::Scale(Scale { factor: 2.0 }), [normal(shape(2, 2, 2, 3))]);
    let mut probe = Probe::new(&case, Around::Chain, 1).expect("it builds");
    let (found, expected) = probe.projections(0, &case).expect("it runs");
    compare(&found, &expected, Tolerance::Rough).expect("the right gradient passes");
    let doubled: Vec<f32> = found.iter().map(|v| 2.0 * v).collect();
    compare(&doubled, &expected, Tolerance::Rough).expect_err("twice the gradient does not");
    let tensor = Tensor::zeros(Shape::vector(DIRECTIONS));
    compare(&tensor.data, &expected, Tolerance::Rough).expect_err("no gradient does not");
}
