//! One of the two executors, chosen at run time.

mod choice;

pub use choice::DeviceChoice;

use crate::choices::Choices;
use crate::cpu::{Cpu, CpuProgram, only_rearranged, rearranged_bytes};
#[cfg(feature = "train")]
use crate::dry::Dry;
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{Gpu, GpuProgram};
use crate::graph::{Graph, Variable};
use crate::plan::{Limits, Plan, Slot, Temporaries};
use crate::prologue::{Split, split};
use crate::recompute::{Wanted, binary_size, plan_within};
#[cfg(feature = "gpu")]
use crate::tune::Tuner;

/// An open device with its memory.
pub struct Device {
    executor: Executor,
    /// When each variable was last written, in steps of `clock`.
    written: Vec<u64>,
    clock: u64,
    memory: Memory,
    /// The kernels to take where there are several.
    choices: Choices,
    #[cfg(feature = "gpu")]
    tuner: Option<Tuner>,
}

/// Hears what a device does that takes a moment.
#[cfg(feature = "gpu")]
pub type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// Values on their way to the host.
#[cfg(any(test, target_arch = "wasm32"))]
pub(crate) type Reading = std::pin::Pin<Box<dyn Future<Output = Result<Vec<f32>>> + Send>>;

/// What a device may take, and what staying within it costs.
#[derive(Default)]
struct Memory {
    limit: Option<u64>,
    /// Whether programs take as little as they can, whatever the limit.
    least: bool,
    /// What some program needs: programs share it, one after the other.
    temporaries: Temporaries,
    /// Bytes of the weights that programs keep rearranged.
    rearranged: u64,
    recomputed: f64,
}

enum Executor {
    Cpu(Cpu),
    #[cfg(feature = "gpu")]
    Gpu(Box<Gpu>),
    #[cfg(feature = "train")]
    Dry(Dry),
}

/// A plan made ready for a device.
pub struct Program {
    main: Ready,
    /// What `main` needs that depends on the constants alone.
    prologue: Option<Ready>,
    constants: Vec<Variable>,
    /// When the newest of the constants had been written that the prologue last ran with.
    prepared: Option<u64>,
    writes: Vec<Variable>,
    /// What the prologue writes.
    made: Vec<Variable>,
    /// Bytes of the weights that it keeps rearranged.
    rearranged: u64,
}

enum Ready {
    Cpu(CpuProgram),
    #[cfg(feature = "gpu")]
    Gpu(Box<GpuProgram>),
    #[cfg(feature = "train")]
    Nothing,
}

impl Device {
    fn new(executor: Executor) -> Self {
        Self {
            executor,
            written: Vec::new(),
            clock: 0,
            memory: Memory::default(),
            choices: Choices::default(),
            #[cfg(feature = "gpu")]
            tuner: None,
        }
    }

    /// The CPU executor.
    pub fn cpu() -> Self {
        Self::new(Executor::Cpu(Cpu::default()))
    }

    /// From now on measures, on a GPU, which of the kernels that an operation has is the fastest, and checks it
    /// against the CPU executor, when a program first needs the operation at a size. That takes seconds, once:
    /// what is found is kept in a file in `folder`, where there is one, for the adapter with its driver.
    /// `tell` hears of it.
    ///
    /// Without it the kernels are those that are likely to be the fastest.
    #[cfg(feature = "gpu")]
    pub fn tune(&mut self, folder: Option<&std::path::Path>, tell: Tell) {
        if let Executor::Gpu(gpu) = &self.executor {
            let info = gpu.info();
            let identity = format!("{} | {} | {}", info.name, info.backend, info.driver);
            let (tuner, choices) = Tuner::new(gpu.index(), identity, folder, tell);
            (self.tuner, self.choices) = (Some(tuner), choices);
        }
    }

    /// Takes these kernels in programs compiled from now on.
    pub fn choose(&mut self, choices: Choices) {
        self.choices = choices;
    }

