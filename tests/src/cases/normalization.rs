//! Per-channel affine maps: the input's normalisation, constants of the file, BatchNorm.

use adamant::Shape;
use adamant::op::{
    BatchNorm, BatchNormGrad, BatchNormParameterGrad, BatchNormTrain, BatchNormTrainGrad, ChannelAffine,
    ChannelAffineGrad, FusedBatchNorm, FusedBatchNormTrain, Normalize, NormalizeGrad, Op, Relu,
    RunningStatistics,
};

use super::{Case, Input, PAST_ONE_GRID_ROW, normal, positive, shape, vector};
use crate::compare::Tolerance;

const EPSILON: f32 = 1e-5;

pub fn cases() -> Vec<Case> {
    [image(), affine(), running(), training(), fused(), statistics()].concat()
}

/// Images are batch x channels x height x width.
fn image() -> Vec<Case> {
    let shapes = [
        ("three channels", shape(2, 3, 5, 7)),
        ("one channel", shape(3, 1, 4, 4)),
        ("five channels, one pixel", shape(2, 5, 1, 1)),
        ("past one grid row", shape(6, 2, 1000, 701)),
    ];
    let mut cases = Vec::new();
    for (name, Shape([n, c, h, w])) in shapes {
        let image = Input::Uniform(Shape([n, c, h, w]), [0.0, 1.0]);
        let op = Op::Normalize(Normalize);
        cases.push(Case::new(name, op, [image, vector(c), positive(c)]).within(Tolerance::Close));
        let op = Op::NormalizeGrad(NormalizeGrad);
        cases.push(Case::new(name, op, [normal(shape(n, h, w, c)), positive(c)]).within(Tolerance::Close));
    }
    cases
}

/// Shapes of activations.
fn shapes() -> [(&'static str, Shape); 5] {
    [
        ("odd channels", shape(3, 5, 4, 7)),
        ("channels in fours", shape(2, 3, 6, 16)),
        ("one channel", shape(2, 5, 3, 1)),
        ("more channels than threads", shape(2, 1, 1, 300)),
        ("past one grid row", shape(2, 300, 701, 10)),
    ]
}

fn affine() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, x) in shapes() {
        let c = x.channels();
        let op = Op::ChannelAffine(ChannelAffine);
        cases.push(Case::new(name, op, [normal(x), vector(c), vector(c)]).within(Tolerance::Close));
        let op = Op::ChannelAffineGrad(ChannelAffineGrad);
        cases.push(Case::new(name, op, [normal(x), vector(c)]).within(Tolerance::Close));
    }
    cases
}

/// BatchNorm with running statistics.
fn running() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, x) in shapes() {
        let c = x.channels();
        for (note, epsilon) in [("", EPSILON), (", epsilon 0.1", 0.1)] {
            let name = format!("{name}{note}");
            let op = Op::BatchNorm(BatchNorm { epsilon, momentum: 0.1 });
            cases.push(Case::new(&name, op, [normal(x), positive(c), vector(c), vector(c), positive(c)]));
            let op = Op::BatchNormGrad(BatchNormGrad { epsilon });
            cases.push(Case::new(&name, op, [normal(x), positive(c), positive(c)]));
        }
    }
    for (name, x) in reductions() {
        let c = x.channels();
        let op = Op::BatchNormParameterGrad(BatchNormParameterGrad { epsilon: EPSILON });
        cases.push(Case::new(name, op, [normal(x), gradient(x), vector(c), positive(c)]));
    }
    cases
}

