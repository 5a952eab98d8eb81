//! The steps of APGD and Square.

use adamant::Shape;
use adamant::op::{ApgdCheckpoint, ApgdTrack, Mix, Norm, Op, SquareStart, SquareWindow};

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
