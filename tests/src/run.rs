//! One operation, alone in a graph.

use std::collections::BTreeSet;

use adamant::{Choices, Device, Graph, Limits, Plan, Shape, Tensor, Variable};

use crate::cases::Case;
use crate::compare::{Failures, compare};
use crate::gpu::gpu;

/// Elements behind each operand, in the same buffer, that an operation must neither use nor change:
/// a value may be the front of a larger variable.
const GUARD: usize = 5;

/// What lies behind an output.
const BEHIND: f32 = 1234.5;

/// A graph of one operation with the buffers that it reads and writes.
pub struct Single {
    pub graph: Graph,
    pub inputs: Vec<Variable>,
    pub outputs: Vec<Variable>,
    /// The shapes of what the operation writes.
    pub shapes: Vec<Shape>,
}

/// Builds the graph of a case. The operation writes straight into variables, so that no other
/// operation has a part in the result.
pub fn single(case: &Case, device: &mut Device) -> adamant::Result<Single> {
    let mut graph = Graph::new();
    graph.set_label(&case.name);
    let mut variables = |shapes: &[Shape]| -> adamant::Result<Vec<Variable>> {
        shapes.iter().map(|shape| device.variable(shape.len() + GUARD)).collect()
    };
    let input_shapes: Vec<Shape> = case.inputs.iter().map(|input| input.shape()).collect();
    let inputs = variables(&input_shapes)?;
    let values: Vec<_> = inputs.iter().zip(&input_shapes).map(|(v, s)| graph.variable(*v, *s)).collect();
    let shapes: Vec<Shape> = if case.state.is_empty() {
        // A copy of the graph tells the shapes.
        let mut probe = graph.clone();
        probe.add_all(case.op.clone(), &values)?.into_iter().map(|v| probe.shape(v)).collect()
    } else {
        case.state.iter().map(|state| state.shape()).collect()
    };
    let outputs = variables(&shapes)?;
    let targets: Vec<_> = outputs.iter().zip(&shapes).map(|(v, s)| graph.variable(*v, *s)).collect();
    graph.update(case.op.clone(), &values, &targets)?;
    Ok(Single { graph, inputs, outputs, shapes })
}

/// Runs a case and returns what it wrote.
pub fn run(case: &Case, device: &mut Device) -> Result<Vec<Tensor>, String> {
    run_on(case, device).map_err(|e| e.to_string())?
}

fn run_on(case: &Case, device: &mut Device) -> adamant::Result<Result<Vec<Tensor>, String>> {
    let Single { graph, inputs, outputs, shapes } = single(case, device)?;
    let stream = case.stream();
    let mut write = |variable: Variable, mut values: Vec<f32>, guard: f32| {
        values.extend([guard; GUARD]);
        device.write(variable, &values);
    };
    for (position, (input, &variable)) in case.inputs.iter().zip(&inputs).enumerate() {
        write(variable, input.values(&stream, position), f32::NAN);
    }
    for (i, (&variable, shape)) in outputs.iter().zip(&shapes).enumerate() {
        let before = match case.state.get(i) {
            Some(state) => state.values(&stream, case.inputs.len() + i),
            // An element that the operation forgets to write stays NaN, which nothing agrees with.
            None => vec![f32::NAN; shape.len()],
        };
        write(variable, before, BEHIND);
    }
    let mut program = device.compile(&graph)?;
    device.run(&mut program)?;
    let mut written = Vec::new();
    for (i, (&variable, shape)) in outputs.iter().zip(shapes).enumerate() {
        let mut values = device.read(variable)?;
        let guard = values.split_off(shape.len());
        if guard != [BEHIND; GUARD] {
            return Ok(Err(format!("output {i} changes what lies behind it to {guard:?}")));
        }
        written.push(Tensor::new(shape, values));
    }
    Ok(Ok(written))
}

/// Runs every case on the GPU and on the CPU, and panics with all that differ.
#[track_caller]
pub fn check_twins(cases: &[Case]) {
    let (mut cpu, mut gpu) = (Device::cpu(), gpu());
    let mut failures = Failures::new();
    for case in cases {
        failures.check(&case.name, twins_agree(case, &mut gpu, &mut cpu));
    }
    failures.report();
}

/// Every kernel that the device could take has to compute what the CPU twin does.
fn twins_agree(case: &Case, gpu: &mut Device, cpu: &mut Device) -> Result<(), String> {
    let expected = run(case, cpu)?;
    if expected.is_empty() {
        return Err("the operation writes nothing".into());
    }
    for kernel in kernels(case, &gpu.limits()).map_err(|e| e.to_string())? {
        gpu.choose(Choices::always(kernel));
        let found = run(case, gpu)?;
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            compare(&found.data, &expected.data, case.tolerance)
                .map_err(|e| format!("{kernel}, output {i}: {e}"))?;
        }
    }
    gpu.choose(Choices::default());
    Ok(())
}

/// The plan of a case under `limits`.
pub fn plan(case: &Case, limits: &Limits) -> adamant::Result<Plan> {
    Plan::new(&single(case, &mut Device::cpu())?.graph, limits)
}

/// The plans of a case under `limits`, one for each kernel that could be taken.
pub fn plans(case: &Case, limits: &Limits) -> adamant::Result<Vec<Plan>> {
    let graph = single(case, &mut Device::cpu())?.graph;
    let names = kernels(case, limits)?;
    names.into_iter().map(|name| Plan::with(&graph, limits, &Choices::always(name))).collect()
}

/// The kernels that a case could be computed by; those of ways that consist of several are called by their
/// first.
fn kernels(case: &Case, limits: &Limits) -> adamant::Result<BTreeSet<&'static str>> {
    let shapes = |operands: &[adamant::Operand]| operands.iter().map(|o| o.shape).collect::<Vec<_>>();
    let step = plan(case, limits)?.steps.remove(0);
    let launches = case.op.launches(&shapes(&step.inputs), &shapes(&step.outputs), limits);
    Ok(launches.iter().map(|launch| launch.dispatches[0].kernel.name).collect())
}