    /// The kernels that are taken where there are several.
    pub const fn choices(&self) -> &Choices {
        &self.choices
    }

    /// "cpu", or the adapter's name and backend.
    pub fn name(&self) -> String {
        match &self.executor {
            Executor::Cpu(_) => format!("cpu ({} threads)", rayon::current_num_threads()),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => format!("{} ({})", gpu.info().name, gpu.info().backend),
            #[cfg(feature = "train")]
            Executor::Dry(_) => "a stand-in".into(),
        }
    }

    pub fn is_cpu(&self) -> bool {
        match &self.executor {
            Executor::Cpu(_) => true,
            #[cfg(feature = "gpu")]
            Executor::Gpu(_) => false,
            #[cfg(feature = "train")]
            Executor::Dry(dry) => dry.on_cpu,
        }
    }

    pub fn limits(&self) -> Limits {
        match &self.executor {
            Executor::Cpu(_) => Limits::HOST,
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.info().limits,
            #[cfg(feature = "train")]
            Executor::Dry(dry) => dry.limits,
        }
    }

    /// Takes at most so many bytes for variables and working memory. Programs compiled from now on compute
    /// activations again where keeping them would take more; [`Device::recomputed`] says what that costs.
    pub const fn limit_memory(&mut self, bytes: u64) {
        self.memory.limit = Some(bytes);
    }

    /// The largest part of a program's arithmetic, 0 to 1, that is done a second time to stay within the
    /// memory limit.
    pub const fn recomputed(&self) -> f64 {
        self.memory.recomputed
    }

    /// Bytes of all variables.
    pub fn variable_bytes(&self) -> u64 {
        match &self.executor {
            Executor::Cpu(cpu) => cpu.variable_bytes(),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.variable_bytes(),
            #[cfg(feature = "train")]
            Executor::Dry(dry) => dry.variable_bytes(),
        }
    }

    /// Bytes of all variables, and of the working memory of what has been compiled (on the CPU: run, with
    /// the weights that it keeps rearranged).
    pub fn allocated_bytes(&self) -> u64 {
        match &self.executor {
            Executor::Cpu(cpu) => cpu.variable_bytes() + cpu.temporary_bytes() + cpu.rearranged_bytes(),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.variable_bytes() + gpu.temporary_bytes(),
            #[cfg(feature = "train")]
            Executor::Dry(dry) => {
                dry.variable_bytes() + self.memory.temporaries.bytes() + self.memory.rearranged
            }
        }
    }

    /// A device like this one, on which nothing runs: to learn what a computation takes within `limit`, or, where
    /// there is none, the least that it can.
    #[cfg(feature = "train")]
    pub(crate) fn stand_in(&self, limit: Option<u64>) -> Self {
        let mut device = Self::new(Executor::Dry(Dry::new(self.limits(), self.is_cpu())));
        device.memory.limit = limit;
        device.memory.least = limit.is_none();
        device.choices = self.choices.clone();
        device
    }

    /// The bytes that [`Device::limit_memory`] allows.
    #[cfg(feature = "train")]
    pub(crate) const fn memory_limit(&self) -> Option<u64> {
        self.memory.limit
    }

    /// A buffer of `len` four-byte zeros that lives as long as the device.
    pub fn variable(&mut self, len: usize) -> Result<Variable> {
        let bytes = self.variable_bytes() + len as u64 * 4;
        if let Some(limit) = self.memory.limit.filter(|&limit| bytes > limit) {
            return Err(Error::Limit(format!(
                "the memory limit is {}; weights and images alone take more than that; raise --memory-limit \
                 or take a smaller --batch",
                binary_size(limit)
            )));
        }
        let variable = match &mut self.executor {
            Executor::Cpu(cpu) => cpu.variable(len),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.variable(len)?,
            #[cfg(feature = "train")]
            Executor::Dry(dry) => dry.variable(len),
        };
        self.written.resize(variable.id as usize + 1, 0);
        Ok(variable)
    }

