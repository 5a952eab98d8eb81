//! Losses and metrics of logits.

use adamant::Shape;
use adamant::op::{
    Correct, CrossEntropy, CrossEntropyGrad, LargestOther, LargestOtherGrad, LogSoftmax, LogSoftmaxGrad,
    LogitLoss, LogitLossGrad, LogitLossKind, Op,
};

use super::{Case, Input, PAST_ONE_GRID_ROW, WORKGROUPS_PAST_ONE_GRID_ROW, normal};
use crate::compare::Tolerance;

fn logits(batch: usize, classes: usize) -> Shape {
    Shape([batch, 1, 1, classes])
}

/// Everything that takes logits, on the same ones.
fn all(name: &str, logits: Input, labels: Input) -> [Case; 7] {
    let dloss = Input::Normal(labels.shape(), 1.0);
    let dy = Input::Normal(logits.shape(), 1.0);
    let log = Input::Uniform(logits.shape(), [-9.0, 0.0]);
    let inputs = [logits, labels];
    let with_gradient = [&inputs[..], &[dloss]].concat();
    [
        Case::new(name, Op::CrossEntropy(CrossEntropy), inputs.clone()),
        Case::new(name, Op::CrossEntropyGrad(CrossEntropyGrad), with_gradient.clone()),
        Case::new(name, Op::LogSoftmax(LogSoftmax), [inputs[0].clone()]),
        Case::new(name, Op::LogSoftmaxGrad(LogSoftmaxGrad), [log, dy]),
        Case::new(name, Op::LargestOther(LargestOther), inputs.clone()).within(Tolerance::Exact),
        Case::new(name, Op::LargestOtherGrad(LargestOtherGrad), with_gradient).within(Tolerance::Exact),
        Case::new(name, Op::Correct(Correct), inputs).within(Tolerance::Exact),
    ]
}

/// Every loss of logits that this number of classes has, and its gradient.
fn logit_losses(name: &str, logits: &Input, labels: &Input, targets: &Input) -> Vec<Case> {
    let dloss = Input::Normal(labels.shape(), 1.0);
    let kinds = [
        LogitLossKind::Margin { confidence: f32::INFINITY },
        LogitLossKind::Margin { confidence: 0.5 },
        LogitLossKind::Dlr,
        LogitLossKind::TargetMargin,
        LogitLossKind::TargetDlr,
    ];
    let mut cases = Vec::new();
    for kind in kinds.into_iter().filter(|k| k.classes() <= logits.shape().channels()) {
        let name = format!("{kind:?}, {name}");
        let inputs = [logits.clone(), labels.clone(), targets.clone()];
        cases.push(Case::new(&name, Op::LogitLoss(LogitLoss { kind }), inputs.clone()));
        let inputs = [&inputs[..], std::slice::from_ref(&dloss)].concat();
        cases.push(Case::new(&name, Op::LogitLossGrad(LogitLossGrad { kind }), inputs));
    }
    cases
}

fn all_logit_losses() -> Vec<Case> {
    let random = |name: &str, batch: usize, classes: usize| {
        let each = Shape::per_image(batch);
        let labels = Input::Below(each, classes as u32);
        let targets = Input::Below(each, classes as u32);
        // No ties: the rank of a logit must not hang on rounding.
        logit_losses(name, &Input::Distinct(logits(batch, classes)), &labels, &targets)
    };
    let mut cases: Vec<Case> = [
        random("2 classes", 7, 2),
        random("3 classes", 7, 3),
        random("4 classes", 9, 4),
        random("10 classes", 128, 10),
        random("1000 classes", 3, 1000),
        random("one image", 1, 5),
    ]
    .concat();
    let each = Shape::per_image(PAST_ONE_GRID_ROW);
    // Two classes have one order of labels and rivals, whatever the logits are.
    cases.extend(logit_losses(
        "past one grid row",
        &normal(logits(PAST_ONE_GRID_ROW, 2)),
        &Input::Below(each, 2),
        &Input::Below(each, 2),
    ));
    // Equal logits in every place, and the label in each rank: ties go to the lowest class.
    let rows = [
        [3.0, 3.0, 1.0, 0.0],
        [3.0, 1.0, 3.0, 3.0],
        [2.0, 2.0, 2.0, -1.0],
        [0.0, 1.0, 2.0, 3.0],
        [3.0, 2.0, 1.0, 0.0],
        [0.0, 3.0, 2.0, 1.0],
    ];
    let each = Shape::per_image(rows.len());
    cases.extend(logit_losses(
        "ties",
        &Input::Given(logits(rows.len(), 4), rows.concat()),
        &Input::Integers(each, vec![0, 3, 1, 1, 2, 3]),
        &Input::Integers(each, vec![1, 0, 2, 0, 2, 1]),
    ));
    cases
}

pub fn cases() -> Vec<Case> {
    let random = |name: &str, batch: usize, classes: usize, deviation: f32| {
        let labels = Input::Below(Shape::per_image(batch), classes as u32);
        all(name, Input::Normal(logits(batch, classes), deviation), labels)
    };
    let given = |name: &str, classes: usize, rows: &[f32], labels: &[u32]| {
        let rows = Input::Given(logits(labels.len(), classes), rows.to_vec());
        all(name, rows, Input::Integers(Shape::per_image(labels.len()), labels.to_vec()))
    };
    let mut cases: Vec<Case> = [
        random("2 classes", 7, 2, 2.0),
        random("10 classes", 128, 10, 3.0),
        random("1000 classes", 3, 1000, 2.0),
        random("one image", 1, 5, 1.0),
        random("a batch of 65", 65, 3, 1.0),
        random("past one grid row", WORKGROUPS_PAST_ONE_GRID_ROW, 2, 1.0),
        given(
            "extreme logits",
            3,
            &[1e4, -1e4, 0.0, 1e4, -1e4, 0.0, -1e30, 0.0, 1.0, 80.0, 80.0, -80.0, -9e3, -9e3, -9e3],
            &[0, 1, 0, 1, 2],
        ),
        given("equal logits", 4, &[0.5; 12], &[0, 1, 3]),
    ]
    .concat();
    // The lowest class wins a tie, and what is not finite is never right.
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let rows = [
        [1.0, 1.0, 0.0],
        [1.0, 1.0, 0.0],
        [0.0, 2.0, 2.0],
        [0.0, 2.0, 2.0],
        [nan, 1.0, 0.0],
        [5.0, nan, 0.0],
        [nan, nan, nan],
        [infinity, 0.0, 0.0],
        [5.0, -infinity, 0.0],
        [-0.0, 0.0, -1.0],
        [0.0, -0.0, -1.0],
    ];
    let labels = [0, 1, 1, 2, 1, 0, 0, 0, 0, 0, 1];
    let inputs = [
        Input::Given(logits(labels.len(), 3), rows.concat()),
        Input::Integers(Shape::per_image(labels.len()), labels.to_vec()),
    ];
    cases.push(Case::new("ties and NaN", Op::Correct(Correct), inputs).within(Tolerance::Exact));
    cases.push(
        Case::new(
            "no weight on some images",
            Op::CrossEntropyGrad(CrossEntropyGrad),
            [
                normal(logits(4, 6)),
                Input::Below(Shape::per_image(4), 6),
                Input::Given(Shape::per_image(4), vec![0.0, 1.0, -0.5, 0.0]),
            ],
        )
        .within(Tolerance::Close),
    );
    cases.extend(all_logit_losses());
    cases
}
