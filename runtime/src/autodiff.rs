//! Reverse-mode differentiation: graph in, more graph out. All derivative rules are on this page.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::graph::{Graph, Node, Storage, ValueId};
use crate::ops::{
    Add, AvgPoolGrad, BatchNormGrad, BatchNormParameterGrad, BatchNormTrainGrad, ChannelAffineGrad,
    ChannelSum, Conv2dGradInput, Conv2dGradWeight, CrossEntropyGrad, Fill, Function, ImageSpread, ImageSum,
    LargestOtherGrad, LogSoftmaxGrad, LogitLossGrad, Map, MaxPoolGrad, Multiply, NormalizeGrad, Op, ReluGrad,
    Scale, Spread, Sum, Unflatten,
};
use crate::shape::Shape;

/// Adds to `graph` the nodes that compute the gradient of the scalar `loss` with respect to each
/// value of `wrt`, and returns those gradients in the same order.
///
/// Only what lies between `wrt` and `loss` is differentiated: asking for the gradient of the images
/// alone adds no weight gradients. A value that the loss does not depend on gets a gradient of
/// zeros.
pub fn differentiate(graph: &mut Graph, loss: ValueId, wrt: &[ValueId]) -> Result<Vec<ValueId>> {
    let mut wanted = vec![false; graph.values.len()];
    for &value in wrt {
        wanted[value.index()] = true;
    }
    let forward: Vec<Node> = graph.nodes.clone();
    for node in &forward {
        if node.inputs.iter().any(|v| wanted[v.index()]) {
            for output in &node.outputs {
                // An update in place ends the path: no gradient goes through it.
                wanted[output.index()] |= graph.values[output.index()].storage == Storage::Temporary;
            }
        }
    }

    let mut gradients: HashMap<ValueId, ValueId> = HashMap::new();
    let one = graph.add(Op::Fill(Fill { value: 1.0, shape: Shape::SCALAR }), &[])?;
    gradients.insert(loss, one);
    for node in forward.iter().rev() {
        // Only the first output of a node carries a gradient: the others are statistics.
        let Some(&dy) = gradients.get(&node.outputs[0]) else { continue };
        if !node.inputs.iter().any(|v| wanted[v.index()]) {
            continue;
        }
        graph.set_label(&node.label);
        let needs = |i: usize| wanted[node.inputs[i].index()];
        let found = rules(graph, node, dy, &needs)?;
        if (0..node.inputs.len()).any(|i| needs(i) && found.iter().all(|(input, _)| *input != i)) {
            return Err(Error::NotDifferentiable { op: node.op.name(), node: node.label.clone() });
        }
        for (input, gradient) in found {
            let input = node.inputs[input];
            let total = match gradients.get(&input) {
                Some(&earlier) => graph.add(Op::Add(Add), &[earlier, gradient])?,
                None => gradient,
            };
            gradients.insert(input, total);
        }
    }
    graph.set_label("");
    wrt.iter()
        .map(|value| match gradients.get(value) {
            Some(&gradient) => Ok(gradient),
            None => graph.add(Op::Fill(Fill { value: 0.0, shape: graph.shape(*value) }), &[]),
        })
        .collect()
}

