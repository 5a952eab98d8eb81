//! The start of an attack near the clean image. Images are batch x channels x height x width in [0, 1].

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, same};
use crate::random::Stream;
use crate::shape::Shape;

/// Inputs: clean images, radius of each image, data set index of each image (u32), stream key
/// (two u32). Writes the start: `deviation` times standard normal noise, no element more than the
/// radius from the clean image, clipped to [0, 1].
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct NormalStart {
    pub deviation: f32,
}

params! {
    struct NormalStartParams { batch: u32, per_image: u32, deviation: f32, }
}

const NORMAL_START: Kernel = Kernel {
    name: "normal_start",
    sources: &[adamant_shaders::INDEX, adamant_shaders::RANDOM, adamant_shaders::NORMAL_START],
    workgroup: 64,
};

impl Operation for NormalStart {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [images, radius, indices, key] = arity(inputs)?;
        same(radius, Shape::per_image(images.batch()))?;
        same(indices, radius)?;
        match key.len() {
            2 => Ok(vec![images]),
            _ => Err(format!("a stream key is two words, got {key:?}")),
        }
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let parameters = NormalStartParams {
            batch: inputs[0].batch() as u32,
            per_image: inputs[0].per_batch() as u32,
            deviation: self.deviation,
        };
        let arguments = [Input(0), Input(1), Input(2), Input(3), Output(0)];
        Launch::single(NORMAL_START, &arguments, &parameters, inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [images, radius, indices, key] = inputs else { unreachable!("output_shapes checked the inputs") };
        let key: &[u32] = bytemuck::cast_slice(key.data);
        let indices: &[u32] = bytemuck::cast_slice(indices.data);
        let stream = Stream { key: [key[0], key[1]] };
        let len = images.shape.per_batch();
        outputs[0].data.par_chunks_mut(len).enumerate().for_each(|(n, out)| {
            let radius = radius.data[n];
            for (i, (out, x)) in out.iter_mut().zip(&images.data[n * len..][..len]).enumerate() {
                let moved = self.deviation * stream.normal(indices[n], i as u32);
                *out = (x + moved.clamp(-radius, radius)).clamp(0.0, 1.0);
            }
        });
    }
}
