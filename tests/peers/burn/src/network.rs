//! CIFAR ResNets of basic blocks, as `speed.py` has them for PyTorch.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, s};

/// Where a BatchNorm takes its mean and variance from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    Batch,
    Running,
}

#[derive(Module, Debug)]
struct Convolution<B: Backend> {
    convolution: Conv2d<B>,
    norm: BatchNorm<B>,
}

impl<B: Backend> Convolution<B> {
    fn new(channels: [usize; 2], size: usize, stride: usize, device: &B::Device) -> Self {
        let padding = PaddingConfig2d::Explicit(size / 2, size / 2, size / 2, size / 2);
        let convolution = Conv2dConfig::new(channels, [size, size])
            .with_stride([stride, stride])
            .with_padding(padding)
            .with_bias(false)
            .init(device);
        Self { convolution, norm: BatchNormConfig::new(channels[1]).init(device) }
    }

    fn forward(&self, x: Tensor<B, 4>, statistics: Statistics) -> Tensor<B, 4> {
        let x = self.convolution.forward(x);
        if statistics == Statistics::Batch {
            return self.norm.forward(x);
        }
        // burn's own layer takes the batch's statistics wherever gradients are wanted. One product and one
        // sum an element is also the least work.
        let norm = &self.norm;
        let deviation = (norm.running_var.value() + norm.epsilon).sqrt();
        let scale = norm.gamma.val() / deviation;
        let shift = norm.beta.val() - norm.running_mean.value() * scale.clone();
        let shape = [1, scale.dims()[0], 1, 1];
        x * scale.reshape(shape) + shift.reshape(shape)
    }
}

#[derive(Module, Debug)]
struct Block<B: Backend> {
    first: Convolution<B>,
    second: Convolution<B>,
    shortcut: Option<Convolution<B>>,
    stride: usize,
    /// Channels of zeros before and after the input's own, where there is no projection.
    zeros: usize,
}

impl<B: Backend> Block<B> {
    fn new(channels: [usize; 2], stride: usize, project: bool, device: &B::Device) -> Self {
        let [inputs, outputs] = channels;
        let changes = stride != 1 || inputs != outputs;
        Self {
            first: Convolution::new(channels, 3, stride, device),
            second: Convolution::new([outputs, outputs], 3, 1, device),
            shortcut: (project && changes).then(|| Convolution::new(channels, 1, stride, device)),
            stride,
            zeros: if project { 0 } else { (outputs - inputs) / 2 },
        }
    }

    fn forward(&self, x: Tensor<B, 4>, statistics: Statistics) -> Tensor<B, 4> {
        let y = relu(self.first.forward(x.clone(), statistics));
        let y = self.second.forward(y, statistics);
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, statistics),
            None => self.option_a(x),
        };
        relu(y + x)
    }

    /// Every `stride`th pixel, and zeros for the channels that the input lacks (He et al. 2016, option A).
    fn option_a(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let x = if self.stride == 1 { x } else { x.slice(s![.., .., ..;2, ..;2]) };
        if self.zeros == 0 {
            return x;
        }
        let [count, _, height, width] = x.dims();
        let zeros = Tensor::zeros([count, self.zeros, height, width], &x.device());
        Tensor::cat(vec![zeros.clone(), x, zeros], 1)
    }
}

#[derive(Module, Debug)]
pub struct ResNet<B: Backend> {
    stem: Convolution<B>,
    blocks: Vec<Block<B>>,
    linear: Linear<B>,
}

impl<B: Backend> ResNet<B> {
    /// `widths` of the stages with `blocks` each; shortcuts that change the shape are 1x1 convolutions where
    /// `project` says so, else option A.
    pub fn new(widths: &[usize], blocks: usize, project: bool, device: &B::Device) -> Self {
        let mut layers = Vec::new();
        let mut inputs = widths[0];
        for (stage, &width) in widths.iter().enumerate() {
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                layers.push(Block::new([inputs, width], stride, project, device));
                inputs = width;
            }
        }
        Self {
            stem: Convolution::new([3, widths[0]], 3, 1, device),
            blocks: layers,
            linear: LinearConfig::new(inputs, 10).init(device),
        }
    }

    /// Logits, batch x 10, of images, batch x 3 x 32 x 32.
    pub fn forward(&self, x: Tensor<B, 4>, statistics: Statistics) -> Tensor<B, 2> {
        let mut x = relu(self.stem.forward(x, statistics));
        for block in &self.blocks {
            x = block.forward(x, statistics);
        }
        let [count, channels, ..] = x.dims();
        self.linear.forward(x.mean_dim(3).mean_dim(2).reshape([count, channels]))
    }

    /// A value of the first kernel: its gradient is the last that a backward pass computes.
    pub fn first_weight(&self) -> Tensor<B, 1> {
        self.stem.convolution.weight.val().slice(s![0..1, 0..1, 0..1, 0..1]).reshape([1])
    }
}
