//! The parts of adversarial training in burn, timed for `speed.py`.
//!
//!     adamant-peer-burn BACKEND NETWORK BATCH
//!
//! `BACKEND` is wgpu, flex or ndarray; `NETWORK` resnet20 (CIFAR, shortcuts without weights) or resnet18
//! (CIFAR, projections). Reads lines of a workload's name and how often to run it, and answers each with a
//! line of JSON; so one process, warm, can take turns with others. Weights and images are random, float32.

mod network;

use std::io::{BufRead, Write};
use std::time::Instant;

use burn::backend::{Autodiff, Flex, NdArray, Wgpu};
use burn::module::{AutodiffModule, Module};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, Optimizer, Sgd, SgdConfig};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Int, Tensor, s};

use network::{ResNet, Statistics};

const EPS: f32 = 8.0 / 255.0;
const STEP: f32 = 2.0 / 255.0;

struct Trainer<B: AutodiffBackend> {
    net: ResNet<B>,
    optimizer: OptimizerAdaptor<Sgd<B::InnerBackend>, ResNet<B>, B>,
    images: Tensor<B::InnerBackend, 4>,
    adversarial: Tensor<B::InnerBackend, 4>,
    labels: Tensor<B, 1, Int>,
    device: B::Device,
}

impl<B: AutodiffBackend> Trainer<B> {
    fn new(network: &str, batch: usize) -> Result<Self, String> {
        let device = B::Device::default();
        let net = match network {
            "resnet20" => ResNet::new(&[16, 32, 64], 3, false, &device),
            "resnet18" => ResNet::new(&[64, 128, 256, 512], 2, true, &device),
            other => return Err(format!("no network {other}: resnet20 or resnet18")),
        };
        let images = Tensor::random([batch, 3, 32, 32], Distribution::Uniform(0.0, 1.0), &device);
        let labels = Tensor::arange(0..batch as i64, &device).remainder_scalar(10);
        let momentum = MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false };
        let optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
        Ok(Self { net, optimizer, adversarial: images.clone(), images, labels, device })
    }

    fn loss(&self, logits: Tensor<B, 2>) -> Tensor<B, 1> {
        CrossEntropyLossConfig::new().init(&self.device).forward(logits, self.labels.clone())
    }

    /// Logits without anything kept for gradients.
    fn forward(&self) -> Vec<f32> {
        let logits = self.net.valid().forward(self.adversarial.clone(), Statistics::Running);
        values(logits.reshape([-1]))
    }

    fn gradient(&self) -> Tensor<B::InnerBackend, 4> {
        // Without gradients of the weights.
        let net = self.net.clone().no_grad();
        let x = Tensor::<B, 4>::from_inner(self.adversarial.clone()).require_grad();
        let gradients = self.loss(net.forward(x.clone(), Statistics::Running)).backward();
        x.grad(&gradients).expect("the images want a gradient")
    }

    fn pgd_step(&mut self) {
        let moved = self.adversarial.clone() + self.gradient().sign() * STEP;
        let moved = moved.max_pair(self.images.clone() - EPS).min_pair(self.images.clone() + EPS);
        self.adversarial = moved.clamp(0.0, 1.0);
    }

    fn train_step(&mut self) {
        let x = Tensor::<B, 4>::from_inner(self.adversarial.clone());
        let gradients = self.loss(self.net.forward(x, Statistics::Batch)).backward();
        let gradients = GradientsParams::from_grads(gradients, &self.net);
        self.net = self.optimizer.step(0.0, self.net.clone(), gradients);
    }

    fn pgd10_adversarial_step(&mut self) {
        let noise = self.images.random_like(Distribution::Uniform(-f64::from(EPS), f64::from(EPS)));
        self.adversarial = (self.images.clone() + noise).clamp(0.0, 1.0);
        for _ in 0..10 {
            self.pgd_step();
        }
        self.train_step();
    }

    /// Runs a workload and waits until its last value is there.
    fn run(&mut self, workload: &str) -> Result<(), String> {
        let last = match workload {
            "forward" => self.forward(),
            "pgd_step" => {
                self.pgd_step();
                values(self.adversarial.clone().slice(s![0..1, 0..1, 0..1, 0..1]).reshape([1]))
            }
            "train_step" => {
                self.train_step();
                values(self.net.first_weight())
            }
            "pgd10_adversarial_step" => {
                self.pgd10_adversarial_step();
                values(self.net.first_weight())
            }
            other => return Err(format!("no workload {other}")),
        };
        B::sync(&self.device).map_err(|e| format!("{e:?}"))?;
        if last.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(format!("{workload} gives {last:?}")) }
    }

    /// Refuses a backend whose attack does nothing: it would be fast.
    fn check(&mut self) -> Result<(), String> {
        let gradient = values(self.gradient().abs().mean());
        if !(gradient[0] > 0.0 && gradient[0].is_finite()) {
            return Err(format!("the gradient's mean is {}", gradient[0]));
        }
        self.pgd_step();
        let moved = values((self.adversarial.clone() - self.images.clone()).abs().max());
        let wanted = STEP * 0.99..STEP * 1.01;
        if wanted.contains(&moved[0]) { Ok(()) } else { Err(format!("a step of PGD moves by {}", moved[0])) }
    }
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().to_vec().expect("float32")
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 }
}

fn serve<B: AutodiffBackend>(network: &str, batch: usize) -> Result<(), String> {
    let start = Instant::now();
    let mut trainer = Trainer::<B>::new(network, batch)?;
    trainer.check()?;
    let mut warm = Vec::new();
    let mut out = std::io::stdout();
    writeln!(out, r#"{{"first_gradient_s": {:.3}}}"#, start.elapsed().as_secs_f64())
        .map_err(|e| e.to_string())?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let (workload, runs) = line.split_once(' ').unwrap_or((&line, "1"));
        let runs: usize = runs.parse().map_err(|_| format!("{runs} is not a number of runs"))?;
        // The first runs tune and compile. Later, a workload of ten steps warms up by itself.
        let long = workload == "pgd10_adversarial_step";
        let before = match (warm.iter().any(|w| w == workload), long) {
            (true, long) => usize::from(!long),
            (false, true) => 1,
            (false, false) => 2,
        };
        for _ in 0..before {
            trainer.run(workload)?;
        }
        warm.push(workload.to_owned());
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs.max(1) {
            let start = Instant::now();
            trainer.run(workload)?;
            times.push(1e3 * start.elapsed().as_secs_f64());
        }
        writeln!(out, r#"{{"name": "{workload}", "median_ms": {:.3}}}"#, median(times))
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn main() -> Result<(), String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [backend, network, batch] = args.as_slice() else {
        return Err("adamant-peer-burn BACKEND NETWORK BATCH".into());
    };
    let batch = batch.parse().map_err(|_| format!("{batch} is not a batch"))?;
    match backend.as_str() {
        "wgpu" => serve::<Autodiff<Wgpu>>(network, batch),
        "flex" => serve::<Autodiff<Flex>>(network, batch),
        "ndarray" => serve::<Autodiff<NdArray>>(network, batch),
        other => Err(format!("no backend {other}: wgpu, flex or ndarray")),
    }
}
