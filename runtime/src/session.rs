//! A model on a device: its parameters, the buffers of a batch, and the programs that run on them.

mod model_graph;
#[cfg(feature = "train")]
mod part;

use std::collections::HashMap;

pub use self::model_graph::ModelGraph;
#[cfg(feature = "train")]
pub(crate) use self::part::{Whole, part};
use crate::compact::Compact;
use crate::device::{Device, Program};
use crate::error::{Error, Result};
use crate::fours::in_fours;
use crate::fuse::fuse;
use crate::graph::{Graph, Variable};
use crate::loss::Loss;
use crate::model::Model;
use crate::network::{BatchNormMode, Network};
use crate::ops::{AttackStart, AttackStep, Copy, KeepWorst, Norm, NormalStart, Op};
use crate::package::Precision;
use crate::shape::{Shape, Tensor};

/// Which images a forward pass sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Images {
    Clean,
    Adversarial,
}

/// A computation that a session compiles once for each batch size.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Task {
    Logits(Images),
    Features(Images),
    Score(Loss),
    Gradient(Loss),
    StartClean,
    StartRandom(Norm),
    StartNormal,
    Step(Norm),
    KeepWorst,
    TakeWorst,
    Custom(&'static str, u32),
}

/// Device buffers of one batch. Images are batch x channels x height x width in [0, 1].
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    pub images: Variable,
    pub adversarial: Variable,
    pub worst: Variable,
    pub labels: Variable,
    /// The class that a targeted attack wants each image to be taken for.
    pub targets: Variable,
    /// Data set index of each image: what its random numbers are keyed by.
    pub indices: Variable,
    pub gradient: Variable,
    pub loss: Variable,
    pub correct: Variable,
    pub worst_loss: Variable,
    pub worst_correct: Variable,
    pub logits: Variable,
    /// Radius of the ball around each image.
    pub radius: Variable,
    /// Step length for each image.
    pub step: Variable,
    /// Key of the random stream: two words.
    pub key: Variable,
}

/// A model on a device. Parameters stay there from one call to the next.
pub struct Session {
    device: Device,
    network: Network,
    classes: usize,
    capacity: usize,
    parameters: Vec<Variable>,
    compact: Compact,
    mean: Variable,
    std: Variable,
    buffers: Buffers,
    /// Layers whose running statistics normalise in every pass; empty where there are none.
    frozen_layers: Vec<bool>,
    /// Further buffers, by what they are for: those of attacks that keep more than the common ones.
    extra: HashMap<&'static str, Variable>,
    programs: HashMap<(Task, usize), Program>,
    /// How often programs made room for others.
    gave_way: usize,
}

impl Session {
    /// Puts `model` on `device`, with room for batches of up to `capacity` images.
    pub fn new(device: Device, model: &Model, capacity: usize) -> Result<Self> {
        Self::with(device, model, capacity, Compact::none(&model.network))
    }

    /// A session that only computes logits, for a model of a package of that precision: its weights take as much
    /// memory as there. BatchNorms that follow convolutions are folded into them, which are then of full precision.
    pub(crate) fn inference(
        device: Device,
        model: &Model,
        capacity: usize,
        precision: Precision,
    ) -> Result<Self> {
        model.network.verify(&model.values)?;
        let norms = model.network.layers.iter().any(|layer| matches!(layer.op, Op::BatchNorm(_)));
        let folded = norms.then(|| model.folded());
        let (model, precision) = match &folded {
            Some(folded) => (folded, Precision::F32),
            None => (model, precision),
        };
        Self::with(device, model, capacity, Compact::of(model, precision))
    }

