//! The GPU executor: compiles each kernel once, binds a plan's buffers, submits its dispatches.

mod clock;
mod pace;
mod submit;
mod textures;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use pace::Pace;
use textures::{ROW_BYTES, TextureCopy};

use crate::error::{Error, Result};
use crate::graph::Variable;
use crate::ops::{Argument, Kernel};
use crate::pending::{Pending, pending};
use crate::plan::{Limits, Plan, Slot, Step};
use crate::profile::{self, StepTime};

/// A graphics adapter that can run the kernels.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    pub name: String,
    pub backend: String,
    pub driver: String,
    /// Discrete, integrated, virtual; or a software rasteriser on the CPU.
    pub kind: String,
    pub software: bool,
    pub limits: Limits,
}

/// An open adapter with its buffers and compiled kernels.
pub struct Gpu {
    index: usize,
    info: AdapterInfo,
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipelines: HashMap<&'static str, wgpu::ComputePipeline>,
    /// Without those that were released.
    variables: HashMap<u32, wgpu::Buffer>,
    /// Variables that there ever were.
    made: u32,
    temporaries: Vec<wgpu::Buffer>,
    textures: Vec<wgpu::Texture>,
    /// Counts replacements of temporaries and textures; programs bound to older ones bind again.
    generation: u64,
    pace: Pace,
    fault: Arc<Mutex<Option<String>>>,
    /// Whether its timestamps are to be trusted, when somebody has asked.
    clock: Option<bool>,
    /// What each step took, while somebody wants to know.
    pub(crate) times: Option<Vec<StepTime>>,
}

/// A plan bound to buffers.
pub(crate) struct GpuProgram {
    plan: Plan,
    parameters: wgpu::Buffer,
    bound: Vec<Bound>,
    generation: u64,
}

struct Bound {
    /// What is copied before.
    copies: Vec<TextureCopy>,
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    workgroups: [u32; 2],
    flops: u64,
}

const BACKENDS: wgpu::Backends = wgpu::Backends::VULKAN
    .union(wgpu::Backends::METAL)
    .union(wgpu::Backends::DX12)
    .union(wgpu::Backends::BROWSER_WEBGPU);

fn instance() -> wgpu::Instance {
    let new = || {
        wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: BACKENDS,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        })
    };
    // Each instance loads the drivers anew, and NVIDIA's is not found any more after some twenty times in a process.
    #[cfg(not(target_arch = "wasm32"))]
    {
        static INSTANCE: std::sync::OnceLock<wgpu::Instance> = std::sync::OnceLock::new();
        INSTANCE.get_or_init(new).clone()
    }
    #[cfg(target_arch = "wasm32")]
    new()
}

fn limits(found: &wgpu::Limits, features: wgpu::Features, info: &wgpu::AdapterInfo) -> Limits {
    // A browser's kernels have no subgroups without saying so, which other backends do not understand.
    let fixed = !cfg!(target_arch = "wasm32")
        && features.contains(wgpu::Features::SUBGROUP)
        && info.subgroup_min_size == info.subgroup_max_size;
    Limits {
        storage_binding: found.max_storage_buffer_binding_size.min(found.max_buffer_size),
        storage_buffers: found.max_storage_buffers_per_shader_stage,
        workgroup_threads: found.max_compute_invocations_per_workgroup,
        workgroups_per_dimension: found.max_compute_workgroups_per_dimension,
        subgroup_lanes: fixed.then_some(info.subgroup_max_size),
        software: info.device_type == wgpu::DeviceType::Cpu,
        slow_buffers: info.device_type == wgpu::DeviceType::Cpu && inserts_by_memory(),
    }
}

/// Whether a driver that runs on this processor puts what lanes load from a buffer together by way of memory, number by
/// number (docs/gpus.md): AVX-512 has masked moves for that.
fn inserts_by_memory() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return !std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
    false
}