    /// A variable that holds `values`.
    pub fn variable_from(&mut self, values: &[f32]) -> Result<Variable> {
        let variable = self.variable(values.len())?;
        self.write(variable, values);
        Ok(variable)
    }

    /// Replaces the front of a variable.
    ///
    /// # Panics
    /// When there are more values than the variable has room for.
    pub fn write(&mut self, variable: Variable, values: &[f32]) {
        assert!(values.len() <= variable.len, "{} values for a variable of {}", values.len(), variable.len);
        match &mut self.executor {
            Executor::Cpu(cpu) => cpu.write(variable, values),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.write(variable, values),
            #[cfg(feature = "train")]
            Executor::Dry(_) => {}
        }
        self.note_written(&[variable]);
    }

    /// Replaces the front of a variable of integers.
    pub fn write_integers(&mut self, variable: Variable, values: &[u32]) {
        self.write(variable, bytemuck::cast_slice(values));
    }

    /// Waits for all work and copies a variable to the host.
    pub fn read(&mut self, variable: Variable) -> Result<Vec<f32>> {
        match &mut self.executor {
            Executor::Cpu(cpu) => Ok(cpu.read(variable)),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.read(variable),
            #[cfg(feature = "train")]
            Executor::Dry(_) => Ok(vec![0.0; variable.len]),
        }
    }

    /// Says that programs compiled from now on read this variable as the weight of one convolution, the same in all
    /// of them, and that nothing else reads it. The CPU executor then holds it once, in the order in which it is
    /// read, where it would hold it twice, and again for each program.
    pub(crate) fn share_weight(&mut self, variable: Variable) {
        match &mut self.executor {
            Executor::Cpu(cpu) => cpu.share(variable),
            #[cfg(any(feature = "gpu", feature = "train"))]
            _ => {}
        }
    }

    /// As [`Device::read`], without waiting. Work that is given to the device meanwhile comes after it.
    #[cfg(any(test, target_arch = "wasm32"))]
    pub(crate) fn start_reading(&mut self, variable: Variable) -> Result<Reading> {
        match &mut self.executor {
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => Ok(Box::pin(gpu.start_reading(variable)?.arrival())),
            _ => Ok(Box::pin(std::future::ready(self.read(variable)))),
        }
    }

    fn note_written(&mut self, variables: &[Variable]) {
        self.clock += 1;
        for variable in variables {
            self.written[variable.id as usize] = self.clock;
        }
    }

    /// Plans a graph for this device.
    pub fn compile(&mut self, graph: &Graph) -> Result<Program> {
        self.compile_with(graph, &[])
    }

    /// Plans a graph that is run often between changes of `constants`: what depends on them alone is
    /// computed when they have changed, not at each run.
    pub fn compile_with(&mut self, graph: &Graph, constants: &[Variable]) -> Result<Program> {
        let mut made = Vec::new();
        let (temporaries, rearranged) = (self.memory.temporaries.clone(), self.memory.rearranged);
        let compiled = self.compile_split(graph, constants, &mut made);
        if compiled.is_err() {
            // Nothing stays of what did not fit.
            made.iter().for_each(|&variable| self.release_variable(variable));
            (self.memory.temporaries, self.memory.rearranged) = (temporaries, rearranged);
        }
        compiled
    }

