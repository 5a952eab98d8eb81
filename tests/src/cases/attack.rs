//! The device side of the iterative attacks.

use adamant::Shape;
use adamant::op::{AttackStart, AttackStep, KeepWorst, Norm, NormalStart, Op};

use super::{Case, Input, normal, shape};
use crate::compare::Tolerance;

/// Clean images.
fn clean(images: Shape) -> Input {
    Input::Uniform(images, [0.0, 1.0])
}

fn radius(images: Shape, norm: Norm) -> Input {
    let largest = match norm {
        Norm::Linf => 0.1,
        Norm::L2 => 1.5,
    };
    // One image must not move at all.
    Input::Given(Shape::per_image(images.batch()), vec![largest, 0.3 * largest, 0.0])
}

fn shapes() -> [(&'static str, Shape); 4] {
    [
        ("small images", shape(4, 3, 5, 7)),
        ("one image", shape(1, 3, 9, 8)),
        ("one channel", shape(3, 1, 6, 6)),
        ("past one grid row", shape(3, 3, 1000, 467)),
    ]
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, images) in shapes() {
        for norm in [Norm::Linf, Norm::L2] {
            let name = format!("{norm}, {name}");
            cases.push(start(&name, images, norm));
            cases.push(step(&name, images, norm, Input::Normal(images, 1e-3)));
        }
    }
    for (name, images) in shapes() {
        let inputs = start(name, images, Norm::Linf).inputs;
        for deviation in [1e-3, 0.2] {
            let name = format!("{name}, deviation {deviation}");
            let case = Case::new(&name, Op::NormalStart(NormalStart { deviation }), inputs.clone());
            cases.push(case.within(Tolerance::Loose));
        }
    }
    let images = shape(4, 3, 5, 7);
    for norm in [Norm::Linf, Norm::L2] {
        let zero = Input::Given(images, vec![0.0]);
        cases.push(step(&format!("{norm}, zero gradient"), images, norm, zero));
        let sparse = Input::Given(images, vec![0.0, 1.0, -0.0, -2.0, 0.0]);
        cases.push(step(&format!("{norm}, sparse gradient"), images, norm, sparse));
        let tiny = Input::Normal(images, 1e-12);
        cases.push(step(&format!("{norm}, vanishing gradient"), images, norm, tiny));
        let huge = Input::Normal(images, 1e6);
        cases.push(step(&format!("{norm}, large gradient"), images, norm, huge));
    }
    cases.extend(keep_worst());
    cases
}

fn start(name: &str, images: Shape, norm: Norm) -> Case {
    let inputs = [
        clean(images),
        radius(images, norm),
        Input::Below(Shape::per_image(images.batch()), 60_000),
        Input::Below(Shape::vector(2), u32::MAX),
    ];
    // The linf start takes no function that implementations differ in.
    let tolerance = match norm {
        Norm::Linf => Tolerance::Close,
        Norm::L2 => Tolerance::Loose,
    };
    Case::new(name, Op::AttackStart(AttackStart { norm }), inputs).within(tolerance)
}

fn step(name: &str, images: Shape, norm: Norm, gradient: Input) -> Case {
    let length = Input::Uniform(Shape::per_image(images.batch()), [0.01, 0.5]);
    let inputs = [clean(images), gradient, radius(images, norm), length];
    // A start anywhere in the box: most images have to come back to the ball.
    Case::new(name, Op::AttackStep(AttackStep { norm }), inputs).updating([clean(images)])
}

fn keep_worst() -> Vec<Case> {
    let outcomes = [
        // now correct, now loss, best correct, best loss: whether the new try is kept
        [0.0, 0.1, 1.0, 9.0], // fools: kept, at any loss
        [1.0, 9.0, 0.0, 0.1], // does not fool any more
        [1.0, 2.0, 1.0, 1.0], // higher loss
        [1.0, 1.0, 1.0, 2.0], // lower loss
        [0.0, 2.0, 0.0, 1.0], // fools with a higher loss
        [0.0, 1.0, 0.0, 2.0], // fools with a lower loss
        [1.0, 1.5, 1.0, 1.5], // a tie keeps the earlier
    ];
    let column = |i: usize, batch: usize| {
        Input::Given(Shape::per_image(batch), outcomes.iter().map(|o| o[i]).collect())
    };
    let case = |name: &str, images: Shape| {
        let batch = images.batch();
        Case::new(name, Op::KeepWorst(KeepWorst), [normal(images), column(1, batch), column(0, batch)])
            .updating([normal(images), column(3, batch), column(2, batch)])
            .within(Tolerance::Exact)
    };
    vec![case("every outcome", shape(7, 3, 4, 5)), case("past one grid row", shape(21, 3, 200, 333))]
}