/// The gradients of a node's inputs, as (input position, value), for those that `needs` asks for.
///
/// Contract of every rule: it consumes `dy`, the gradient of the node's first output. A test puts
/// each operation in the middle of a graph under a coefficient other than 1.
fn rules(
    g: &mut Graph,
    node: &Node,
    dy: ValueId,
    needs: &dyn Fn(usize) -> bool,
) -> Result<Vec<(usize, ValueId)>> {
    let (x, y) = (&node.inputs, &node.outputs);
    let size = |g: &Graph, v: ValueId| {
        let [_, a, b, c] = g.shape(v).0;
        [a, b, c]
    };
    let mut out = Vec::new();
    match &node.op {
        // y = (x - mean) / std
        Op::Normalize(_) => out.push((0, g.add(Op::NormalizeGrad(NormalizeGrad), &[dy, x[2]])?)),
        // y = x * w + b: dx = dy * w transposed, dw = x correlated with dy, db = sum of dy
        Op::Conv2d(conv) => {
            if needs(0) {
                let op = Conv2dGradInput { conv: *conv, input: size(g, x[0]) };
                out.push((0, g.add(Op::Conv2dGradInput(op), &[dy, x[1]])?));
            }
            if needs(1) {
                let op = Conv2dGradWeight { conv: *conv, weight: g.shape(x[1]) };
                out.push((1, g.add(Op::Conv2dGradWeight(op), &[x[0], dy])?));
            }
            if x.len() == 3 && needs(2) {
                out.push((2, g.add(Op::ChannelSum(ChannelSum), &[dy])?));
            }
        }
        // y = xhat * scale + shift with fixed statistics: dx = dy * scale / sigma
        Op::BatchNorm(norm) => {
            let epsilon = norm.epsilon;
            if needs(0) {
                out.push((0, g.add(Op::BatchNormGrad(BatchNormGrad { epsilon }), &[dy, x[1], x[4]])?));
            }
            if needs(1) || needs(2) {
                let op = Op::BatchNormParameterGrad(BatchNormParameterGrad { epsilon });
                let sums = g.add_all(op, &[x[0], dy, x[3], x[4]])?;
                out.extend([(1, sums[0]), (2, sums[1])]);
            }
        }
        // The statistics depend on x: dx = scale / sigma * (dy - mean(dy) - xhat * mean(dy * xhat))
        Op::BatchNormTrain(norm) => {
            let op = Op::BatchNormTrainGrad(BatchNormTrainGrad { epsilon: norm.epsilon });
            let all = g.add_all(op, &[x[0], dy, x[1], y[1], y[2]])?;
            out.extend([(0, all[0]), (1, all[1]), (2, all[2])]);
        }
        // y = min(max(x, 0), max): dx = dy where 0 < y < max
        Op::Relu(relu) => out.push((0, g.add(Op::ReluGrad(ReluGrad { max: relu.max }), &[y[0], dy])?)),
        // y = a + b
        Op::Add(_) => out.extend([(0, dy), (1, dy)]),
        // dy goes to the first maximum of its window
        Op::MaxPool(pool) => {
            out.push((0, g.add(Op::MaxPoolGrad(MaxPoolGrad { window: pool.window }), &[x[0], dy])?));
        }
        // dy is shared out over its window
        Op::AvgPool(pool) => {
            let [height, width, _] = size(g, x[0]);
            let op = AvgPoolGrad { pool: *pool, input: [height, width] };
            out.push((0, g.add(Op::AvgPoolGrad(op), &[dy])?));
        }
        Op::Pad(pad) => out.push((0, g.add(Op::Slice(pad.transpose(size(g, x[0]))), &[dy])?)),
        Op::Slice(slice) => out.push((0, g.add(Op::Pad(slice.transpose(size(g, x[0]))), &[dy])?)),
        Op::Flatten(_) => out.push((0, g.add(Op::Unflatten(Unflatten { to: size(g, x[0]) }), &[dy])?)),
        // y = x * scale + shift, with constants
        Op::ChannelAffine(_) => out.push((0, g.add(Op::ChannelAffineGrad(ChannelAffineGrad), &[dy, x[1]])?)),
        // dz = dloss * (softmax(z) - onehot)
        Op::CrossEntropy(_) => {
            out.push((0, g.add(Op::CrossEntropyGrad(CrossEntropyGrad), &[x[0], x[1], dy])?))
        }
        // A difference of two logits, and what divides it
        Op::LogitLoss(loss) => {
            let op = Op::LogitLossGrad(LogitLossGrad { kind: loss.kind });
            out.push((0, g.add(op, &[x[0], x[1], x[2], dy])?));
        }
        // y = factor * sum(x)
        Op::Sum(sum) => {
            let op = Spread { factor: sum.factor, shape: g.shape(x[0]) };
            out.push((0, g.add(Op::Spread(op), &[dy])?));
        }
        Op::Spread(spread) => out.push((0, g.add(Op::Sum(Sum { factor: spread.factor }), &[dy])?)),
        Op::Scale(scale) => out.push((0, g.add(Op::Scale(Scale { factor: scale.factor }), &[dy])?)),
        Op::Copy(_) => out.push((0, dy)),
        // y = a * b
        Op::Multiply(_) => {
            for (i, other) in [(0, x[1]), (1, x[0])] {
                if needs(i) {
                    out.push((i, g.add(Op::Multiply(Multiply), &[dy, other])?));
                }
            }
        }
        // y = f(u), u = scale * x + shift: dx = dy * scale * f'(u)
        Op::Map(map) => {
            let of_input = |function| Op::Map(Map { function, ..*map });
            let (slope, factor) = match map.function {
                Function::Exp => (Some(y[0]), map.scale),
                // f' = 1 / u
                Function::Log => (Some(g.add(of_input(Function::Reciprocal), &[x[0]])?), map.scale),
                Function::Abs => (Some(g.add(of_input(Function::Sign), &[x[0]])?), map.scale),
                Function::Sign => {
                    return Err(Error::NotDifferentiable { op: "Sign", node: node.label.clone() });
                }
                // f' = 1 / (2 y)
                Function::SquareRoot => {
                    (Some(g.add(Op::Map(Map::plain(Function::Reciprocal)), &[y[0]])?), 0.5 * map.scale)
                }
                // f' = -y * y
                Function::Reciprocal => (Some(g.add(Op::Multiply(Multiply), &[y[0], y[0]])?), -map.scale),
                // f' = 1 - y * y
                Function::Tanh => {
                    let square = g.add(Op::Multiply(Multiply), &[y[0], y[0]])?;
                    let rest = Map { function: Function::Identity, scale: -1.0, shift: 1.0 };
                    (Some(g.add(Op::Map(rest), &[square])?), map.scale)
                }
                Function::Identity => (None, map.scale),
            };
            let product = match slope {
                Some(slope) => g.add(Op::Multiply(Multiply), &[dy, slope])?,
                None => dy,
            };
            out.push((0, g.add(Op::Scale(Scale { factor }), &[product])?));
        }
        // y[n] = factor * sum over i of x[n,i]
        Op::ImageSum(sum) => {
            let op = ImageSpread { factor: sum.factor, shape: g.shape(x[0]) };
            out.push((0, g.add(Op::ImageSpread(op), &[dy])?));
        }
        Op::ImageSpread(spread) => {
            out.push((0, g.add(Op::ImageSum(ImageSum { factor: spread.factor }), &[dy])?));
        }
        // dz = dy - softmax(z) * sum of dy
        Op::LogSoftmax(_) => out.push((0, g.add(Op::LogSoftmaxGrad(LogSoftmaxGrad), &[y[0], dy])?)),
        // dy goes to the class that is the largest
        Op::LargestOther(_) => {
            out.push((0, g.add(Op::LargestOtherGrad(LargestOtherGrad), &[x[0], x[1], dy])?));
        }
        op => return Err(Error::NotDifferentiable { op: op.name(), node: node.label.clone() }),
    }
    Ok(out.into_iter().filter(|&(i, _)| needs(i)).collect())
}