    fn compile_split(
        &mut self,
        graph: &Graph,
        constants: &[Variable],
        made: &mut Vec<Variable>,
    ) -> Result<Program> {
        let Split { prologue, main, .. } = split(graph, constants, |len| {
            made.push(self.variable(len)?);
            Ok(made[made.len() - 1])
        })?;
        let fixed: Vec<Variable> = constants.iter().chain(&*made).copied().collect();
        let before = self.memory.rearranged;
        let plan = self.plan(&main, &fixed, made)?;
        let rearranged = self.memory.rearranged - before;
        let spent = self.spent(&plan, &fixed, made);
        let writes: Vec<Variable> = plan
            .steps
            .iter()
            .flat_map(|step| &step.outputs)
            .filter_map(|output| match output.slot {
                Slot::Variable(variable) => Some(variable),
                Slot::Temporary(_) => None,
            })
            .collect();
        let main = self.ready(plan, &fixed, &spent)?;
        // The prologue brings them back for as long as it takes to rearrange them.
        spent.iter().for_each(|&variable| self.release_variable(variable));
        let prologue = match made.is_empty() {
            true => None,
            false => {
                let plan = self.plan(&prologue, &[], &[])?;
                Some(self.ready(plan, &[], &[])?)
            }
        };
        let constants = constants.to_vec();
        Ok(Program { main, prologue, constants, prepared: None, writes, made: made.clone(), rearranged })
    }

    /// Those of the variables `made` by a prologue that need not stay. A GPU has no rearranged weights.
    fn spent(&self, plan: &Plan, fixed: &[Variable], made: &[Variable]) -> Vec<Variable> {
        if self.is_cpu() { only_rearranged(plan, fixed, made) } else { Vec::new() }
    }

    fn release_variable(&mut self, variable: Variable) {
        match &mut self.executor {
            Executor::Cpu(cpu) => cpu.release(variable),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.release(variable),
            #[cfg(feature = "train")]
            Executor::Dry(dry) => dry.release(variable),
        }
    }

    /// Gives back what these programs take: all that there are.
    pub(crate) fn release_programs(&mut self, programs: impl Iterator<Item = Program>) {
        for program in programs {
            program.made.iter().for_each(|&variable| self.release_variable(variable));
            self.memory.rearranged -= program.rearranged;
            match (&mut self.executor, &program.main) {
                (Executor::Cpu(cpu), Ready::Cpu(main)) => cpu.release_program(main),
                #[cfg(any(feature = "gpu", feature = "train"))]
                _ => {}
            }
        }
        self.memory.temporaries = Temporaries::default();
        match &mut self.executor {
            Executor::Cpu(cpu) => cpu.release_temporaries(),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.release_temporaries(),
            #[cfg(feature = "train")]
            Executor::Dry(_) => {}
        }
    }

    /// Plans a graph within the memory limit. `fixed` are the variables that change seldom, among them those
    /// that a prologue has `made`.
    fn plan(&mut self, graph: &Graph, fixed: &[Variable], made: &[Variable]) -> Result<Plan> {
        let limits = self.limits();
        #[cfg(feature = "gpu")]
        if let Some(tuner) = &self.tuner {
            tuner.prepare(graph, &limits, &mut self.choices)?;
        }
        let planned = |graph: &Graph| Plan::with(graph, &limits, &self.choices);
        let whole = planned(graph)?;
        // A GPU rearranges none; those that programs share take the place of their variables.
        let own: Vec<Variable> = match &self.executor {
            Executor::Cpu(cpu) => fixed.iter().copied().filter(|&v| !cpu.is_shared(v)).collect(),
            #[cfg(feature = "gpu")]
            Executor::Gpu(_) => Vec::new(),
            #[cfg(feature = "train")]
            Executor::Dry(dry) => {
                if dry.on_cpu {
                    fixed.to_vec()
                } else {
                    Vec::new()
                }
            }
        };
        let rearranged = |plan: &Plan| rearranged_bytes(plan, &own);
        let wanted = match (self.memory.limit, self.memory.least) {
            (_, true) => Some(Wanted::Least),
            (Some(limit), false) => Some(Wanted::Within(limit)),
            (None, false) => None,
        };
        let plan = match wanted {
            None => whole,
            Some(wanted) => {
                let others = self.variable_bytes() + self.memory.rearranged;
                let bytes = |plan: &Plan| {
                    let temporaries = self.memory.temporaries.with(&plan.temporaries).bytes();
                    let spent: u64 = self.spent(plan, fixed, made).iter().map(|v| v.len as u64 * 4).sum();
                    others + rearranged(plan) + temporaries - spent
                };
                let (least, plan) = (whole.flops, plan_within(graph, whole, planned, wanted, bytes)?);
                let again = plan.flops.saturating_sub(least);
                if again > 0 {
                    self.memory.recomputed = self.memory.recomputed.max(again as f64 / plan.flops as f64);
                }
                plan
            }
        };
        self.memory.rearranged += rearranged(&plan);
        self.memory.temporaries = self.memory.temporaries.with(&plan.temporaries);
        Ok(plan)
    }

