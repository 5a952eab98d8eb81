//! Takes less memory for more arithmetic: activations that gradients need are not kept from the forward
//! pass but computed again (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016).
//!
//! The forward pass is cut into segments where a single activation crosses, as it does between the blocks
//! of a ResNet. Of the segments chosen, what crosses is kept; the rest is computed again, a segment at a
//! time, when the first gradient asks for it. The results are the same bits.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::graph::{Graph, Node, Storage, Value, ValueId};
use crate::ops::Op;
use crate::plan::{Plan, live_nodes};

/// Beyond so many segments what crosses between them takes more than what they save.
const SEGMENTS: usize = 24;
/// Values smaller than this part of the largest one do not count as crossing: logits, losses, statistics.
const SMALL: usize = 64;

/// What is wanted of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// The least arithmetic in at most so many bytes.
    Within(u64),
    /// The least memory.
    Least,
}

/// The plan of `graph` that is wanted, its memory as `bytes` counts it; `plan` is how graphs are planned, `whole`
/// its plan that computes nothing again.
pub(crate) fn plan_within(
    graph: &Graph,
    whole: Plan,
    plan: impl Fn(&Graph) -> Result<Plan>,
    wanted: Wanted,
    bytes: impl Fn(&Plan) -> u64,
) -> Result<Plan> {
    let mut least = bytes(&whole);
    let limit = match wanted {
        Wanted::Within(limit) => limit,
        Wanted::Least => 0,
    };
    if least <= limit {
        return Ok(whole);
    }
    let forward = Forward::new(graph);
    let mut best: Option<Plan> = None;
    let mut smallest = whole;
    for segments in 2..=SEGMENTS.min(forward.crossings.len() + 1) {
        let cuts = forward.cuts(segments);
        let mut try_first = |chosen: usize| -> Result<bool> {
            let found = plan(&forward.recomputing(&cuts[..chosen]))?;
            let taken = bytes(&found);
            if taken < least {
                least = taken;
                smallest.clone_from(&found);
            }
            if taken <= limit && best.as_ref().is_none_or(|b| found.flops < b.flops) {
                best = Some(found);
            }
            Ok(taken <= limit)
        };
        // The more segments are computed again the less memory it takes: the fewest that do are between none
        // and all.
        let (mut too_few, mut enough) = (0, cuts.len());
        if enough == 0 || !try_first(enough)? {
            continue;
        }
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            if try_first(middle)? { enough = middle } else { too_few = middle }
        }
    }
    if wanted == Wanted::Least {
        return Ok(smallest);
    }
    best.ok_or_else(|| {
        Error::Limit(format!(
            "the memory limit is {}, and a batch takes {} even where every activation is computed again; \
             raise --memory-limit or take a smaller --batch",
            binary_size(limit),
            binary_size(least)
        ))
    })
}

/// `12.3 MiB`, or KiB where it is less than one, rounded up: a limit of so much is enough.
pub(crate) fn binary_size(bytes: u64) -> String {
    let (unit, name) = if bytes < 1 << 20 { (1 << 10, "KiB") } else { (1 << 20, "MiB") };
    format!("{:.1} {name}", (bytes as f64 / f64::from(unit) * 10.0).ceil() / 10.0)
}

/// A graph seen as a forward pass and what comes after it.
struct Forward<'a> {
    graph: &'a Graph,
    /// The node that makes each temporary.
    producer: HashMap<ValueId, usize>,
    /// The nodes from here on compute gradients.
    end: usize,
    /// The last position of the forward pass that reads each temporary.
    early: HashMap<ValueId, usize>,
    /// The last position after it that does.
    late: HashMap<ValueId, usize>,
    /// Up to which position the node at one of the forward pass would compute the same once more.
    repeats_until: Vec<usize>,
    /// Positions of the forward pass after which a single large value is still needed by it.
    crossings: Vec<usize>,
}

