//! Operations that take one element after the other.

use adamant::Shape;
use adamant::op::{
    Accumulate, Add, Copy, Fill, Flatten, Function, Map, Multiply, Op, Relu, ReluGrad, Scale, Spread,
    Unflatten,
};

use super::{Case, Input, PAST_ONE_GRID_ROW, normal, shape};
use crate::compare::Tolerance;

/// One element, a partly filled workgroup, a last four that is not full, and more than one grid row
/// of threads that take `elements` each.
fn sizes(elements: usize) -> [(&'static str, Shape); 5] {
    [
        ("one element", Shape::SCALAR),
        ("not a multiple of 4", shape(3, 5, 7, 3)),
        ("not a multiple of 64", shape(3, 5, 6, 3)),
        ("a multiple of 64", shape(2, 4, 8, 16)),
        ("past one grid row", Shape::vector(elements * PAST_ONE_GRID_ROW)),
    ]
}

/// A thousand or so values between two bounds, over and over: quick to make where there are many.
fn spread_over(s: Shape, low: f32, high: f32) -> Input {
    const COUNT: usize = 997;
    // 389 steps of the circle of 997 leave no order.
    let at = |i: usize| low + (high - low) * ((i * 389 % COUNT) as f32 / COUNT as f32);
    Input::Given(s, (0..COUNT).map(at).collect())
}

pub fn cases() -> Vec<Case> {
    [by_four(), by_one(), maps(), flat()].concat()
}

/// Kernels whose threads take four elements.
fn by_four() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, s) in sizes(4) {
        // Gradients at both corners: y is exactly 0 and exactly 6 in many places.
        let y = Input::Given(s, vec![0.0, 0.5, 6.0, 5.5, 3.0, 0.0, -0.0]);
        let (wide, narrow) = (spread_over(s, -10.0, 10.0), spread_over(s, -1.0, 0.7));
        let bounded = format!("bounded, {name}");
        cases.extend([
            Case::new(name, Op::Relu(Relu::PLAIN), [wide.clone()]),
            Case::new(&bounded, Op::Relu(Relu { max: 6.0 }), [wide.clone()]),
            Case::new(name, Op::ReluGrad(ReluGrad { max: f32::INFINITY }), [y.clone(), narrow.clone()]),
            Case::new(&bounded, Op::ReluGrad(ReluGrad { max: 6.0 }), [y, narrow.clone()]),
            Case::new(name, Op::Add(Add), [wide.clone(), narrow.clone()]),
            Case::new(name, Op::Multiply(Multiply), [wide.clone(), narrow]),
            Case::new(name, Op::Scale(Scale { factor: -1.7 }), [wide.clone()]),
            Case::new(name, Op::Copy(Copy), [wide]),
        ]);
    }
    cases.into_iter().map(|case| case.within(Tolerance::Exact)).collect()
}

fn by_one() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, s) in sizes(1) {
        let (wide, narrow) = (spread_over(s, -10.0, 10.0), spread_over(s, -1.0, 0.7));
        cases.extend([
            Case::new(name, Op::Fill(Fill { value: -2.5, shape: s }), []).within(Tolerance::Exact),
            Case::new(name, Op::Accumulate(Accumulate), [narrow]).updating([wide]).within(Tolerance::Exact),
            Case::new(name, Op::Spread(Spread { factor: 0.3, shape: s }), [normal(Shape::SCALAR)])
                .within(Tolerance::Close),
        ]);
    }
    cases
}

/// Every function where it is defined, and where it is at its edge.
fn maps() -> Vec<Case> {
    let x = shape(3, 5, 7, 3);
    let case = |name: &str, function: Function, input: Input| {
        let op = Op::Map(Map { function, scale: 0.8, shift: 0.1 });
        Case::new(&format!("{function:?}, {name}"), op, [input]).within(Tolerance::Close)
    };
    let exact = |name: &str, function: Function, input: Input| {
        Case::new(&format!("{function:?}, {name}"), Op::Map(Map::plain(function)), [input])
            .within(Tolerance::Exact)
    };
    let positive = Input::Uniform(x, [0.2, 3.0]);
    let signs = Input::Given(x, vec![1.5, -0.0, -2.5, 0.0, 1e-30, -1e30, 3.0]);
    vec![
        case("small values", Function::Exp, Input::Uniform(x, [-3.0, 1.0])),
        case("far below zero", Function::Exp, Input::Uniform(x, [-200.0, -20.0])),
        case("positive values", Function::Log, positive.clone()),
        case("near zero", Function::Log, Input::Given(x, vec![-0.124, 0.0, 1e-4, 1e4])),
        case("positive values", Function::SquareRoot, positive.clone()),
        case("large and small", Function::SquareRoot, Input::Given(x, vec![-0.125, 0.0, 1e4, 1e-4])),
        case("positive values", Function::Reciprocal, positive),
        case(
            "both signs",
            Function::Tanh,
            Input::Given(x, vec![-90.0, 90.0, 0.3, -0.7, 0.0, 4.0, -9.0, 1e-3]),
        ),
        case("both signs", Function::Reciprocal, Input::Given(x, vec![-5.0, 5.0, 1e6, -1e6])),
        case("both signs", Function::Identity, normal(x)),
        exact("both signs", Function::Abs, signs.clone()),
        exact("both signs", Function::Sign, signs),
        case("past one grid row", Function::Abs, spread_over(Shape::vector(PAST_ONE_GRID_ROW), -1.0, 1.0)),
    ]
}

fn flat() -> Vec<Case> {
    let exact = |name, op, x| Case::new(name, op, [normal(x)]).within(Tolerance::Exact);
    let large = shape(2, 1050, 1000, 2);
    vec![
        exact("several pixels and channels", Op::Flatten(Flatten), shape(2, 3, 5, 7)),
        exact("one pixel", Op::Flatten(Flatten), shape(3, 1, 1, 10)),
        exact("one channel", Op::Flatten(Flatten), shape(3, 4, 2, 1)),
        exact("past one grid row", Op::Flatten(Flatten), large),
        exact("several pixels and channels", Op::Unflatten(Unflatten { to: [3, 5, 7] }), shape(2, 1, 1, 105)),
        exact("one pixel", Op::Unflatten(Unflatten { to: [1, 1, 10] }), shape(3, 1, 1, 10)),
        exact(
            "past one grid row",
            Op::Unflatten(Unflatten { to: [1050, 1000, 2] }),
            shape(2, 1, 1, 2_100_000),
        ),
    ]
}