fn describe(adapter: &wgpu::Adapter) -> AdapterInfo {
    let info = adapter.get_info();
    let limits = limits(&adapter.limits(), adapter.features(), &info);
    AdapterInfo {
        name: info.name,
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        kind: format!("{:?}", info.device_type),
        software: info.device_type == wgpu::DeviceType::Cpu,
        limits,
    }
}

/// What a future gives; in a browser, where nothing may wait, nothing.
fn wait_for<T>(future: impl Future<Output = T>) -> Option<T> {
    #[cfg(not(target_arch = "wasm32"))]
    return Some(pollster::block_on(future));
    #[cfg(target_arch = "wasm32")]
    {
        drop(future);
        None
    }
}

/// Notes what goes wrong from when it is opened. In a browser, where the answer takes a turn of its loop, faults are
/// those of the device, which the next run or reading reports.
struct Watch(#[cfg(not(target_arch = "wasm32"))] wgpu::ErrorScopeGuard);

impl Watch {
    #[cfg(not(target_arch = "wasm32"))]
    fn open(device: &wgpu::Device, filter: wgpu::ErrorFilter) -> Self {
        Self(device.push_error_scope(filter))
    }

    #[cfg(target_arch = "wasm32")]
    fn open(_: &wgpu::Device, _: wgpu::ErrorFilter) -> Self {
        Self()
    }

    fn close(self) -> Option<wgpu::Error> {
        #[cfg(not(target_arch = "wasm32"))]
        return pollster::block_on(self.0.pop());
        #[cfg(target_arch = "wasm32")]
        None
    }
}

async fn usable() -> Vec<wgpu::Adapter> {
    let all = instance().enumerate_adapters(BACKENDS).await;
    let (hardware, software): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|a| a.get_info().device_type != wgpu::DeviceType::Cpu);
    hardware.into_iter().chain(software).collect()
}

/// All adapters, hardware before software; the index of one is what `--device` takes. A browser has none that it
/// tells of at once: see [`crate::Device::open_async`].
pub fn adapters() -> Vec<AdapterInfo> {
    wait_for(usable()).unwrap_or_default().iter().map(describe).collect()
}

/// As [`adapters`], also in a browser.
#[cfg(target_arch = "wasm32")]
pub(crate) async fn adapters_async() -> Vec<AdapterInfo> {
    usable().await.iter().map(describe).collect()
}

impl Gpu {
    /// Opens an adapter by its index in [`adapters`].
    pub fn open(index: usize) -> Result<Self> {
        let late = || Err(Error::Device("a browser's GPU comes from Device::open_async".into()));
        wait_for(Self::open_async(index)).unwrap_or_else(late)
    }