impl<'a> Forward<'a> {
    fn new(graph: &'a Graph) -> Self {
        let live = live_nodes(graph);
        // Differentiation starts with the gradient of the loss by itself.
        let is_start = |n: &Node| matches!(&n.op, Op::Fill(f) if f.value == 1.0 && f.shape.len() == 1);
        let end = graph.nodes.iter().position(is_start).unwrap_or(graph.nodes.len());
        let mut producer = HashMap::new();
        let mut late = HashMap::new();
        let mut early = HashMap::new();
        for (i, node) in graph.nodes.iter().enumerate().filter(|&(i, _)| live[i]) {
            for &input in &node.inputs {
                let Some(&made) = producer.get(&input) else { continue };
                if i < end {
                    early.insert(input, i);
                } else if made < end {
                    late.insert(input, i);
                }
            }
            for &output in &node.outputs {
                if graph.values[output.index()].storage == Storage::Temporary {
                    producer.insert(output, i);
                }
            }
        }
        let len = |v: &ValueId| graph.shape(*v).len();
        let largest = early.keys().map(len).max().unwrap_or(0);
        let mut crossing = vec![0_usize; end];
        for (value, &last) in early.iter().filter(|(v, _)| len(v) * SMALL > largest) {
            crossing[producer[value]..last].iter_mut().for_each(|n| *n += 1);
        }
        let crossings = (0..end).filter(|&i| crossing[i] == 1).collect();
        let repeats_until = (0..end).map(|i| repeats_until(graph, i)).collect();
        Self { graph, producer, end, early, late, repeats_until, crossings }
    }

    /// Elements that gradients need of what the node at `position` makes.
    fn kept_for_gradients(&self, position: usize) -> usize {
        let outputs = &self.graph.nodes[position].outputs;
        outputs.iter().filter(|o| self.late.contains_key(o)).map(|&o| self.graph.shape(o).len()).sum()
    }

    /// Up to `segments` - 1 crossings, between which gradients need about as much each.
    fn cuts(&self, segments: usize) -> Vec<usize> {
        let total: usize = (0..self.end).map(|i| self.kept_for_gradients(i)).sum();
        let mut cuts = Vec::new();
        let (mut sum, mut next) = (0, 0);
        for &crossing in &self.crossings {
            sum += (next..=crossing).map(|i| self.kept_for_gradients(i)).sum::<usize>();
            next = crossing + 1;
            if sum * segments >= total * (cuts.len() + 1) && cuts.len() + 1 < segments {
                cuts.push(crossing);
            }
        }
        cuts
    }

    /// The graph in which the segments that end at `cuts` are computed again for the gradients.
    fn recomputing(&self, cuts: &[usize]) -> Graph {
        let mut again = Again { forward: self, cuts, made: HashMap::new(), graph: Graph::new() };
        again.graph.values.clone_from(&self.graph.values);
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let mut node = node.clone();
            if i >= self.end {
                for input in &mut node.inputs {
                    *input = again.value(*input, i);
                }
            }
            again.graph.nodes.push(node);
        }
        again.graph
    }
}

/// The position of the first node, from `position` on, that writes a variable which the node at `position`
/// reads; `position` itself when that node does more than make temporaries.
fn repeats_until(graph: &Graph, position: usize) -> usize {
    let variable = |v: &ValueId| match graph.values[v.index()].storage {
        Storage::Variable(variable) => Some(variable),
        Storage::Temporary => None,
    };
    let node = &graph.nodes[position];
    if node.outputs.iter().any(|o| variable(o).is_some()) {
        return position;
    }
    let read: Vec<_> = node.inputs.iter().filter_map(variable).collect();
    let writes = |n: &Node| n.outputs.iter().filter_map(variable).any(|v| read.contains(&v));
    let first = graph.nodes[position..].iter().position(writes);
    first.map_or(graph.nodes.len(), |after| position + after)
}

/// A graph in the making, and which of its values were computed again.
struct Again<'a> {
    forward: &'a Forward<'a>,
    cuts: &'a [usize],
    made: HashMap<ValueId, ValueId>,
    graph: Graph,
}

