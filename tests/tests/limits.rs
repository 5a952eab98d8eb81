//! Plans are data: what a device cannot run is refused before anything is allocated.

use std::collections::BTreeSet;

use adamant::op::{
    Accumulate, Add, AttackStep, BatchNormTrain, Conv2d, Conv2dGradWeight, Copy, Fill, Norm, Op, Relu, Scale,
    Sum,
};
use adamant::{Device, Graph, Limits, Operand, Plan, Result, Shape, Slot, ValueId, differentiate};
use adamant_tests::Failures;
use adamant_tests::cases;
use adamant_tests::run::plan;

const RELU: Op = Op::Relu(Relu::PLAIN);

/// Variables that no device holds: plans never look at values.
fn variables<const N: usize>(graph: &mut Graph, shapes: [Shape; N]) -> [ValueId; N] {
    let mut device = Device::cpu();
    shapes.map(|shape| {
        let variable = device.variable(shape.len()).expect("host memory");
        graph.variable(variable, shape)
    })
}

fn message(result: Result<Plan>) -> String {
    result.map(|_| ()).expect_err("the plan is refused").to_string()
}

/// A layer named `layer1.conv` over a batch of 3 x 8 x 8 x 4 values.
fn layer(batch: usize) -> Graph {
    let mut graph = Graph::new();
    let [out] = variables(&mut graph, [Shape([batch, 8, 8, 16])]);
    graph.set_label("layer1.conv");
    let x =
        graph.add(Op::Fill(Fill { value: 1.0, shape: Shape([batch, 8, 8, 4]) }), &[]).expect("shapes fit");
    let w = graph.add(Op::Fill(Fill { value: 1.0, shape: Shape([1, 1, 4, 16]) }), &[]).expect("shapes fit");
    graph.update(Op::Conv2d(Conv2d::LINEAR), &[x, w], &[out]).expect("shapes fit");
    graph
}

#[test]
fn a_tensor_too_large_names_the_node_and_a_batch_that_fits() {
    // An image of the output takes 8 * 8 * 16 * 4 bytes = 4 KiB.
    let limits = Limits { storage_binding: 100 * 1024, ..Limits::WEBGPU };
    let text = message(Plan::new(&layer(64), &limits));
    assert!(text.contains("'layer1.conv'") && text.contains("Conv2d"), "{text}");
    assert!(text.contains("64x8x8x16"), "{text}");
    assert!(text.contains("a batch of 25 fits"), "{text}");
    Plan::new(&layer(25), &limits).expect("the batch that the message names fits");
    message(Plan::new(&layer(26), &limits));
}

#[test]
fn a_limit_is_inclusive() {
    let limits = Limits { storage_binding: 4 * 4096, ..Limits::WEBGPU };
    Plan::new(&layer(4), &limits).expect("exactly as much as the device binds");
    message(Plan::new(&layer(5), &limits));
}

#[test]
fn workgroups_fold_into_a_second_dimension() {
    let graph = |len: usize| {
        let mut graph = Graph::new();
        let [x, y] = variables(&mut graph, [Shape::vector(len), Shape::vector(len)]);
        // A thread for each element.
        graph.update(Op::Accumulate(Accumulate), &[x], &[y]).expect("shapes fit");
        graph
    };
    Plan::new(&graph(cases::PAST_ONE_GRID_ROW), &Limits::WEBGPU).expect("two grid rows");
    // Ten rows of ten workgroups of 64 threads.
    let limits = Limits { workgroups_per_dimension: 10, ..Limits::WEBGPU };
    Plan::new(&graph(6_400), &limits).expect("exactly the grid");
    let text = message(Plan::new(&graph(6_401), &limits));
    assert!(
        text.contains("accumulate") && text.contains("6401 threads") && text.contains("smaller batch"),
        "{text}"
    );
}

#[test]
fn a_kernel_with_too_many_buffers_is_refused() {
    let mut graph = Graph::new();
    let [x, scale, y] = variables(&mut graph, [Shape([2, 3, 3, 4]), Shape::vector(4), Shape([2, 3, 3, 4])]);
    graph.set_label("bn1");
    let train = Op::BatchNormTrain(BatchNormTrain { epsilon: 1e-5 });
    let outputs = graph.add_all(train, &[x, scale, scale]).expect("shapes fit");
    graph.update(Op::Copy(Copy), &[outputs[0]], &[y]).expect("shapes fit");
    let limits = Limits { storage_buffers: 4, ..Limits::WEBGPU };
    let text = message(Plan::new(&graph, &limits));
    assert!(text.contains("'bn1'") && text.contains("7 buffers"), "{text}");
    let limits = Limits { workgroup_threads: 32, ..Limits::WEBGPU };
    assert!(message(Plan::new(&graph, &limits)).contains("'bn1'"));
}

