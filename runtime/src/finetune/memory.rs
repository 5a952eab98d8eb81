//! A number for each training image that lasts from epoch to epoch, keyed by data set index: shuffling
//! does not change what an image finds.

use crate::data::Dataset;
use crate::error::{Error, Result};

pub(super) struct Memory {
    /// The data set index of the first image.
    offset: usize,
    values: Vec<f32>,
}

impl Memory {
    pub fn new(data: &Dataset, value: f32) -> Self {
        Self { offset: data.offset(), values: vec![value; data.len()] }
    }

    /// The values of the images with these indices.
    pub fn get(&self, indices: &[u32]) -> Vec<f32> {
        indices.iter().map(|&i| self.values[i as usize - self.offset]).collect()
    }

    pub fn set(&mut self, indices: &[u32], values: &[f32]) {
        for (&i, &value) in indices.iter().zip(values) {
            self.values[i as usize - self.offset] = value;
        }
    }

    pub fn all(&self) -> &[f32] {
        &self.values
    }

    /// Restores what a checkpoint holds under `name`.
    pub fn restore(&mut self, name: &str, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        let (_, values) =
            tensors.iter().find(|(n, v)| n == name && v.len() == self.values.len()).ok_or_else(|| {
                Error::Config(format!("the checkpoint has no '{name}' of {} images", self.values.len()))
            })?;
        self.values.clone_from(values);
        Ok(())
    }
}