    /// As [`Gpu::open`], also in a browser.
    pub async fn open_async(index: usize) -> Result<Self> {
        let adapter = usable().await.into_iter().nth(index).ok_or_else(|| {
            Error::Device(format!("there is no adapter {index}; `adamant devices` lists them"))
        })?;
        let info = describe(&adapter);
        let available = adapter.limits();
        // WebGPU's defaults, with the larger buffers that this adapter reports.
        let required_limits = wgpu::Limits {
            max_storage_buffer_binding_size: available.max_storage_buffer_binding_size,
            max_buffer_size: available.max_buffer_size,
            ..wgpu::Limits::defaults()
        }
        .or_worse_values_from(&available);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("adamant"),
            required_features: match cfg!(target_arch = "wasm32") {
                true => wgpu::Features::empty(),
                false => adapter.features() & (wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY),
            },
            required_limits,
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|e| Error::Device(format!("{}: {e}", info.name)))?;
        let fault = Arc::new(Mutex::new(None));
        let store = |fault: &Arc<Mutex<Option<String>>>| {
            let fault = Arc::clone(fault);
            move |message: String| {
                fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(message);
            }
        };
        let (on_error, on_loss) = (store(&fault), store(&fault));
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| on_error(e.to_string())));
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                on_loss(format!("the device was lost: {message}"));
            }
        });
        let info =
            AdapterInfo { limits: limits(&device.limits(), device.features(), &adapter.get_info()), ..info };
        Ok(Self {
            index,
            info,
            device,
            queue,
            pipelines: HashMap::new(),
            variables: HashMap::new(),
            made: 0,
            temporaries: Vec::new(),
            textures: Vec::new(),
            generation: 0,
            pace: Pace::new(),
            fault,
            clock: None,
            times: None,
        })
    }

    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Its position in [`adapters`].
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The first fault that the driver reported since the device was opened.
    fn healthy(&self) -> Result<()> {
        healthy(&self.info.name, &self.fault)
    }

    fn buffer(&self, label: &str, len: usize, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        // Kernels that take four elements at a time may touch the last four whole.
        let size = (len as u64).next_multiple_of(4).max(4) * 4;
        if size > self.info.limits.storage_binding {
            return Err(Error::Limit(format!(
                "a buffer of {} MiB; {} binds {} MiB at once: try a smaller batch",
                size >> 20,
                self.info.name,
                self.info.limits.storage_binding >> 20
            )));
        }
        let watch = Watch::open(&self.device, wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        match watch.close() {
            Some(e) => {
                Err(Error::Limit(format!("{}: no memory for {} MiB: {e}", self.info.name, size >> 20)))
            }
            None => Ok(buffer),
        }
    }

    pub(crate) fn variable(&mut self, len: usize) -> Result<Variable> {
        use wgpu::BufferUsages as Usage;
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let id = self.made;
        self.variables.insert(id, self.buffer("variable", len, usage)?);
        self.made += 1;
        Ok(Variable { id, len })
    }

    /// Gives the memory of a variable back, of which no program is left.
    pub(crate) fn release(&mut self, variable: Variable) {
        self.variables.remove(&variable.id);
    }

    /// Gives the memory of all temporaries back, until a program needs them.
    pub(crate) fn release_temporaries(&mut self) {
        self.temporaries.clear();
        self.textures.clear();
        self.generation += 1;
    }

    pub(crate) fn variable_bytes(&self) -> u64 {
        self.variables.values().map(wgpu::Buffer::size).sum()
    }

    pub(crate) fn temporary_bytes(&self) -> u64 {
        let buffers: u64 = self.temporaries.iter().map(wgpu::Buffer::size).sum();
        let rows: u64 = self.textures.iter().map(|t| u64::from(t.height())).sum();
        buffers + rows * ROW_BYTES
    }

    pub(crate) fn write(&mut self, variable: Variable, values: &[f32]) {
        self.queue.write_buffer(&self.variables[&variable.id], 0, bytemuck::cast_slice(values));
    }

    pub(crate) fn read(&mut self, variable: Variable) -> Result<Vec<f32>> {
        let reading = self.start_reading(variable)?;
        self.fetch(reading)
    }

    /// Waits for what was asked for, and for all work before.
    fn fetch(&mut self, reading: Reading) -> Result<Vec<f32>> {
        self.wait(wgpu::PollType::wait_indefinitely())?;
        self.pace.idle();
        match reading.mapped.take() {
            Some(mapped) => reading.finish(mapped),
            None => Err(Error::Device(format!(
                "{}: reading back did not finish; in a browser, wait for classify_async",
                self.info.name
            ))),
        }
    }

    /// Asks for what a variable holds when all work so far is done.
    pub(crate) fn start_reading(&self, variable: Variable) -> Result<Reading> {
        self.start_reading_buffer(&self.variables[&variable.id], variable.len)
    }

    /// As [`Gpu::start_reading`], of the first `len` words of a buffer.
    fn start_reading_buffer(&self, buffer: &wgpu::Buffer, len: usize) -> Result<Reading> {
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let staging = self.buffer("read", len, usage)?;
        let size = len as u64 * 4;
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
        self.queue.submit([encoder.finish()]);
        let (answer, mapped) = pending("reading back did not finish");
        let name = self.info.name.clone();
        staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
            answer.give(result.map_err(|e| Error::Device(format!("{name}: reading back: {e}"))));
        });
        Ok(Reading { staging, size, mapped, name: self.info.name.clone(), fault: Arc::clone(&self.fault) })
    }

    fn wait(&self, poll: wgpu::PollType) -> Result<()> {
        self.device
            .poll(poll)
            .map(|_| ())
            .map_err(|e| Error::Device(format!("{}: waiting: {e}", self.info.name)))
    }

    fn pipeline(&mut self, kernel: &Kernel) -> Result<wgpu::ComputePipeline> {
        if let Some(pipeline) = self.pipelines.get(kernel.name) {
            return Ok(pipeline.clone());
        }
        let watch = Watch::open(&self.device, wgpu::ErrorFilter::Validation);
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(kernel.name),
            source: wgpu::ShaderSource::Wgsl(kernel.sources.concat().into()),
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        if let Some(e) = watch.close() {
            return Err(Error::Device(format!("{}: kernel {}: {e}", self.info.name, kernel.name)));
        }
        self.pipelines.insert(kernel.name, pipeline.clone());
        Ok(pipeline)
    }

    pub(crate) fn compile(&mut self, plan: Plan) -> Result<GpuProgram> {
        let alignment = self.device.limits().min_uniform_buffer_offset_alignment as usize;
        let mut bytes = Vec::new();
        for dispatch in plan.steps.iter().flat_map(|s| &s.launch.dispatches) {
            bytes.extend_from_slice(&dispatch.parameters);
            bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        }
        bytes.resize(bytes.len().max(16), 0);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let parameters = self.buffer("parameters", bytes.len().div_ceil(4), usage)?;
        self.queue.write_buffer(&parameters, 0, &bytes);
        let mut program = GpuProgram { plan, parameters, bound: Vec::new(), generation: 0 };
        self.bind(&mut program)?;
        Ok(program)
    }

    /// Makes the temporaries large enough for `plan`.
    fn reserve(&mut self, plan: &Plan) -> Result<()> {
        for (i, &len) in plan.temporaries.buffers.iter().enumerate() {
            let enough = self.temporaries.get(i).is_some_and(|b| b.size() >= len as u64 * 4);
            if !enough {
                let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
                let buffer = self.buffer("temporary", len, usage)?;
                if i < self.temporaries.len() {
                    self.temporaries[i] = buffer;
                } else {
                    self.temporaries.push(buffer);
                }
                self.generation += 1;
            }
        }
        for (i, &rows) in plan.temporaries.textures.iter().enumerate() {
            let enough = self.textures.get(i).is_some_and(|t| t.height() as usize >= rows);
            if !enough {
                let texture = self.texture(rows)?;
                if i < self.textures.len() {
                    self.textures[i] = texture;
                } else {
                    self.textures.push(texture);
                }
                self.generation += 1;
            }
        }
        Ok(())
    }

    fn bind(&mut self, program: &mut GpuProgram) -> Result<()> {
        self.reserve(&program.plan)?;
        let alignment = self.device.limits().min_uniform_buffer_offset_alignment as usize;
        let watch = Watch::open(&self.device, wgpu::ErrorFilter::Validation);
        let mut bound = Vec::new();
        let mut offset = 0;
        for step in &program.plan.steps {
            let flops = profile::flops(step);
            // The inputs that lie in the textures.
            let mut held = Vec::new();
            for dispatch in &step.launch.dispatches {
                let pipeline = self.pipeline(&dispatch.kernel)?;
                let textured = dispatch.textured_inputs();
                let mut copies = Vec::new();
                let mut views = HashMap::new();
                for (k, (&i, texture)) in textured.iter().zip(&self.textures).enumerate() {
                    if held.get(k) != Some(&i) {
                        copies.push(TextureCopy::new(&self.argument(step, Argument::Input(i)), texture));
                    }
                    views.insert(i, texture.create_view(&wgpu::TextureViewDescriptor::default()));
                }
                if !textured.is_empty() {
                    held = textured;
                }
                let mut entries: Vec<wgpu::BindGroupEntry<'_>> = dispatch
                    .arguments
                    .iter()
                    .enumerate()
                    .map(|(i, argument)| wgpu::BindGroupEntry {
                        binding: i as u32,
                        resource: match argument {
                            Argument::Texture(i) => wgpu::BindingResource::TextureView(&views[i]),
                            _ => wgpu::BindingResource::Buffer(self.argument(step, *argument)),
                        },
                    })
                    .collect();
                entries.push(wgpu::BindGroupEntry {
                    binding: entries.len() as u32,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &program.parameters,
                        offset: offset as u64,
                        size: NonZeroU64::new(dispatch.parameters.len() as u64),
                    }),
                });
                offset = (offset + dispatch.parameters.len()).next_multiple_of(alignment);
                let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(dispatch.kernel.name),
                    layout: &pipeline.get_bind_group_layout(0),
                    entries: &entries,
                });
                let groups = dispatch.threads.div_ceil(dispatch.kernel.workgroup.into());
                let most = u64::from(self.info.limits.workgroups_per_dimension);
                let workgroups = [groups.min(most) as u32, groups.div_ceil(most) as u32];
                bound.push(Bound { copies, pipeline, group, workgroups, flops });
            }
        }
        if let Some(e) = watch.close() {
            return Err(Error::Device(format!("{}: binding: {e}", self.info.name)));
        }
        program.bound = bound;
        program.generation = self.generation;
        Ok(())
    }

    /// The part of a buffer that an argument stands for: the operand's elements, rounded up to four.
    fn argument(&self, step: &Step, argument: Argument) -> wgpu::BufferBinding<'_> {
        let (slot, len) = match argument {
            Argument::Input(i) | Argument::Texture(i) => (step.inputs[i].slot, step.inputs[i].shape.len()),
            Argument::Output(i) => (step.outputs[i].slot, step.outputs[i].shape.len()),
            Argument::Scratch(i) => (Slot::Temporary(step.scratch[i]), step.launch.scratch[i]),
        };
        let buffer = match slot {
            Slot::Variable(v) => &self.variables[&v.id],
            Slot::Temporary(t) => &self.temporaries[t],
        };
        wgpu::BufferBinding { buffer, offset: 0, size: NonZeroU64::new((len as u64).next_multiple_of(4) * 4) }
    }
}

fn healthy(name: &str, fault: &Mutex<Option<String>>) -> Result<()> {
    match &*fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(message) => Err(Error::Device(format!("{name}: {message}"))),
        None => Ok(()),
    }
}

/// Values on their way to the host.
pub(crate) struct Reading {
    staging: wgpu::Buffer,
    /// Bytes.
    size: u64,
    /// That the buffer is there to be read.
    mapped: Pending<()>,
    name: String,
    fault: Arc<Mutex<Option<String>>>,
}

impl Reading {
    fn finish(&self, mapped: Result<()>) -> Result<Vec<f32>> {
        mapped?;
        let mapped = self
            .staging
            .slice(..self.size)
            .get_mapped_range()
            .map_err(|e| Error::Device(format!("{}: reading back: {e}", self.name)))?;
        let values = bytemuck::pod_collect_to_vec(&mapped);
        drop(mapped);
        healthy(&self.name, &self.fault)?;
        Ok(values)
    }

    /// The values, when the device has them.
    #[cfg(any(test, target_arch = "wasm32"))]
    pub(crate) async fn arrival(mut self) -> Result<Vec<f32>> {
        let mapped = (&mut self.mapped).await;
        self.finish(mapped)
    }
}