#[test]
fn one_buffer_is_not_read_and_written_at_once() {
    let shape = Shape::vector(10);
    for op in [RELU, Op::Accumulate(Accumulate), Op::Copy(Copy)] {
        let mut graph = Graph::new();
        let [x] = variables(&mut graph, [shape]);
        graph.update(op, &[x], &[x]).expect("shapes fit");
        let text = message(Plan::new(&graph, &Limits::WEBGPU));
        assert!(text.contains("reads and writes one buffer"), "{text}");
    }
    // Two values that lie in one variable are one buffer.
    let mut graph = Graph::new();
    let buffer = Device::cpu().variable(10).expect("host memory");
    let (x, y) = (graph.variable(buffer, shape), graph.variable(buffer, shape));
    graph.update(RELU, &[x], &[y]).expect("shapes fit");
    message(Plan::new(&graph, &Limits::WEBGPU));
}

/// `count` activations in a row, into a variable.
fn chain(count: usize) -> Graph {
    let mut graph = Graph::new();
    let shape = Shape([4, 5, 6, 7]);
    let [mut x, out] = variables(&mut graph, [shape, shape]);
    for _ in 0..count {
        x = graph.add(RELU, &[x]).expect("shapes fit");
    }
    graph.update(Op::Copy(Copy), &[x], &[out]).expect("shapes fit");
    graph
}

#[test]
fn temporaries_are_reused() {
    for count in [1, 2, 3, 10, 100] {
        let plan = Plan::new(&chain(count), &Limits::WEBGPU).expect("it fits");
        assert_eq!(plan.steps.len(), count + 1);
        assert_eq!(plan.temporaries.buffers.len(), count.min(2), "a chain of {count}");
        assert_eq!(plan.temporaries.bytes(), plan.temporaries.buffers.len() as u64 * 4 * 840);
    }
}

/// What the backward pass reads stays; the gradients themselves take turns.
#[test]
fn memory_of_a_gradient_grows_by_one_activation_a_layer() {
    let bytes = |count: usize| {
        let mut graph = Graph::new();
        let shape = Shape([4, 5, 6, 7]);
        let [x, out] = variables(&mut graph, [shape, shape]);
        let mut y = x;
        for _ in 0..count {
            y = graph.add(RELU, &[y]).expect("shapes fit");
        }
        let loss = graph.add(Op::Sum(Sum { factor: 1.0 }), &[y]).expect("shapes fit");
        let gradient = differentiate(&mut graph, loss, &[x]).expect("it has a gradient")[0];
        graph.update(Op::Copy(Copy), &[gradient], &[out]).expect("shapes fit");
        Plan::new(&graph, &Limits::WEBGPU).expect("it fits").temporaries.bytes()
    };
    assert_eq!(bytes(20) - bytes(10), 10 * 840 * 4);
}

#[test]
fn a_value_lives_until_its_last_reader() {
    let mut graph = Graph::new();
    let shape = Shape::vector(100);
    let [input, out] = variables(&mut graph, [shape, shape]);
    let add = |graph: &mut Graph, op: Op, inputs: &[ValueId]| graph.add(op, inputs).expect("shapes fit");
    let early = add(&mut graph, Op::Scale(Scale { factor: 2.0 }), &[input]);
    let mut x = early;
    for _ in 0..5 {
        x = add(&mut graph, RELU, &[x]);
    }
    graph.update(Op::Add(Add), &[early, x], &[out]).expect("shapes fit");
    let plan = Plan::new(&graph, &Limits::WEBGPU).expect("it fits");
    assert_eq!(plan.temporaries.buffers.len(), 3, "one for the early value, two that take turns");
    let early = plan.steps[0].outputs[0].slot;
    let rewritten = plan.steps[1..].iter().flat_map(|s| &s.outputs).any(|o| o.slot == early);
    assert!(!rewritten, "the early value was overwritten before it was read");
}

#[test]
fn what_nobody_needs_is_not_planned() {
    let mut graph = Graph::new();
    let shape = Shape::vector(100);
    let [x, out] = variables(&mut graph, [shape, shape]);
    let dead = graph.add(Op::Scale(Scale { factor: 3.0 }), &[x]).expect("shapes fit");
    graph.add(RELU, &[dead]).expect("shapes fit");
    let live = graph.add(RELU, &[x]).expect("shapes fit");
    graph.update(Op::Copy(Copy), &[live], &[out]).expect("shapes fit");
    assert_eq!(graph.nodes().len(), 4);
    let plan = Plan::new(&graph, &Limits::WEBGPU).expect("it fits");
    let names: Vec<&str> = plan.steps.iter().map(|s| s.op.name()).collect();
    assert_eq!(names, ["Relu", "Copy"]);
    assert_eq!(plan.temporaries.buffers.len(), 1);
}

