//! Operations with one thread an element.

use adamant::Shape;
use adamant::op::{Accumulate, Add, Copy, Fill, Flatten, Op, Relu, ReluGrad, Scale, Spread, Unflatten};

use super::{Case, Input, PAST_ONE_GRID_ROW, normal, shape};
use crate::compare::Tolerance;

/// One element, a partly filled workgroup, and more than one grid row.
fn sizes() -> [(&'static str, Shape); 4] {
    [
        ("one element", Shape::SCALAR),
        ("not a multiple of 64", shape(3, 5, 7, 3)),
        ("a multiple of 64", shape(2, 4, 8, 16)),
        ("past one grid row", Shape::vector(PAST_ONE_GRID_ROW)),
    ]
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, s) in sizes() {
        // Gradients at both corners: y is exactly 0 and exactly 6 in many places.
        let y = Input::Given(s, vec![0.0, 0.5, 6.0, 5.5, 3.0, 0.0, -0.0]);
        let wide = Input::Uniform(s, [-10.0, 10.0]);
        let uniform = Input::Uniform(s, [-1.0, 1.0]);
        let exact = |case: Case| case.within(Tolerance::Exact);
        let close = |case: Case| case.within(Tolerance::Close);
        cases.extend([
            exact(Case::new(name, Op::Relu(Relu::PLAIN), [wide.clone()])),
            exact(Case::new(&format!("bounded, {name}"), Op::Relu(Relu { max: 6.0 }), [wide.clone()])),
            exact(Case::new(
                name,
                Op::ReluGrad(ReluGrad { max: f32::INFINITY }),
                [y.clone(), uniform.clone()],
            )),
            exact(Case::new(
                &format!("bounded, {name}"),
                Op::ReluGrad(ReluGrad { max: 6.0 }),
                [y, uniform.clone()],
            )),
            exact(Case::new(name, Op::Add(Add), [wide.clone(), uniform.clone()])),
            exact(Case::new(name, Op::Scale(Scale { factor: -1.7 }), [wide.clone()])),
            exact(Case::new(name, Op::Copy(Copy), [wide.clone()])),
            exact(Case::new(name, Op::Fill(Fill { value: -2.5, shape: s }), [])),
            exact(Case::new(name, Op::Accumulate(Accumulate), [uniform.clone()]).updating([wide])),
            close(Case::new(name, Op::Spread(Spread { factor: 0.3, shape: s }), [normal(Shape::SCALAR)])),
        ]);
    }
    let exact = |name, op, x| Case::new(name, op, [normal(x)]).within(Tolerance::Exact);
    let large = shape(2, 1050, 1000, 2);
    cases.extend([
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
    ]);
    cases
}
