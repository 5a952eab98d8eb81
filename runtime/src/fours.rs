//! Channels in fours: the kernels of GPUs that read and multiply four channels at once take no convolution of an
//! image's three. A fourth of zeros costs them less than it costs to go without.

use std::collections::HashMap;

use crate::error::Result;
use crate::graph::{Graph, Node, Storage, ValueId};
use crate::ops::{Conv2d, Conv2dGradWeight, FusedConv2d, Op, Pad, Slice};
use crate::shape::Shape;

/// An equivalent graph in which convolutions that are one input channel short of fours have it: what they read has a
/// channel of zeros more, and so has their weight.
pub(crate) fn in_fours(mut graph: Graph) -> Result<Graph> {
    let nodes = std::mem::take(&mut graph.nodes);
    // The wide form of what convolutions read, made once where nothing can change between two of them.
    let mut images = HashMap::new();
    for mut node in nodes {
        graph.set_label(&node.label);
        match node.op {
            Op::Conv2d(conv) | Op::FusedConv2d(FusedConv2d { conv, .. })
                if is_short(&conv, graph.shape(node.inputs[1])) =>
            {
                node.inputs[0] = widened(&mut graph, node.inputs[0], &mut images)?;
                // The axes of a weight are kernel height, kernel width, input channels and output channels.
                node.inputs[1] = graph.add(one_more(1), &[node.inputs[1]])?;
            }
            Op::Conv2dGradWeight(gradient) if is_short(&gradient.conv, gradient.weight) => {
                let Shape([height, width, ins, outs]) = gradient.weight;
                let weight = Shape([height, width, ins + 1, outs]);
                let image = widened(&mut graph, node.inputs[0], &mut images)?;
                let op = Op::Conv2dGradWeight(Conv2dGradWeight { weight, ..gradient });
                let wide = graph.add(op, &[image, node.inputs[1]])?;
                let op = Op::Slice(Slice { start: [0; 3], step: [1; 3], len: [width, ins, outs] });
                node = Node { op, inputs: vec![wide], ..node };
            }
            _ => {}
        }
        graph.nodes.push(node);
    }
    Ok(graph)
}

fn is_short(conv: &Conv2d, weight: Shape) -> bool {
    let [_, _, ins, outs] = weight.0;
    conv.groups == 1 && ins % 4 == 3 && outs.is_multiple_of(4)
}

/// Padding at the end of one of the axes height, width and channels.
fn one_more(axis: usize) -> Op {
    let mut after = [0; 3];
    after[axis] = 1;
    Op::Pad(Pad { before: [0; 3], after, interior: [0; 3], value: 0.0 })
}

fn widened(graph: &mut Graph, image: ValueId, images: &mut HashMap<ValueId, ValueId>) -> Result<ValueId> {
    if let Some(&found) = images.get(&image) {
        return Ok(found);
    }
    let wide = graph.add(one_more(2), &[image])?;
    if graph.values[image.index()].storage == Storage::Temporary {
        images.insert(image, wide);
    }
    Ok(wide)
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use super::*;
    use crate::architectures::Architecture;
    use crate::device::Device;
    use crate::footprint::training_step;
    use crate::fuse::fuse;
    use crate::optim::{Optimizer, OptimizerConfig};
    use crate::session::{Images, Session};

    fn train(arch: &str, input: [usize; 3], is_wide: bool) -> (Vec<f32>, usize) {
        let model = Architecture::build(arch, input, 10, 1).expect("it is known");
        let mut session = Session::new(Device::cpu(), &model, 3).expect("it fits");
        let images: Vec<f32> =
            (0..3 * input.iter().product::<usize>()).map(|i| (i % 89) as f32 / 88.0).collect();
        session.load(&images, &[1, 2, 3], &[0, 1, 2]).expect("they fit");
        let optimizer = Optimizer::new(&OptimizerConfig::default(), &mut session).expect("it fits");
        optimizer.set_rate(&mut session, 0.1, 1);
        let mut m = session.graph(3);
        training_step(&mut m, &optimizer, Images::Clean).expect("it fits");
        let fused = fuse(&m.graph);
        let graph = if is_wide { in_fours(fused).expect("it fits") } else { fused };
        let padded = graph.nodes().iter().filter(|n| matches!(n.op, Op::Pad(_))).count();
        let mut program = session.device().compile(&graph).expect("it compiles");
        session.device().run(&mut program).expect("it runs");
        let parameters = session.read_parameters().expect("they are there");
        (parameters.into_iter().flat_map(|t| t.data).collect(), padded)
    }

    #[test]
    fn a_channel_of_zeros_changes_nothing() {
        for (arch, input) in [("resnet18", [3, 34, 33]), ("resnet18", [7, 20, 32])] {
            let (plain, none) = train(arch, input, false);
            let (wide, padded) = train(arch, input, true);
            // The image, once for both that read it, and the weight.
            assert_eq!((none, padded), (0, 2), "{arch}");
            let error = plain.iter().zip(&wide).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
            let norm = plain.iter().map(|&a| f64::from(a).powi(2)).sum::<f64>().sqrt();
            assert!(error <= 1e-5 * norm, "{arch}: {error} of {norm}");
        }
        // Four channels have what they need.
        assert_eq!(train("resnet18", [4, 16, 16], true).1, 0);
    }
}
