//! Measures which kernel of an operation is the fastest on an adapter, and checks that one against the CPU
//! executor before it is used.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::choices::{Choices, kernel, key, representative, with_batch};
use crate::device::{Device, Tell};
use crate::error::Result;
use crate::graph::{Graph, ValueId, Variable};
use crate::ops::{Kernel, Launch, Op};
use crate::plan::Limits;
use crate::random::{Purpose, Stream};
use crate::shape::{Shape, relative_difference};

/// Sums are taken in another order on another device, and a GPU fuses multiply-adds; no wrong kernel is as
/// near as this part of the largest value.
const TOLERANCE: f32 = 1e-3;

/// Arithmetic of a check: the CPU twin computes it, too.
const CHECK_FLOPS: u64 = 1 << 30;

/// Seconds for which a kernel is repeated.
const SECONDS: f64 = 0.02;

/// A kernel this many times slower than another is not measured twice.
const HOPELESS: f64 = 3.0;

/// Measures on an adapter what its programs need, as they need it.
pub(crate) struct Tuner {
    adapter: usize,
    identity: String,
    file: Option<PathBuf>,
    tell: Tell,
}

/// One operation to measure.
struct Job {
    key: String,
    op: Op,
    inputs: Vec<Shape>,
    output: Shape,
    launches: Vec<Launch>,
}

impl Tuner {
    /// For the adapter of that index. What is found is kept in `folder`, by the identity of the adapter with
    /// its driver.
    pub fn new(adapter: usize, identity: String, folder: Option<&Path>, tell: Tell) -> (Self, Choices) {
        let name = format!("kernels-{}.txt", &blake3::hash(identity.as_bytes()).to_hex()[..16]);
        let file = folder.map(|folder| folder.join(name));
        let choices = file.as_ref().map(|file| Choices::load(file, &identity)).unwrap_or_default();
        (Self { adapter, identity, file, tell }, choices)
    }

    /// Adds to `choices` what `graph` needs that is not in it.
    pub fn prepare(&self, graph: &Graph, limits: &Limits, choices: &mut Choices) -> Result<()> {
        let jobs = jobs(graph, limits, choices);
        if jobs.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        (self.tell)(&format!("measuring kernels for {} operations, once for this adapter", jobs.len()));
        let mut bench = Bench::new(Device::adapter(self.adapter)?, &jobs)?;
        for job in jobs {
            let best = bench.fastest(&job, |kernel, fault| {
                (self.tell)(&format!(
                    "warning: kernel {} {fault} on this adapter, and is not used for {}; a newer driver may help",
                    kernel.name,
                    job.op.name()
                ));
            })?;
            choices.insert(job.key, &best);
        }
        (self.tell)(&format!("kernels were measured in {:.1} s", start.elapsed().as_secs_f64()));
        match &self.file {
            Some(file) => choices.save(file, &self.identity),
            None => Ok(()),
        }
    }
}

/// The operations of `graph` that have several kernels, none of which has been chosen. Those with several outputs stay
/// with their first.
fn jobs(graph: &Graph, limits: &Limits, choices: &Choices) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for node in &graph.nodes {
        let shapes = |values: &[ValueId]| values.iter().map(|v| graph.shape(*v)).collect::<Vec<_>>();
        let (inputs, outputs) = (shapes(&node.inputs), shapes(&node.outputs));
        let launches = node.op.launches(&inputs, &outputs, limits);
        if launches.len() < 2 || outputs.len() > 1 || choices.measured(&node.op, &inputs, &launches).is_some()
        {
            continue;
        }
        let key = key(&node.op, &inputs, &launches);
        if jobs.iter().any(|job| job.key == key) {
            continue;
        }
        let (op, inputs) = representative(&node.op, &inputs);
        let output = output_of(&op, &inputs);
        let launches = op.launches(&inputs, &[output], limits);
        jobs.push(Job { key, op, inputs, output, launches });
    }
    jobs
}

fn output_of(op: &Op, inputs: &[Shape]) -> Shape {
    op.output_shapes(inputs).expect("it has a batch of other size only")[0]
}

/// A device of its own, with buffers for the largest of the operations.
struct Bench {
    gpu: Device,
    cpu: Device,
    values: Vec<f32>,
    inputs: Vec<Variable>,
    output: Variable,
}

impl Bench {
    fn new(mut gpu: Device, jobs: &[Job]) -> Result<Self> {
        let largest = |len: &dyn Fn(&Job) -> usize| jobs.iter().map(len).max().unwrap_or(0);
        let count = largest(&|job| job.inputs.len());
        let lens: Vec<usize> =
            (0..count).map(|i| largest(&|job| job.inputs.get(i).map_or(0, |s| s.len()))).collect();
        let stream = Stream::new(0, Purpose::Tuning, 0, 0);
        let len = lens.iter().copied().max().unwrap_or(0);
        // Compact weights are words of the same values: the bit that is cleared makes them finite halves, too.
        let value = |i| f32::from_bits((stream.uniform(i, 0) - 0.5).to_bits() & 0xffff_bfff);
        let values: Vec<f32> = (0..len as u32).map(value).collect();
        let inputs = lens.iter().map(|&len| gpu.variable_from(&values[..len])).collect::<Result<_>>()?;
        let output = gpu.variable(largest(&|job| job.output.len()))?;
        Ok(Self { gpu, cpu: Device::cpu(), values, inputs, output })
    }