/// Shapes that sums over pixels are split up differently for.
fn reductions() -> [(&'static str, Shape); 7] {
    [
        ("one pixel", shape(1, 1, 1, 5)),
        ("one pixel an image", shape(6, 1, 1, 9)),
        ("few pixels", shape(2, 3, 3, 7)),
        ("many pixels, few channels", shape(4, 61, 67, 3)),
        ("many pixels, many channels", shape(2, 16, 16, 130)),
        ("one channel", shape(2, 45, 40, 1)),
        ("more channels than parts", shape(2, 2, 2, 17_000)),
    ]
}

/// An upstream gradient whose sums over the pixels stay around 1.
fn gradient(x: Shape) -> Input {
    Input::Normal(x, 1.0 / ((x.len() / x.channels()) as f32).sqrt())
}

/// BatchNorm with the statistics of the batch.
fn training() -> Vec<Case> {
    let mut cases = Vec::new();
    let forward = |name: &str, x: Input, epsilon: f32| {
        let c = x.shape().channels();
        Case::new(name, Op::BatchNormTrain(BatchNormTrain { epsilon }), [x, positive(c), vector(c)])
    };
    let backward = |name: &str, x: Shape, epsilon: f32| {
        let c = x.channels();
        let op = Op::BatchNormTrainGrad(BatchNormTrainGrad { epsilon });
        Case::new(name, op, [normal(x), gradient(x), positive(c), vector(c), positive(c)])
    };
    for (name, x) in reductions() {
        // A sigma of nearly zero magnifies roundings.
        let few = x.len() / x.channels() < 10;
        let tolerance = if few { Tolerance::Loose } else { Tolerance::Approximate };
        cases.push(forward(name, normal(x), EPSILON).within(tolerance));
        cases.push(backward(name, x, EPSILON));
    }
    let x = shape(3, 9, 8, 6);
    cases.push(forward("epsilon 0.1", normal(x), 0.1));
    cases.push(backward("epsilon 0.1", x, 0.1));
    cases.push(
        forward("mean far from zero", Input::Uniform(x, [99.0, 101.0]), EPSILON).within(Tolerance::Loose),
    );
    // Its sigma is the root of epsilon, which magnifies the rounding of its mean 300 times.
    cases.push(forward("a constant", Input::Given(x, vec![0.75]), EPSILON).within(Tolerance::Loose));
    let long = shape(1, PAST_ONE_GRID_ROW / 1000 + 1, 100, 10);
    cases.push(forward("past one grid row", normal(long), EPSILON));
    cases.push(backward("past one grid row", long, EPSILON));
    cases
}

/// BatchNorm with what follows it.
fn fused() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, x) in shapes() {
        let c = x.channels();
        for (note, residual, relu) in [
            ("residual", true, None),
            ("relu", false, Some(Relu::PLAIN)),
            ("residual, relu6", true, Some(Relu { max: 6.0 })),
            ("an upper bound of 0.5", false, Some(Relu { max: 0.5 })),
        ] {
            let name = format!("{name}, {note}");
            let with = |mut inputs: Vec<Input>| {
                inputs.extend(residual.then(|| normal(x)));
                inputs
            };
            let norm = BatchNorm { epsilon: EPSILON, momentum: 0.1 };
            let op = Op::FusedBatchNorm(FusedBatchNorm { norm, residual, relu });
            let inputs = with(vec![normal(x), positive(c), vector(c), vector(c), positive(c)]);
            cases.push(Case::new(&name, op, inputs));
            let norm = BatchNormTrain { epsilon: EPSILON };
            let op = Op::FusedBatchNormTrain(FusedBatchNormTrain { norm, residual, relu });
            let inputs = with(vec![normal(x), positive(c), vector(c)]);
            // Two values of a channel may be close together, and a sigma of nearly zero magnifies roundings.
            let few = x.len() / c < 10;
            let tolerance = if few { Tolerance::Loose } else { Tolerance::Approximate };
            cases.push(Case::new(&name, op, inputs).within(tolerance));
        }
    }
    cases
}

fn statistics() -> Vec<Case> {
    let case = |name: &str, channels: usize, momentum: f32, count: u32| {
        Case::new(
            name,
            Op::RunningStatistics(RunningStatistics { momentum, count }),
            [vector(channels), positive(channels)],
        )
        .updating([vector(channels), positive(channels)])
        .within(Tolerance::Close)
    };
    vec![
        case("momentum 0.1", 9, 0.1, 640),
        case("momentum 1", 9, 1.0, 640),
        case("two values", 70, 0.3, 2),
        case("one value has no unbiased variance", 3, 0.1, 1),
    ]
}