    fn ready(&mut self, plan: Plan, fixed: &[Variable], spent: &[Variable]) -> Result<Ready> {
        match &mut self.executor {
            Executor::Cpu(cpu) => Ok(Ready::Cpu(CpuProgram::new(plan, fixed, spent, cpu))),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => Ok(Ready::Gpu(Box::new(gpu.compile(plan)?))),
            #[cfg(feature = "train")]
            Executor::Dry(_) => Ok(Ready::Nothing),
        }
    }

    /// Runs a program. A GPU may still be at work when this returns; [`Device::read`] waits.
    ///
    /// # Panics
    /// When the program was compiled for the other kind of device.
    pub fn run(&mut self, program: &mut Program) -> Result<()> {
        let newest = program.constants.iter().map(|v| self.written[v.id as usize]).max().unwrap_or(0);
        if program.prepared != Some(newest) {
            match &mut program.main {
                Ready::Cpu(main) => main.forget(),
                #[cfg(any(feature = "gpu", feature = "train"))]
                _ => {}
            }
            if let Some(prologue) = &mut program.prologue {
                self.execute(prologue)?;
            }
            program.prepared = Some(newest);
        }
        self.execute(&mut program.main)?;
        self.note_written(&program.writes);
        Ok(())
    }

    fn execute(&mut self, ready: &mut Ready) -> Result<()> {
        match (&mut self.executor, ready) {
            (Executor::Cpu(cpu), Ready::Cpu(program)) => cpu.run(program),
            #[cfg(feature = "gpu")]
            (Executor::Gpu(gpu), Ready::Gpu(program)) => gpu.run(program),
            #[cfg(feature = "train")]
            (Executor::Dry(_), Ready::Nothing) => Ok(()),
            #[cfg(any(feature = "gpu", feature = "train"))]
            _ => panic!("the program belongs to another device"),
        }
    }

    /// Waits until all work is done.
    pub fn finish(&mut self) -> Result<()> {
        match &mut self.executor {
            Executor::Cpu(_) => Ok(()),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.finish(),
            #[cfg(feature = "train")]
            Executor::Dry(_) => Ok(()),
        }
    }

    /// Whether steps are timed by the adapter itself, without what a submission takes.
    #[cfg(feature = "gpu")]
    pub(crate) fn has_clock(&mut self) -> Result<bool> {
        match &mut self.executor {
            Executor::Gpu(gpu) => gpu.has_clock(),
            _ => Ok(false),
        }
    }

    /// Times every step from now on. A GPU is then given one at a time, which takes longer in all.
    #[cfg(any(feature = "data", feature = "gpu", all(test, feature = "train")))]
    pub(crate) fn start_profile(&mut self) {
        if let Some(times) = self.times() {
            *times = Some(Vec::new());
        }
    }

    /// What has run since [`Device::start_profile`].
    #[cfg(any(feature = "data", feature = "gpu", all(test, feature = "train")))]
    pub(crate) fn take_profile(&mut self) -> Vec<crate::StepTime> {
        self.times().and_then(Option::take).unwrap_or_default()
    }

    #[cfg(any(feature = "data", feature = "gpu", all(test, feature = "train")))]
    fn times(&mut self) -> Option<&mut Option<Vec<crate::StepTime>>> {
        match &mut self.executor {
            Executor::Cpu(cpu) => Some(&mut cpu.times),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => Some(&mut gpu.times),
            #[cfg(feature = "train")]
            Executor::Dry(_) => None,
        }
    }
}