    /// The fastest kernel that computes what the CPU twin does. `refused` hears of those that do not, and of
    /// those that the driver does not run.
    fn fastest(&mut self, job: &Job, refused: impl Fn(&Kernel, &str)) -> Result<Kernel> {
        let mut times: Vec<(f64, Kernel)> = Vec::new();
        for launch in &job.launches {
            let kernel = *kernel(launch);
            let best = times.iter().map(|t| t.0).fold(f64::INFINITY, f64::min);
            match self.time(job, &kernel, best) {
                Ok(seconds) => times.push((seconds, kernel)),
                Err(e) => refused(&kernel, &format!("does not run ({e})")),
            }
        }
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, kernel) in &times {
            if self.is_right(job, kernel)? {
                return Ok(*kernel);
            }
            refused(kernel, "computes something else than the CPU");
        }
        // The device's self-test says so, too; the plainest kernel is as good as any.
        Ok(*kernel(&job.launches[0]))
    }

    /// Seconds of one run.
    fn time(&mut self, job: &Job, kernel: &Kernel, best: f64) -> Result<f64> {
        let mut graph = Graph::new();
        let values: Vec<ValueId> =
            self.inputs.iter().zip(&job.inputs).map(|(v, s)| graph.variable(*v, *s)).collect();
        let output = graph.variable(self.output, job.output);
        graph.update(job.op.clone(), &values, &[output])?;
        self.gpu.choose(Choices::always(kernel.name));
        let mut program = self.gpu.compile(&graph)?;
        // The first run is of a kernel that the driver may not have finished with.
        self.gpu.run(&mut program)?;
        self.gpu.finish()?;
        let mut run = |times: usize| -> Result<f64> {
            // The adapter's own clock does not count what a submission takes, which is more than a small kernel does.
            if self.gpu.has_clock()? {
                self.gpu.start_profile();
                for _ in 0..times {
                    self.gpu.run(&mut program)?;
                }
                let steps = self.gpu.take_profile();
                return Ok(steps.iter().map(|step| step.seconds).sum::<f64>() / times as f64);
            }
            let start = Instant::now();
            for _ in 0..times {
                self.gpu.run(&mut program)?;
            }
            self.gpu.finish()?;
            Ok(start.elapsed().as_secs_f64() / times as f64)
        };
        let first = run(1)?;
        if first > HOPELESS * best {
            return Ok(first);
        }
        let times = (SECONDS / first).clamp(1.0, 20.0) as usize;
        Ok(first.min(run(times)?).min(run(times)?))
    }

    /// Whether the kernel computes what the CPU twin does, on as large a part of the batch as that takes a
    /// moment for.
    fn is_right(&mut self, job: &Job, kernel: &Kernel) -> Result<bool> {
        let batch = job.inputs[0].batch();
        let flops = job.op.flops(&job.inputs, &[job.output]);
        let images = (CHECK_FLOPS * batch as u64 / flops.max(1)).clamp(1, batch as u64) as usize;
        let inputs = with_batch(&job.op, &job.inputs, images);
        let output = output_of(&job.op, &inputs);
        let run = |device: &mut Device, variables: &[Variable], target: Variable| -> Result<Vec<f32>> {
            let mut graph = Graph::new();
            let values: Vec<ValueId> =
                variables.iter().zip(&inputs).map(|(v, s)| graph.variable(*v, *s)).collect();
            let output = graph.variable(target, output);
            graph.update(job.op.clone(), &values, &[output])?;
            let mut program = device.compile(&graph)?;
            device.run(&mut program)?;
            device.read(target)
        };
        self.gpu.choose(Choices::always(kernel.name));
        self.gpu.write(self.output, &vec![f32::NAN; output.len()]);
        let found = run(&mut self.gpu, &self.inputs, self.output)?;
        let lens: Vec<usize> = inputs.iter().map(Shape::len).collect();
        let variables: Vec<Variable> =
            lens.iter().map(|&len| self.cpu.variable_from(&self.values[..len])).collect::<Result<_>>()?;
        let target = self.cpu.variable(output.len())?;
        let expected = run(&mut self.cpu, &variables, target)?;
        // Its buffers are not needed again.
        self.cpu = Device::cpu();
        Ok(relative_difference(&found[..output.len()], &expected) <= TOLERANCE)
    }
}
