//! The steps of APGD and Square.

use std::collections::BTreeSet;

use adamant::Shape;
use adamant::op::{
    ApgdCheckpoint, ApgdTrack, FabStep, Mix, Norm, Op, ProjectHyperplane, SquareExchange, SquareStart,
    SquareTiles, SquareWindow,
};

use super::{Case, Input, PAST_ONE_GRID_ROW, shape};
use crate::compare::Tolerance;

fn shapes() -> [(&'static str, Shape); 4] {
    [
        ("small images", shape(4, 3, 5, 7)),
        ("one image", shape(1, 3, 9, 8)),
        ("one channel", shape(3, 1, 6, 6)),
        ("past one grid row", shape(3, 3, 1000, 467)),
    ]
}

fn clean(images: Shape) -> Input {
    Input::Uniform(images, [0.0, 1.0])
}

fn radius(images: Shape, largest: f32) -> Input {
    // One image must not move at all.
    Input::Given(Shape::per_image(images.batch()), vec![largest, 0.3 * largest, 0.0])
}

/// Data set indices and a stream key.
fn random(images: Shape) -> [Input; 2] {
    [Input::Below(Shape::per_image(images.batch()), 60_000), Input::Below(Shape::vector(2), u32::MAX)]
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, images) in shapes() {
        for (norm, largest) in [(Norm::Linf, 0.1), (Norm::L2, 1.5)] {
            for keep in [1.0, 0.75] {
                let inputs = [clean(images), clean(images), radius(images, largest)];
                let case =
                    Case::new(&format!("{norm}, keep {keep}, {name}"), Op::Mix(Mix { norm, keep }), inputs);
                cases.push(case.updating([clean(images), clean(images)]));
            }
        }
        let [indices, key] = random(images);
        let inputs = [clean(images), radius(images, 0.1), indices.clone(), key.clone()];
        cases.push(Case::new(name, Op::SquareStart(SquareStart), inputs).within(Tolerance::Close));
        let least = images.0[2].min(images.0[3]) as u32;
        for side in [1, 3, least, least + 2] {
            let inputs = [
                clean(images),
                clean(images),
                radius(images, 0.1),
                indices.clone(),
                key.clone(),
                Input::Integers(Shape::SCALAR, vec![side]),
            ];
            let name = format!("{name}, side {side}");
            cases.push(Case::new(&name, Op::SquareWindow(SquareWindow), inputs).within(Tolerance::Close));
        }
    }
    cases.extend(track());
    cases.extend(boundary());
    cases.extend(square_l2());
    cases
}

/// Square's perturbations in the l2 ball.
fn square_l2() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, images) in [
        ("small images", shape(4, 3, 7, 7)),
        ("wide images", shape(3, 2, 10, 16)),
        ("one image of one channel", shape(1, 1, 6, 6)),
        ("images of several parts", shape(3, 3, 32, 32)),
        ("past one grid row", shape(66_000, 1, 3, 3)),
    ] {
        let [indices, key] = random(images);
        let [_, _, height, width] = images.0;
        let pattern = Input::Normal(Shape::vector(height * width), 1.0);
        let least = height.min(width);
        // Small images have fewer different sides.
        for side in BTreeSet::from([1, least.min(3), (least / 5).max(1)]) {
            let op = Op::SquareTiles(SquareTiles { shape: images, side });
            let inputs = [indices.clone(), key.clone(), pattern.clone()];
            cases.push(Case::new(&format!("{name}, side {side}"), op, inputs).within(Tolerance::Exact));
        }
        for side in BTreeSet::from([1, 3, least]) {
            // Inside the ball, and outside of it by rounding.
            let inputs = [
                clean(images),
                clean(images),
                radius(images, 100.0),
                indices.clone(),
                key.clone(),
                Input::Integers(Shape::SCALAR, vec![side as u32]),
                pattern.clone(),
            ];
            cases.push(Case::new(
                &format!("{name}, side {side}"),
                Op::SquareExchange(SquareExchange),
                inputs,
            ));
        }
    }
    cases
}

/// FAB's projections and step.
fn boundary() -> Vec<Case> {
    let each =
        |images: Shape, values: &[f32]| Input::Given(Shape::per_image(images.batch()), values.to_vec());
    // Past one row of workgroups: the projection takes one for each image.
    let many = shape(66_000, 1, 1, 2);
    let mut cases = Vec::new();
    for (name, images) in [
        ("small images", shape(6, 3, 5, 7)),
        ("one image", shape(1, 3, 9, 8)),
        ("fewer elements than threads", shape(5, 1, 2, 3)),
        ("images of several parts", shape(6, 3, 32, 32)),
        ("past one grid row", many),
    ] {
        // On the boundary, on both sides of it, and too far from it for any image.
        let offset = each(images, &[0.3, -0.3, 0.0, 1.5, 1e4, -1e4]);
        for (weights, w) in [
            ("", Input::Normal(images, 1.0)),
            (", sparse weights", Input::Given(images, vec![0.0, 1.5, -0.0, -2.0, 0.0])),
            (", no weights", Input::Given(images, vec![0.0])),
            (", small weights", Input::Normal(images, 1e-3)),
        ] {
            for norm in [Norm::Linf, Norm::L2] {
                let inputs = [clean(images), clean(images), w.clone(), offset.clone()];
                let op = Op::ProjectHyperplane(ProjectHyperplane { norm });
                let case = Case::new(&format!("{norm}, {name}{weights}"), op, inputs);
                cases.push(case.within(Tolerance::Loose));
            }
        }
        let (length, other) = (each(images, &[0.1, 0.0, 5.0]), each(images, &[0.2, 0.0, 0.0, 1.0]));
        let move_of = Input::Normal(images, 0.1);
        let inputs = [clean(images), move_of.clone(), move_of, length, other];
        let op = Op::FabStep(FabStep { eta: 1.05, most: 0.1 });
        cases.push(Case::new(name, op, inputs).updating([clean(images)]));
    }
    cases
}

fn track() -> Vec<Case> {
    let each = |values: &[f32], batch: usize| Input::Given(Shape::per_image(batch), values.to_vec());
    let mut cases = Vec::new();
    for (name, batch) in [("every outcome", 12), ("past one grid row", PAST_ONE_GRID_ROW)] {
        // Above, below and equal to the best and to the last.
        let case = Case::new(name, Op::ApgdTrack(ApgdTrack), [each(&[1.0, 2.0, 3.0, 2.0], batch)]);
        let state = [
            each(&[2.0, 2.0, 2.0, 1.0], batch),
            each(&[0.5, 2.0, 5.0], batch),
            each(&[0.0, -3.0, 7.0, 4.0, 1.0], batch),
            each(&[0.0, 1.0], batch),
        ];
        cases.push(case.updating(state).within(Tolerance::Exact));
        let case = Case::new(name, Op::ApgdCheckpoint(ApgdCheckpoint), [each(&[1.0, 2.0, 3.0], batch)]);
        let state = [
            each(&[0.0, -1.0, 1.0, 5.0], batch),
            each(&[2.0, 2.0, 2.0], batch),
            each(&[0.0, 0.0, 0.0, 1.0, 1.0, 1.0], batch),
            each(&[0.2, 0.1], batch),
        ];
        cases.push(case.updating(state).within(Tolerance::Exact));
    }
    cases
}