impl Again<'_> {
    /// The segment of a position, where it is one of those to compute again.
    fn segment(&self, position: usize) -> Option<usize> {
        let segment = self.cuts.partition_point(|&cut| cut < position);
        (segment < self.cuts.len()).then_some(segment)
    }

    /// What stands for `value` at the position `now` after the forward pass: itself, or the same computed
    /// again.
    fn value(&mut self, value: ValueId, now: usize) -> ValueId {
        if let Some(&made) = self.made.get(&value) {
            return made;
        }
        let Some(&position) = self.forward.producer.get(&value) else { return value };
        if position >= self.forward.end || !self.repeats(value, position, now) {
            return value;
        }
        // Networks are some hundred layers deep, and a segment is a part of one: recursion is safe.
        let mut node = self.forward.graph.nodes[position].clone();
        for input in &mut node.inputs {
            *input = self.value(*input, now);
        }
        for output in &mut node.outputs {
            let shape = self.graph.shape(*output);
            self.graph.values.push(Value { shape, storage: Storage::Temporary });
            let new = ValueId(u32::try_from(self.graph.values.len() - 1).expect("fewer than 2^32 values"));
            self.made.insert(*output, new);
            *output = new;
        }
        self.graph.nodes.push(node);
        self.made[&value]
    }

    /// Whether a value of the forward pass is computed again: it lies in a chosen segment, no later segment
    /// reads it, and it would be the same.
    fn repeats(&self, value: ValueId, position: usize, now: usize) -> bool {
        let stays = |cut: usize| self.forward.early.get(&value).is_none_or(|&last| last <= cut);
        now < self.forward.repeats_until[position]
            && self.segment(position).is_some_and(|s| stays(self.cuts[s]))
    }
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use super::*;
    use crate::architectures::Architecture;
    use crate::device::Device;
    use crate::footprint::training_step;
    use crate::fuse::fuse;
    use crate::loss::Loss;
    use crate::ops::{Add, Copy, Fill};
    use crate::optim::{Optimizer, OptimizerConfig};
    use crate::plan::Limits;
    use crate::random::{Purpose, Stream};
    use crate::session::{Images, ModelGraph, Session};
    use crate::shape::{Shape, Tensor};

    #[test]
    fn sizes_are_rounded_up() {
        for (bytes, shown) in [
            (1, "0.1 KiB"),
            (1 << 10, "1.0 KiB"),
            (800 << 10, "800.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) + 1, "1.1 MiB"),
        ] {
            assert_eq!(binary_size(bytes), shown);
        }
    }

    const IMAGES: usize = 32;

    fn loaded(arch: &str) -> Session {
        let model = Architecture::build(arch, [3, 16, 20], 10, 0).expect("it is known");
        let mut session = Session::new(Device::cpu(), &model, IMAGES).expect("it fits");
        let stream = Stream::new(7, Purpose::Probe, 0, 0);
        let len = model.network.image_shape(IMAGES).len() as u32;
        let images: Vec<f32> = (0..len).map(|i| stream.uniform(0, i)).collect();
        let indices: [u32; IMAGES] = std::array::from_fn(|i| i as u32);
        let labels = indices.map(|i| i % 10);
        session.load(&images, &labels, &indices).expect("they fit");
        session.start_clean(IMAGES).expect("they fit");
        session
    }

    /// The graph as it is run, without a session's split.
    fn run(session: &mut Session, graph: &Graph) -> Vec<Tensor> {
        let mut program = session.device().compile(graph).expect("it fits");
        session.device().run(&mut program).expect("it runs");
        session.read_parameters().expect("they are there")
    }

    fn part_of(graph: &Graph, percent: u64) -> u64 {
        Plan::new(graph, &Limits::HOST).expect("it fits").temporaries.bytes() * percent / 100
    }

    fn nodes_of(plan: &Plan, op: &str) -> usize {
        plan.steps.iter().filter(|s| s.op.name() == op).count()
    }

    #[test]
    fn training_gives_the_same_bits_in_less_memory() {
        // The gradients of the weights are kept in any case: most of what the second takes.
        for (arch, percent) in [("resnet20", 60), ("preact-resnet18", 85), ("wrn-10-1", 85)] {
            let [plain, recomputed] = [false, true].map(|recompute| {
                let mut session = loaded(arch);
                let optimizer = Optimizer::new(&OptimizerConfig::default(), &mut session).expect("it fits");
                let rate = 0.1;
                optimizer.set_rate(&mut session, rate, 1);
                let mut m: ModelGraph = session.graph(IMAGES);
                training_step(&mut m, &optimizer, Images::Clean).expect("it fits");
                let mut graph = fuse(&m.graph);
                if recompute {
                    let limit = part_of(&graph, percent);
                    let whole = Plan::new(&graph, &Limits::HOST).expect("it fits");
                    let flops = whole.flops;
                    let statistics = nodes_of(&whole, "RunningStatistics");
                    let plan = plan_within(
                        &graph,
                        whole,
                        |g| Plan::new(g, &Limits::HOST),
                        Wanted::Within(limit),
                        |plan| plan.temporaries.bytes(),
                    )
                    .expect(arch);
                    assert!(plan.temporaries.bytes() <= limit, "{arch}");
                    assert!(plan.flops > flops, "{arch}: nothing was computed again");
                    assert!((plan.flops as f64) < 1.4 * flops as f64, "{arch}: more than one forward pass");
                    let moved = nodes_of(&plan, "RunningStatistics");
                    assert_eq!(moved, statistics, "{arch}: statistics move once");
                    let forward = Forward::new(&graph);
                    graph = forward.recomputing(&forward.cuts(4));
                }
                run(&mut session, &graph)
            });
            for (a, b) in plain.iter().zip(&recomputed) {
                assert!(a.data.iter().zip(&b.data).all(|(a, b)| a.to_bits() == b.to_bits()), "{arch}");
            }
            assert!(plain.iter().flat_map(|t| &t.data).any(|&v| v != 0.0));
        }
    }

    #[test]
    fn an_attack_gives_the_same_bits_in_less_memory() {
        let gradients = [u64::MAX, 0].map(|least| {
            let mut session = loaded("resnet20");
            let mut m = session.graph(IMAGES);
            m.input_gradient(Loss::CrossEntropy).expect("it fits");
            let graph = fuse(&m.graph);
            let limit = part_of(&graph, 60).max(least);
            let forward = Forward::new(&graph);
            let graph = if least == 0 { forward.recomputing(&forward.cuts(3)) } else { graph.clone() };
            if least == 0 {
                assert!(Plan::new(&graph, &Limits::HOST).expect("it fits").temporaries.bytes() <= limit);
            }
            run(&mut session, &graph);
            let gradient = session.buffers().gradient;
            session.device().read(gradient).expect("it is there")
        });
        assert_eq!(gradients[0], gradients[1]);
        assert!(gradients[0].iter().any(|&g| g != 0.0));
    }

    /// A value whose variable has been written in between would come out as another.
    #[test]
    fn what_has_changed_is_kept() {
        let shape = Shape::vector(4);
        let mut device = Device::cpu();
        let [x, w, out] = [1.0, 2.0, 0.0].map(|v| device.variable_from(&[v; 4]).expect("it fits"));
        let mut graph = Graph::new();
        let [image, weight, target] = [x, w, out].map(|v| graph.variable(v, shape));
        let add = |g: &mut Graph, a, b| g.add(Op::Add(Add), &[a, b]).expect("it fits");
        let sum = add(&mut graph, image, weight);
        let twice = add(&mut graph, sum, sum);
        graph.add(Op::Fill(Fill { value: 1.0, shape: Shape::SCALAR }), &[]).expect("it fits");
        let gradient = add(&mut graph, image, image);
        graph.update(Op::Copy(Copy), &[image], &[weight]).expect("it fits");
        let late = add(&mut graph, gradient, sum);
        let late = add(&mut graph, late, twice);
        graph.update(Op::Copy(Copy), &[late], &[target]).expect("it fits");

        let again = Forward::new(&graph).recomputing(&[1]);
        assert!(again.nodes.len() > graph.nodes.len(), "nothing is computed again");
        for graph in [graph, again] {
            device.write(w, &[2.0; 4]);
            let mut program = device.compile(&graph).expect("it fits");
            device.run(&mut program).expect("it runs");
            // 2, and 3, and 6.
            assert_eq!(device.read(out).expect("it is there"), [11.0; 4]);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_could() {
        let session = loaded("resnet20");
        let mut m = session.graph(IMAGES);
        m.input_gradient(Loss::CrossEntropy).expect("it fits");
        let whole = Plan::new(&m.graph, &Limits::HOST).expect("it fits");
        let plan = |wanted| {
            let plan = |g: &Graph| Plan::new(g, &Limits::HOST);
            plan_within(&m.graph, whole.clone(), plan, wanted, |plan| plan.temporaries.bytes())
        };
        let least = plan(Wanted::Least).expect("it needs no limit").temporaries.bytes();
        assert!(least < whole.temporaries.bytes());
        assert_eq!(plan(Wanted::Within(least)).expect("it is enough").temporaries.bytes(), least);
        plan(Wanted::Within(least - 1)).expect_err("it is less than the least");
        let found = plan(Wanted::Within(1000));
        let message = found.expect_err("a kilobyte is not enough").to_string();
        assert!(message.contains("--memory-limit") && message.contains("MiB"), "{message}");
    }
}
