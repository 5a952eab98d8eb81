//! One of the two executors, chosen at run time.

use crate::cpu::Cpu;
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{self, Gpu, GpuProgram};
use crate::graph::{Graph, Variable};
use crate::plan::{Limits, Plan};
use crate::profile::StepTime;

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
pub struct Device(Executor);

enum Executor {
    Cpu(Cpu),
    #[cfg(feature = "gpu")]
    Gpu(Box<Gpu>),
}

/// A plan made ready for a device.
pub struct Program(Ready);

enum Ready {
    Cpu(Plan),
    #[cfg(feature = "gpu")]
    Gpu(Box<GpuProgram>),
}

impl Device {
    /// The CPU executor.
    pub fn cpu() -> Self {
        Self(Executor::Cpu(Cpu::default()))
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
        Ok(Self(Executor::Gpu(Box::new(Gpu::open(index)?))))
    }

    /// "cpu", or the adapter's name and backend.
    pub fn name(&self) -> String {
        match &self.0 {
            Executor::Cpu(_) => format!("cpu ({} threads)", rayon::current_num_threads()),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => format!("{} ({})", gpu.info().name, gpu.info().backend),
        }
    }

    pub fn is_cpu(&self) -> bool {
        matches!(self.0, Executor::Cpu(_))
    }

    pub fn limits(&self) -> Limits {
        match &self.0 {
            Executor::Cpu(_) => Limits::HOST,
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.info().limits,
        }
    }

    /// Bytes of all variables.
    pub fn variable_bytes(&self) -> u64 {
        match &self.0 {
            Executor::Cpu(cpu) => cpu.variable_bytes(),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.variable_bytes(),
        }
    }

    /// A buffer of `len` four-byte zeros that lives as long as the device.
    pub fn variable(&mut self, len: usize) -> Result<Variable> {
        match &mut self.0 {
            Executor::Cpu(cpu) => Ok(cpu.variable(len)),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.variable(len),
        }
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
        match &mut self.0 {
            Executor::Cpu(cpu) => cpu.write(variable, values),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.write(variable, values),
        }
    }

    /// Replaces the front of a variable of integers.
    pub fn write_integers(&mut self, variable: Variable, values: &[u32]) {
        self.write(variable, bytemuck::cast_slice(values));
    }

    /// Waits for all work and copies a variable to the host.
    pub fn read(&mut self, variable: Variable) -> Result<Vec<f32>> {
        match &mut self.0 {
            Executor::Cpu(cpu) => Ok(cpu.read(variable)),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => gpu.read(variable),
        }
    }

    /// Plans a graph for this device.
    pub fn compile(&mut self, graph: &Graph) -> Result<Program> {
        let plan = Plan::new(graph, &self.limits())?;
        match &mut self.0 {
            Executor::Cpu(_) => Ok(Program(Ready::Cpu(plan))),
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => Ok(Program(Ready::Gpu(Box::new(gpu.compile(plan)?)))),
        }
    }

    /// Runs a program. A GPU may still be at work when this returns; [`Device::read`] waits.
    ///
    /// # Panics
    /// When the program was compiled for the other kind of device.
    pub fn run(&mut self, program: &mut Program) -> Result<()> {
        match (&mut self.0, &mut program.0) {
            (Executor::Cpu(cpu), Ready::Cpu(plan)) => cpu.run(plan),
            #[cfg(feature = "gpu")]
            (Executor::Gpu(gpu), Ready::Gpu(program)) => gpu.run(program),
            #[cfg(feature = "gpu")]
            _ => panic!("the program belongs to another device"),
        }
    }

    /// Waits until all work is done.
    pub fn finish(&mut self) -> Result<()> {
        match &mut self.0 {
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
        match &mut self.0 {
            Executor::Cpu(cpu) => &mut cpu.times,
            #[cfg(feature = "gpu")]
            Executor::Gpu(gpu) => &mut gpu.times,
        }
    }
}
