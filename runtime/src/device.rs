//! One of the two executors, chosen at run time.

use crate::cpu::{Cpu, CpuProgram};
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{self, Gpu, GpuProgram};
use crate::graph::{Graph, Variable};
use crate::plan::{Limits, Plan, Slot};
use crate::profile::StepTime;
use crate::prologue::{Split, split};

/// Which device to open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum DeviceChoice {
    /// A hardware GPU if there is one, else the CPU executor.
    #[default]
    Auto,
    Cpu,
    /// The first adapter, hardware before software.
    Gpu,
    /// An adapter by its index, or by a part of its name.
    Named(String),
}

impl std::str::FromStr for DeviceChoice {
    type Err = std::convert::Infallible;

    fn from_str(s: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match s {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            name => Self::Named(name.to_owned()),
        })
    }
}

/// An open device with its memory.
pub struct Device {
    executor: Executor,
    /// When each variable was last written, in steps of `clock`.
    written: Vec<u64>,
    clock: u64,
}

enum Executor {
    Cpu(Cpu),
    #[cfg(feature = "gpu")]
    Gpu(Box<Gpu>),
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
}

enum Ready {
    Cpu(CpuProgram),
    #[cfg(feature = "gpu")]
    Gpu(Box<GpuProgram>),
}

impl Device {
    const fn new(executor: Executor) -> Self {
        Self { executor, written: Vec::new(), clock: 0 }
    }

    /// The CPU executor.
    pub fn cpu() -> Self {
        Self::new(Executor::Cpu(Cpu::default()))
    }

    pub fn open(choice: &DeviceChoice) -> Result<Self> {
        match choice {
            DeviceChoice::Cpu => Ok(Self::cpu()),
            #[cfg(feature = "gpu")]
            other => Self::open_adapter(other),
            #[cfg(not(feature = "gpu"))]
            DeviceChoice::Auto => Ok(Self::cpu()),
            #[cfg(not(feature = "gpu"))]
            other => Err(Error::Device(format!("{other:?}: this build has no GPU support (feature `gpu`)"))),
        }
    }

    #[cfg(feature = "gpu")]
    fn open_adapter(choice: &DeviceChoice) -> Result<Self> {
        let adapters = gpu::adapters();
        let index = match choice {
            DeviceChoice::Auto => match adapters.iter().position(|a| !a.software) {
                Some(index) => index,
                None => return Ok(Self::cpu()),
            },
            DeviceChoice::Named(name) => {
                let wanted = name.to_lowercase();
                let by_index = name.parse().ok().filter(|&i: &usize| i < adapters.len());
                let by_name = || adapters.iter().position(|a| a.name.to_lowercase().contains(&wanted));
                by_index.or_else(by_name).ok_or_else(|| {
                    Error::Device(format!("no adapter is called '{name}'; `adamant devices` lists them"))
                })?
            }
            _ if adapters.is_empty() => {
                return Err(Error::Device(
                    "no Vulkan, Metal or DX12 adapter; install a driver (on Debian without a GPU: \
                     apt-get install mesa-vulkan-drivers) or use --device cpu"
                        .into(),
                ));
            }
            _ => 0,
        };
        Ok(Self::new(Executor::Gpu(Box::new(Gpu::open(index)?))))
    }

    /// "cpu", or the adapter's name and backend.
    pub fn name(&self) -> String {
        match &self.executor {
            Executor::Cpu(_) => format!("cpu ({} threads)", rayon::current_num_threads()),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => format!("{} ({})", gpu.info().name, gpu.info().backend),
        }
    }

    pub fn is_cpu(&self) -> bool {
        matches!(self.executor, Executor::Cpu(_))
    }

    pub fn limits(&self) -> Limits {
        match &self.executor {
            Executor::Cpu(_) => Limits::HOST,
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.info().limits,
        }
    }

    /// Bytes of all variables.
    pub fn variable_bytes(&self) -> u64 {
        match &self.executor {
            Executor::Cpu(cpu) => cpu.variable_bytes(),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.variable_bytes(),
        }
    }

    /// Bytes of all variables, and of the working memory of what has been compiled (on the CPU: run).
    pub fn allocated_bytes(&self) -> u64 {
        match &self.executor {
            Executor::Cpu(cpu) => cpu.variable_bytes() + cpu.temporary_bytes(),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.variable_bytes() + gpu.temporary_bytes(),
        }
    }

    /// A buffer of `len` four-byte zeros that lives as long as the device.
    pub fn variable(&mut self, len: usize) -> Result<Variable> {
        let variable = match &mut self.executor {
            Executor::Cpu(cpu) => cpu.variable(len),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.variable(len)?,
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
        let Split { prologue, main, made } = split(graph, constants, |len| self.variable(len))?;
        let fixed: Vec<Variable> = constants.iter().chain(&made).copied().collect();
        let plan = Plan::new(&main, &self.limits())?;
        let writes: Vec<Variable> = plan
            .steps
            .iter()
            .flat_map(|step| &step.outputs)
            .filter_map(|output| match output.slot {
                Slot::Variable(variable) => Some(variable),
                Slot::Temporary(_) => None,
            })
            .collect();
        let main = self.ready(plan, &fixed)?;
        let prologue = match made.is_empty() {
            true => None,
            false => {
                let plan = Plan::new(&prologue, &self.limits())?;
                Some(self.ready(plan, &[])?)
            }
        };
        Ok(Program { main, prologue, constants: constants.to_vec(), prepared: None, writes })
    }

    fn ready(&mut self, plan: Plan, fixed: &[Variable]) -> Result<Ready> {
        match &mut self.executor {
            Executor::Cpu(_) => Ok(Ready::Cpu(CpuProgram::new(plan, fixed))),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => Ok(Ready::Gpu(Box::new(gpu.compile(plan)?))),
        }
    }

    /// Runs a program. A GPU may still be at work when this returns; [`Device::read`] waits.
    ///
    /// # Panics
    /// When the program was compiled for the other kind of device.
    pub fn run(&mut self, program: &mut Program) -> Result<()> {
        let newest = program.constants.iter().map(|v| self.written[v.id as usize]).max().unwrap_or(0);
        if program.prepared != Some(newest) {
            if let Some(prologue) = &mut program.prologue {
                self.execute(prologue)?;
            }
            if let Ready::Cpu(main) = &mut program.main {
                main.forget();
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
            #[cfg(feature = "gpu")]
            _ => panic!("the program belongs to another device"),
        }
    }

    /// Waits until all work is done.
    pub fn finish(&mut self) -> Result<()> {
        match &mut self.executor {
            Executor::Cpu(_) => Ok(()),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.finish(),
        }
    }

    /// Times every step from now on. A GPU then waits after each, which takes longer in all.
    pub(crate) fn start_profile(&mut self) {
        *self.times() = Some(Vec::new());
    }

    /// What has run since [`Device::start_profile`].
    pub(crate) fn take_profile(&mut self) -> Vec<StepTime> {
        self.times().take().unwrap_or_default()
    }

    fn times(&mut self) -> &mut Option<Vec<StepTime>> {
        match &mut self.executor {
            Executor::Cpu(cpu) => &mut cpu.times,
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => &mut gpu.times,
        }
    }
}
