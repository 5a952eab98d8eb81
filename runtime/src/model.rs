//! A classifier with its weights and everything needed to use it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::Network;
use crate::shape::Tensor;

/// How an image in [0, 1] becomes the network's input: (x - mean) / std, per channel.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Preprocessing {
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl Preprocessing {
    /// The network takes images in [0, 1] as they are.
    pub fn none(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// One mean and one standard deviation a channel; a single number serves all channels.
    pub fn new(mean: &[f32], std: &[f32], channels: usize) -> Result<Self> {
        let spread = |name: &str, v: &[f32]| match v.len() {
            1 => Ok(vec![v[0]; channels]),
            n if n == channels => Ok(v.to_vec()),
            n => Err(Error::Config(format!(
                "{name} has {n} numbers, the model's images have {channels} channels"
            ))),
        };
        let found = Self { mean: spread("mean", mean)?, std: spread("std", std)? };
        if !found.mean.iter().all(|m| m.is_finite()) || !found.std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(Error::Config("mean must be finite and std positive".into()));
        }
        Ok(found)
    }
}

/// A network, its weights, and what an application must know to use it.
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    pub network: Network,
    /// One tensor for each of the network's parameters.
    pub values: Vec<Tensor>,
    pub preprocessing: Preprocessing,
    /// Class names, or empty when unknown.
    pub labels: Vec<String>,
    /// The ONNX file that it came from, without the values of its parameters: what an export
    /// fills in again. Empty for a network that never was ONNX.
    pub onnx_skeleton: Vec<u8>,
}