/// Scratch and output buffers of a step are its own: none is another operand.
#[test]
fn buffers_of_a_step_are_distinct() {
    let mut failures = Failures::new();
    for case in cases::all() {
        let plan = plan(&case, &Limits::WEBGPU).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        for step in &plan.steps {
            let name = |slot: Slot| format!("{slot:?}");
            let read: BTreeSet<String> = step.inputs.iter().map(|o: &Operand| name(o.slot)).collect();
            let scratch = step.scratch.iter().map(|&t| Slot::Temporary(t));
            let own: Vec<String> = step.outputs.iter().map(|o| o.slot).chain(scratch).map(name).collect();
            let distinct: BTreeSet<&String> = own.iter().collect();
            let sound = distinct.len() == own.len() && own.iter().all(|slot| !read.contains(slot));
            let result = if sound { Ok(()) } else { Err(format!("reads {read:?}, writes {own:?}")) };
            failures.check(&case.name, result);
            let fits = step
                .launch
                .scratch
                .iter()
                .zip(&step.scratch)
                .all(|(&len, &t)| plan.temporaries.buffers[t] >= len);
            failures
                .check(&case.name, if fits { Ok(()) } else { Err("a scratch buffer is too short".into()) });
        }
    }
    failures.report();
}

/// llvmpipe leaves the loops of a thread, without an error, after 65,535 rounds: what a thread sums has
/// to stay far below, however few results there are threads for.
#[test]
fn long_sums_are_taken_in_parts() {
    let mut graph = Graph::new();
    let (x, dy) = (Shape([4, 256, 256, 255]), Shape([4, 256, 256, 257]));
    let weight = Shape([1, 1, 255, 257]);
    let [x, dy, dw] = variables(&mut graph, [x, dy, weight]);
    let op = Conv2dGradWeight { conv: Conv2d::LINEAR, weight };
    graph.update(Op::Conv2dGradWeight(op), &[x, dy], &[dw]).expect("shapes fit");
    let limits = Limits { storage_binding: 1 << 30, ..Limits::WEBGPU };
    let plan = Plan::new(&graph, &limits).expect("it fits");
    let parts = plan.steps[0].launch.scratch[0] / weight.len();
    let pixels = 4 * 256 * 256;
    assert!(pixels / parts <= 4096, "{parts} parts of {pixels} pixels");

    let mut graph = Graph::new();
    let (image, one) = (Shape([1, 3, 512, 512]), Shape::per_image(1));
    let [clean, gradient, radius, step, target] = variables(&mut graph, [image, image, one, one, image]);
    let op = Op::AttackStep(AttackStep { norm: Norm::L2 });
    graph.update(op, &[clean, gradient, radius, step], &[target]).expect("shapes fit");
    let plan = Plan::new(&graph, &Limits::WEBGPU).expect("it fits");
    let most = plan.steps[0].launch.scratch.iter().max().expect("it sums in parts");
    assert!(image.len() / most <= 4096, "{most} parts of {} elements", image.len());
}

/// The reader of a variable that a later node updates sees the old value.
#[test]
fn updates_happen_in_order() {
    let mut device = Device::cpu();
    let shape = Shape::vector(3);
    let total = device.variable_from(&[1.0, 2.0, 3.0]).expect("host memory");
    let out = device.variable(3).expect("host memory");
    let mut graph = Graph::new();
    let (total_value, out_value) = (graph.variable(total, shape), graph.variable(out, shape));
    let doubled = graph.add(Op::Scale(Scale { factor: 2.0 }), &[total_value]).expect("shapes fit");
    graph.update(Op::Accumulate(Accumulate), &[doubled], &[total_value]).expect("shapes fit");
    graph.update(Op::Copy(Copy), &[doubled], &[out_value]).expect("shapes fit");
    let mut program = device.compile(&graph).expect("it fits");
    device.run(&mut program).expect("it runs");
    assert_eq!(device.read(total).expect("host memory"), [3.0, 6.0, 9.0]);
    assert_eq!(device.read(out).expect("host memory"), [2.0, 4.0, 6.0]);
    device.run(&mut program).expect("it runs again");
    assert_eq!(device.read(total).expect("host memory"), [9.0, 18.0, 27.0]);
}
