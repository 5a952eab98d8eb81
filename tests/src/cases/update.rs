//! Optimisers.

use adamant::Shape;
use adamant::op::{Adam, Average, Op, Sgd};

use super::{Case, Input, PAST_ONE_GRID_ROW, normal, shape};
use crate::compare::Tolerance;

pub fn cases() -> Vec<Case> {
    let weight = shape(3, 3, 5, 7);
    let mut cases = Vec::new();
    for (name, momentum, nesterov, weight_decay) in [
        ("plain", 0.0, false, 0.0),
        ("momentum", 0.9, false, 0.0),
        ("nesterov", 0.9, true, 0.0),
        ("weight decay", 0.9, false, 5e-4),
        ("nesterov and weight decay", 0.9, true, 0.1),
    ] {
        cases.push(sgd(name, Sgd { momentum, nesterov, weight_decay }, weight));
    }
    let adam_like = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, decoupled: false };
    for (name, weight_decay, decoupled) in
        [("plain", 0.0, false), ("weight decay", 0.1, false), ("decoupled weight decay", 0.1, true)]
    {
        let op = Adam { weight_decay, decoupled, ..adam_like };
        cases.push(adam(&format!("{name}, first step"), op, weight, 1, 1.0));
        cases.push(adam(&format!("{name}, step 1000"), op, weight, 1000, 1.0));
    }
    cases.push(adam("no gradient yet", adam_like, weight, 1, 0.0));
    cases.push(adam(
        "other betas",
        Adam { beta1: 0.5, beta2: 0.9, epsilon: 1e-3, ..adam_like },
        weight,
        3,
        1.0,
    ));
    let long = Shape::vector(PAST_ONE_GRID_ROW);
    cases.push(sgd("past one grid row", Sgd { momentum: 0.9, nesterov: true, weight_decay: 1e-4 }, long));
    cases.push(adam("past one grid row", adam_like, long, 2, 1.0));
    for (name, decay, weight) in [
        ("slow", 0.999, weight),
        ("none", 0.0, weight),
        ("all", 1.0, weight),
        ("past one grid row", 0.9, long),
    ] {
        let decay = Input::Given(Shape::SCALAR, vec![decay]);
        let case = Case::new(&format!("decay {name}"), Op::Average(Average), [normal(weight), decay]);
        cases.push(case.updating([normal(weight)]).within(Tolerance::Close));
    }
    cases
}

fn sgd(name: &str, op: Sgd, weight: Shape) -> Case {
    let rate = Input::Given(Shape::SCALAR, vec![0.1]);
    Case::new(name, Op::Sgd(op), [normal(weight), rate])
        .updating([normal(weight), normal(weight)])
        .within(Tolerance::Close)
}

/// `scale` 0 makes gradient and moments zero.
fn adam(name: &str, op: Adam, weight: Shape, step: i32, scale: f32) -> Case {
    let corrections = [op.beta1, op.beta2].map(|beta| 1.0 - beta.powi(step));
    let rates = Input::Given(Shape::vector(3), vec![0.01, corrections[0], corrections[1]]);
    let second = Input::Uniform(weight, [0.0, scale]);
    Case::new(name, Op::Adam(op), [Input::Normal(weight, scale), rates]).updating([
        normal(weight),
        Input::Normal(weight, 0.1 * scale),
        second,
    ])
}
