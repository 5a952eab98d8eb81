//! What attacks do to whole images with one number for each.

use adamant::Shape;
use adamant::op::{AccumulateDirection, CopyWhere, ImageNorm, KeepTop, MoveAlong, Noise, Op, Order};

use super::{Case, Input, normal, shape};
use crate::compare::Tolerance;

fn shapes() -> [(&'static str, Shape); 5] {
    [
        ("small images", shape(4, 3, 5, 7)),
        ("one image", shape(1, 3, 9, 8)),
        ("one value an image", Shape::per_image(70)),
        ("images of several parts", shape(3, 3, 32, 32)),
        ("past one grid row", shape(3, 3, 1000, 467)),
    ]
}

/// None, one, some and all elements; weights that are all different, that tie, and that are not numbers.
fn keep_top() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, images: Shape, keep: usize, weight: Input| {
        let op = Op::KeepTop(KeepTop { keep: keep as u32 });
        let inputs = [normal(images), normal(images), weight];
        cases.push(Case::new(&format!("{keep}, {name}"), op, inputs).within(Tolerance::Exact));
    };
    for (name, images) in shapes() {
        let len = images.per_batch();
        for keep in [len / 3, len] {
            add(name, images, keep, normal(images));
        }
    }
    let images = shape(3, 3, 32, 32);
    for keep in [0, 1, 512, 1024, 1536, 3071] {
        add("distinct", images, keep, Input::Distinct(images));
        add("ties", images, keep, Input::Ties(images));
    }
    add("vanishing", images, 100, Input::Normal(images, 1e-30));
    add("all zero", images, 100, Input::Given(images, vec![0.0, -0.0]));
    add("not numbers", images, 700, Input::Given(images, vec![1.0, f32::NAN, -2.0, f32::INFINITY, 0.5]));
    cases
}

fn each(images: Shape, values: &[f32]) -> Input {
    Input::Given(Shape::per_image(images.batch()), values.to_vec())
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, images) in shapes() {
        let flags = each(images, &[1.0, 0.0, 1.0, 0.5]);
        for wanted in [0.0, 1.0] {
            cases.push(
                Case::new(
                    &format!("{name}, {wanted}"),
                    Op::CopyWhere(CopyWhere { wanted }),
                    [normal(images), flags.clone()],
                )
                .updating([normal(images)])
                .within(Tolerance::Exact),
            );
        }
        for order in [Order::L1, Order::L2, Order::Max] {
            let tolerance = if order == Order::Max { Tolerance::Exact } else { Tolerance::Approximate };
            let op = Op::ImageNorm(ImageNorm { order });
            cases.push(Case::new(&format!("{order:?}, {name}"), op, [normal(images)]).within(tolerance));
        }
        for normal in [false, true] {
            let inputs = [
                Input::Below(Shape::per_image(images.batch()), 60_000),
                Input::Below(Shape::vector(2), u32::MAX),
            ];
            let kind = if normal { "normal" } else { "uniform" };
            let op = Op::Noise(Noise { shape: images, normal });
            let tolerance = if normal { Tolerance::Loose } else { Tolerance::Exact };
            cases.push(Case::new(&format!("{kind}, {name}"), op, inputs).within(tolerance));
        }
        let clean = Input::Uniform(images, [0.0, 1.0]);
        let inputs =
            [clean, normal(images), each(images, &[1.0, 0.0, 7.0]), each(images, &[0.3, 0.0, -2.0, 1e-13])];
        cases.push(Case::new(name, Op::MoveAlong(MoveAlong), inputs));
        for decay in [0.0, 1.0, 0.9] {
            let op = Op::AccumulateDirection(AccumulateDirection { decay });
            let case = Case::new(
                &format!("{name}, decay {decay}"),
                op,
                [normal(images), each(images, &[1e-3, 2.0, 40.0])],
            );
            cases.push(case.updating([normal(images)]));
        }
    }
    let images = shape(2, 3, 4, 5);
    let zero = [Input::Given(images, vec![0.0]), each(images, &[0.0])];
    let op = Op::AccumulateDirection(AccumulateDirection { decay: 1.0 });
    cases.push(Case::new("zero gradient", op, zero.clone()).updating([normal(images)]));
    cases.extend(keep_top());
    let [direction, norm] = zero;
    let inputs = [Input::Uniform(images, [0.0, 1.0]), direction, norm, each(images, &[0.5])];
    cases.push(Case::new("zero direction", Op::MoveAlong(MoveAlong), inputs));
    cases
}