    fn with(mut device: Device, model: &Model, capacity: usize, compact: Compact) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::Config("a batch has at least one image".into()));
        }
        model.network.verify(&model.values)?;
        let network = model.network.clone();
        let classes = network.classes()?;
        let image = network.image_shape(capacity);
        let len = image
            .checked_len()
            .ok_or_else(|| Error::Limit(format!("a batch of {capacity} images of {image:?} is too large")))?;
        let mut parameters = Vec::with_capacity(model.values.len());
        for (i, value) in model.values.iter().enumerate() {
            let variable = device.variable_from(&compact.words(i, value.shape, &value.data)?)?;
            if compact.is_shared(i) {
                device.share_weight(variable);
            }
            parameters.push(variable);
        }
        let mean = device.variable_from(&model.preprocessing.mean)?;
        let std = device.variable_from(&model.preprocessing.std)?;
        let buffers = Buffers {
            images: device.variable(len)?,
            adversarial: device.variable(len)?,
            worst: device.variable(len)?,
            labels: device.variable(capacity)?,
            targets: device.variable(capacity)?,
            indices: device.variable(capacity)?,
            gradient: device.variable(len)?,
            loss: device.variable(capacity)?,
            correct: device.variable(capacity)?,
            worst_loss: device.variable(capacity)?,
            worst_correct: device.variable(capacity)?,
            logits: device.variable(capacity * classes)?,
            radius: device.variable(capacity)?,
            step: device.variable(capacity)?,
            key: device.variable(2)?,
        };
        Ok(Self {
            device,
            network,
            classes,
            capacity,
            parameters,
            compact,
            mean,
            std,
            buffers,
            frozen_layers: Vec::new(),
            extra: HashMap::new(),
            programs: HashMap::new(),
            gave_way: 0,
        })
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn device(&mut self) -> &mut Device {
        &mut self.device
    }

    pub fn device_name(&self) -> String {
        self.device.name()
    }

    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The largest batch.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Lets the running statistics of these layers normalise in every pass, in training as well. Programs that
    /// are compiled already stay as they are.
    #[cfg(feature = "train")]
    pub(crate) fn freeze_layers(&mut self, frozen: Vec<bool>) {
        self.frozen_layers = frozen;
    }

    /// One device buffer for each of the network's parameters.
    pub fn parameters(&self) -> &[Variable] {
        &self.parameters
    }

    /// Copies the parameters back to the host.
    pub fn read_parameters(&mut self) -> Result<Vec<Tensor>> {
        let mut values = Vec::with_capacity(self.parameters.len());
        for (variable, parameter) in self.parameters.iter().zip(&self.network.parameters) {
            values.push(Tensor::new(parameter.shape, self.device.read(*variable)?));
        }
        Ok(values)
    }

    /// Replaces the parameters.
    pub fn write_parameters(&mut self, values: &[Tensor]) -> Result<()> {
        self.network.verify(values)?;
        for (variable, value) in self.parameters.iter().zip(values) {
            self.device.write(*variable, &value.data);
        }
        Ok(())
    }

    /// Uploads a batch: images (batch x channels x height x width in [0, 1]), labels, and the data
    /// set index of each image.
    pub fn load(&mut self, images: &[f32], labels: &[u32], indices: &[u32]) -> Result<()> {
        let count = labels.len();
        let len = self.network.image_shape(count).len();
        if images.len() != len || indices.len() != count || count == 0 || count > self.capacity {
            return Err(Error::Config(format!(
                "a batch of {count} labels, {} indices and {} image values; up to {} images of {} values fit",
                indices.len(),
                images.len(),
                self.capacity,
                self.network.image_shape(1).len()
            )));
        }
        if let Some(value) = images.iter().find(|x| !(0.0..=1.0).contains(*x)) {
            return Err(Error::Config(format!("an image holds {value}; images are in [0, 1]")));
        }
        if let Some(label) = labels.iter().find(|&&l| l as usize >= self.classes) {
            return Err(Error::Config(format!("label {label}, but the model has {} classes", self.classes)));
        }
        self.device.write(self.buffers.images, images);
        self.device.write_integers(self.buffers.labels, labels);
        self.device.write_integers(self.buffers.indices, indices);
        Ok(())
    }

    /// Runs the program called `name` on a batch of `count`, building it the first time.
    pub fn run(
        &mut self,
        name: &'static str,
        count: usize,
        build: impl FnOnce(&mut ModelGraph) -> Result<()>,
    ) -> Result<()> {
        self.run_task(Task::Custom(name, 0), count, build)
    }

    /// As [`Session::run`], for a program that comes in several variants.
    pub(crate) fn run_variant(
        &mut self,
        name: &'static str,
        variant: u32,
        count: usize,
        build: impl FnOnce(&mut ModelGraph) -> Result<()>,
    ) -> Result<()> {
        self.run_task(Task::Custom(name, variant), count, build)
    }

    /// A buffer with room for a batch of images, made when it is first asked for.
    pub(crate) fn extra_images(&mut self, name: &'static str) -> Result<Variable> {
        self.extra_of(name, self.network.image_shape(self.capacity).len())
    }

    /// A buffer with one value for each image of a batch, made when it is first asked for.
    pub(crate) fn extra_values(&mut self, name: &'static str) -> Result<Variable> {
        self.extra_of(name, self.capacity)
    }

    /// A buffer of `len` values, made when it is first asked for.
    pub(crate) fn extra_vector(&mut self, name: &'static str, len: usize) -> Result<Variable> {
        self.extra_of(name, len)
    }

    /// The buffer of that name, if an attack has asked for one.
    pub fn extra(&self, name: &str) -> Option<Variable> {
        self.extra.get(name).copied()
    }

    fn extra_of(&mut self, name: &'static str, len: usize) -> Result<Variable> {
        if let Some(&variable) = self.extra.get(name) {
            return Ok(variable);
        }
        let variable = self.device.variable(len)?;
        self.extra.insert(name, variable);
        Ok(variable)
    }

    fn run_task(
        &mut self,
        task: Task,
        count: usize,
        build: impl FnOnce(&mut ModelGraph) -> Result<()>,
    ) -> Result<()> {
        if !self.programs.contains_key(&(task, count)) {
            let mut model = self.graph(count);
            build(&mut model)?;
            let graph = self.compact.apply(fuse(&model.graph), &self.parameters)?;
            let graph = if self.device.is_cpu() { graph } else { in_fours(graph)? }.with_early_sums();
            let program = match self.device.compile_with(&graph, &self.parameters) {
                // What other programs keep, those of other batch sizes say, makes room: they can be built again.
                Err(Error::Limit(_)) if !self.programs.is_empty() => {
                    self.gave_way += 1;
                    self.device.release_programs(self.programs.drain().map(|(_, program)| program));
                    self.device.compile_with(&graph, &self.parameters)?
                }
                compiled => compiled?,
            };
            self.programs.insert((task, count), program);
        }
        let program = self.programs.get_mut(&(task, count)).expect("it was just compiled");
        self.device.run(program)
    }

    /// How often programs were given up to make room for others.
    #[cfg(feature = "train")]
    pub(crate) fn gave_way(&self) -> usize {
        self.gave_way
    }

    /// A new graph with this model's parameters and buffers as its values, for a batch of `count`.
    pub fn graph(&self, count: usize) -> ModelGraph {
        let mut graph = Graph::new();
        let mut parameters = Vec::with_capacity(self.parameters.len());
        for (i, (variable, p)) in self.parameters.iter().zip(&self.network.parameters).enumerate() {
            parameters.push(graph.variable(self.compact.stand_in(i, *variable, p.shape), p.shape));
        }
        let channels = Shape::vector(self.network.input[0]);
        let (mean, std) = (graph.variable(self.mean, channels), graph.variable(self.std, channels));
        let image = self.network.image_shape(count);
        let (b, one) = (&self.buffers, Shape::per_image(count));
        ModelGraph {
            images: graph.variable(b.images, image),
            adversarial: graph.variable(b.adversarial, image),
            labels: graph.variable(b.labels, one),
            targets: graph.variable(b.targets, one),
            parameters,
            mean,
            std,
            count,
            buffers: *b,
            network: self.network.clone(),
            frozen_layers: self.frozen_layers.clone(),
            graph,
        }
    }

    /// Computes the logits of the loaded images into [`Buffers::logits`].
    pub(crate) fn forward(&mut self, count: usize, images: Images) -> Result<()> {
        self.run_task(Task::Logits(images), count, |m| {
            let logits = m.logits(images, BatchNormMode::Running)?;
            let target = m.graph.variable(m.buffers.logits, m.graph.shape(logits));
            m.graph.update(Op::Copy(Copy), &[logits], &[target])
        })
    }

    /// Logits of the loaded images: count x classes, row-major.
    pub fn logits(&mut self, count: usize, images: Images) -> Result<Vec<f32>> {
        self.forward(count, images)?;
        let mut values = self.device.read(self.buffers.logits)?;
        values.truncate(count * self.classes);
        Ok(values)
    }

    /// As [`Session::logits`], without waiting: all there are room for.
    #[cfg(any(test, target_arch = "wasm32"))]
    pub(crate) fn start_logits(&mut self, count: usize, images: Images) -> Result<crate::device::Reading> {
        self.forward(count, images)?;
        self.device.start_reading(self.buffers.logits)
    }

    /// What the last, linear layer sees of the loaded images, with running statistics: count x features, row-major.
    ///
    /// # Errors
    /// [`Error::Config`] when the last layer is not linear.
    pub fn features(&mut self, count: usize, images: Images) -> Result<Vec<f32>> {
        let head = self.network.head();
        let len = match head {
            Some(head) => self.network.layer_shapes(1)?[head.features].len(),
            None => return Err(Error::Config("the model's last layer is not linear".into())),
        };
        let buffer = self.extra_of("features", self.capacity * len)?;
        self.run_task(Task::Features(images), count, |m| {
            let features = m.forward(images, BatchNormMode::Running)?.features(&m.network)?;
            let target = m.graph.variable(buffer, m.graph.shape(features));
            m.graph.update(Op::Copy(Copy), &[features], &[target])
        })?;
        let mut values = self.device.read(buffer)?;
        values.truncate(count * len);
        Ok(values)
    }

    /// Adversarial images := clean images.
    pub(crate) fn start_clean(&mut self, count: usize) -> Result<()> {
        self.run_task(Task::StartClean, count, |m| {
            m.graph.update(Op::Copy(Copy), &[m.images], &[m.adversarial])
        })
    }

    /// Adversarial images := a random point of each ball.
    pub(crate) fn start_random(&mut self, count: usize, norm: Norm, key: [u32; 2]) -> Result<()> {
        self.device.write_integers(self.buffers.key, &key);
        self.run_task(Task::StartRandom(norm), count, |m| {
            let one = Shape::per_image(count);
            let inputs = [
                m.images,
                m.graph.variable(m.buffers.radius, one),
                m.graph.variable(m.buffers.indices, one),
                m.graph.variable(m.buffers.key, Shape::vector(2)),
            ];
            m.graph.update(Op::AttackStart(AttackStart { norm }), &inputs, &[m.adversarial])
        })
    }

    /// Adversarial images := the clean images and a little normal noise.
    pub(crate) fn start_normal(&mut self, count: usize, key: [u32; 2]) -> Result<()> {
        self.device.write_integers(self.buffers.key, &key);
        self.run_task(Task::StartNormal, count, |m| {
            let one = Shape::per_image(count);
            let inputs = [
                m.images,
                m.graph.variable(m.buffers.radius, one),
                m.graph.variable(m.buffers.indices, one),
                m.graph.variable(m.buffers.key, Shape::vector(2)),
            ];
            m.graph.update(Op::NormalStart(NormalStart { deviation: 1e-3 }), &inputs, &[m.adversarial])
        })
    }

    /// Radius of the ball and step length of each image of the batch.
    pub(crate) fn set_balls(&mut self, balls: &[(f32, f32)]) {
        let (radius, step): (Vec<f32>, Vec<f32>) = balls.iter().copied().unzip();
        self.device.write(self.buffers.radius, &radius);
        self.device.write(self.buffers.step, &step);
    }

    /// Radius of the ball and step length, the same for each image of the batch.
    pub(crate) fn set_ball(&mut self, radius: f32, step: f32) {
        self.device.write(self.buffers.radius, &vec![radius; self.capacity]);
        self.device.write(self.buffers.step, &vec![step; self.capacity]);
    }

    /// Gradient of the summed loss at the adversarial images; with it, the loss of each image and
    /// whether it is still classified correctly.
    pub(crate) fn gradient(&mut self, count: usize, loss: Loss) -> Result<()> {
        self.run_task(Task::Gradient(loss), count, |m| m.input_gradient(loss))
    }

    /// One step along the gradient, staying in the ball and in [0, 1].
    pub(crate) fn step(&mut self, count: usize, norm: Norm) -> Result<()> {
        self.run_task(Task::Step(norm), count, |m| {
            let one = Shape::per_image(count);
            let inputs = [
                m.images,
                m.graph.variable(m.buffers.gradient, m.graph.shape(m.images)),
                m.graph.variable(m.buffers.radius, one),
                m.graph.variable(m.buffers.step, one),
            ];
            m.graph.update(Op::AttackStep(AttackStep { norm }), &inputs, &[m.adversarial])
        })
    }

    /// Loss of each adversarial image and whether it is still classified correctly, into
    /// [`Buffers::loss`] and [`Buffers::correct`].
    pub(crate) fn score(&mut self, count: usize, loss: Loss) -> Result<()> {
        self.run_task(Task::Score(loss), count, |m| {
            let logits = m.logits(Images::Adversarial, BatchNormMode::Running)?;
            let losses = loss.add(m, logits)?;
            m.score(logits, losses)
        })
    }

    /// Forgets the worst images so far.
    pub(crate) fn reset_worst(&mut self) {
        // Any score beats these: 2 is worse for the attacker than "classified correctly".
        self.device.write(self.buffers.worst_correct, &vec![2.0; self.capacity]);
        self.device.write(self.buffers.worst_loss, &vec![f32::MIN; self.capacity]);
    }

    /// Keeps the scored adversarial images where they are worse for the model than those kept.
    pub(crate) fn keep_worst(&mut self, count: usize) -> Result<()> {
        self.run_task(Task::KeepWorst, count, |m| {
            let one = Shape::per_image(count);
            let b = m.buffers;
            let inputs = [m.adversarial, m.graph.variable(b.loss, one), m.graph.variable(b.correct, one)];
            let targets = [
                m.graph.variable(b.worst, m.graph.shape(m.images)),
                m.graph.variable(b.worst_loss, one),
                m.graph.variable(b.worst_correct, one),
            ];
            m.graph.update(Op::KeepWorst(KeepWorst), &inputs, &targets)
        })
    }

    /// Adversarial images := the worst ones kept.
    pub(crate) fn take_worst(&mut self, count: usize) -> Result<()> {
        self.run_task(Task::TakeWorst, count, |m| {
            let worst = m.graph.variable(m.buffers.worst, m.graph.shape(m.images));
            m.graph.update(Op::Copy(Copy), &[worst], &[m.adversarial])
        })
    }

    /// Reads the first `count` values of a per-image buffer.
    pub(crate) fn read_per_image(&mut self, variable: Variable, count: usize) -> Result<Vec<f32>> {
        let mut values = self.device.read(variable)?;
        values.truncate(count);
        Ok(values)
    }

    /// Whether [`Session::score`] or [`Session::gradient`] found each image classified correctly.
    #[cfg(feature = "train")]
    pub(crate) fn read_correct(&mut self, count: usize) -> Result<Vec<bool>> {
        Ok(self.read_per_image(self.buffers.correct, count)?.iter().map(|&c| c == 1.0).collect())
    }

    /// The gradient that [`Session::gradient`] left: count x channels x height x width.
    #[cfg(feature = "train")]
    pub(crate) fn read_gradient(&mut self, count: usize) -> Result<Vec<f32>> {
        let mut values = self.device.read(self.buffers.gradient)?;
        values.truncate(self.network.image_shape(count).len());
        Ok(values)
    }

    /// The adversarial images: count x channels x height x width.
    pub fn read_adversarial(&mut self, count: usize) -> Result<Vec<f32>> {
        let mut values = self.device.read(self.buffers.adversarial)?;
        values.truncate(self.network.image_shape(count).len());
        Ok(values)
    }
}
