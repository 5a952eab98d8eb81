//! The geometry of FAB (Croce and Hein, "Minimally distorted adversarial examples with a fast
//! adaptive boundary attack", 2020): projections onto the linearised decision boundary inside the
//! box, and the step made of two of them. Images are batch x channels x height x width in [0, 1].

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::attack::Norm;
use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

/// Inputs: point, base, weights w (images each), and an offset for each image. Output: the move d of
/// each image, smallest in the norm, with `<w, point + d - base> + offset = 0` and `point + d` in
/// [0, 1]; where there is none, the one that gets nearest (eq. 6 and 7 of the paper).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProjectHyperplane {
    pub norm: Norm,
}

/// Inputs: clean images, the moves of x and of the clean images onto the boundary, and the length of
/// each (per image). Updates in place: x, which becomes
/// `(1 - a) (x + eta d) + a (clean + eta d_clean)`, clipped to [0, 1], where
/// `a = length / (length + length of d_clean)`, at most `most` (eq. 9 and 10).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct FabStep {
    pub eta: f32,
    pub most: f32,
}

params! {
    struct ProjectHyperplaneParams { batch: u32, per_image: u32, l2: u32, rounds: u32, }
}

params! {
    struct FabStepParams { batch: u32, per_image: u32, eta: f32, most: f32, }
}

const PROJECT_HYPERPLANE: Kernel = Kernel {
    name: "project_hyperplane",
    sources: &[adamant_shaders::INDEX, adamant_shaders::PROJECT_HYPERPLANE],
    workgroup: 64,
};

const FAB_STEP: Kernel =
    Kernel { name: "fab_step", sources: &[adamant_shaders::INDEX, adamant_shaders::FAB_STEP], workgroup: 64 };

/// Steps of Newton's method: each but the last passes at least one element that runs out of room, and
/// in practice most of them at once.
const ROUNDS: usize = 24;

/// Keeps the part of a step that goes back defined on the boundary.
const SHORTEST: f32 = 1e-8;

impl Operation for ProjectHyperplane {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [point, base, w, offset] = arity(inputs)?;
        same(point, base)?;
        same(point, w)?;
        same(offset, Shape::per_image(point.batch()))?;
        Ok(vec![point])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let batch = inputs[0].batch();
        let parameters = ProjectHyperplaneParams {
            batch: batch as u32,
            per_image: inputs[0].per_batch() as u32,
            l2: (self.norm == Norm::L2).into(),
            rounds: ROUNDS as u32,
        };
        let arguments = [Input(0), Input(1), Input(2), Input(3), Output(0)];
        let threads = batch * PROJECT_HYPERPLANE.workgroup as usize;
        Launch::single(PROJECT_HYPERPLANE, &arguments, &parameters, threads)
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [point, base, w, offset] = inputs else { unreachable!("output_shapes checked the inputs") };
        let len = point.shape.per_batch();
        outputs[0].data.par_chunks_exact_mut(len).enumerate().for_each(|(n, d)| {
            let image = |view: &View<'_>| view.data[n * len..][..len].to_vec();
            let (point, base, w) = (image(point), image(base), image(w));
            let dot: f64 =
                (0..len).map(|i| f64::from(w[i]) * (f64::from(point[i]) - f64::from(base[i]))).sum();
            let away = f64::from(offset.data[n]) + dot;
            let side = if away >= 0.0 { 1.0 } else { -1.0 };
            let down = |i: usize| side * w[i] > 0.0;
            let room = |i: usize| f64::from(if down(i) { point[i] } else { 1.0 - point[i] });
            let size = |i: usize| f64::from(w[i].abs());
            let speed = |i: usize| if self.norm == Norm::L2 { size(i) } else { 1.0 };
            let mut reach = 0.0;
            for _ in 0..ROUNDS {
                // What `reach` takes off, and how fast that grows.
                let (mut taken, mut growth) = (0.0, 0.0);
                for i in 0..len {
                    if reach * speed(i) < room(i) {
                        taken += size(i) * reach * speed(i);
                        growth += size(i) * speed(i);
                    } else {
                        taken += size(i) * room(i);
                    }
                }
                if growth > 0.0 {
                    reach += (away.abs() - taken).max(0.0) / growth;
                }
            }
            for (i, d) in d.iter_mut().enumerate() {
                let moved = (reach * speed(i)).min(room(i)) as f32;
                *d = match w[i] {
                    0.0 => 0.0,
                    _ if down(i) => -moved,
                    _ => moved,
                };
            }
        });
    }

    fn flops(&self, inputs: &[Shape], _outputs: &[Shape]) -> u64 {
        4 * (ROUNDS * inputs[0].len()) as u64
    }
}

impl Operation for FabStep {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [clean, d, d_clean, length, length_clean] = arity(inputs)?;
        same(clean, d)?;
        same(clean, d_clean)?;
        same(length, Shape::per_image(clean.batch()))?;
        same(length, length_clean)?;
        Ok(vec![clean])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let parameters = FabStepParams {
            batch: inputs[0].batch() as u32,
            per_image: inputs[0].per_batch() as u32,
            eta: self.eta,
            most: self.most,
        };
        let arguments = [Input(0), Input(1), Input(2), Input(3), Input(4), Output(0)];
        Launch::single(FAB_STEP, &arguments, &parameters, inputs[0].len())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let [clean, d, d_clean, length, length_clean] = inputs else {
            unreachable!("output_shapes checked the inputs")
        };
        let len = clean.shape.per_batch();
        outputs[0].data.par_chunks_exact_mut(len).enumerate().for_each(|(n, x)| {
            let own = length.data[n].max(SHORTEST);
            let a = (own / (own + length_clean.data[n].max(SHORTEST))).min(self.most);
            for (i, x) in x.iter_mut().enumerate() {
                let at = n * len + i;
                let forward = *x + self.eta * d.data[at];
                let back = clean.data[at] + self.eta * d_clean.data[at];
                *x = (forward * (1.0 - a) + back * a).clamp(0.0, 1.0);
            }
        });
    }
}
