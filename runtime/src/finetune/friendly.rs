//! FAT, friendly adversarial training: Zhang et al., "Attacks which do not kill training make adversarial
//! learning stronger", 2020. PGD that leaves an image alone once it has been misclassified for `tau` steps:
//! of the images that fool the model, a friendly one is near the boundary (Algorithm 1).

use crate::attacks::{Attack, Ball, Objective, Start};
use crate::error::Result;
use crate::graph::Variable;
use crate::ops::{
    Accumulate, Add, AttackStep, Copy, Function, ImageSpread, Map, Multiply, Noise, Op, Relu, Scale,
};
use crate::shape::Shape;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Friendly {
    pub ball: Ball,
    pub step: f32,
    /// The most steps that an image takes.
    pub steps: u32,
    pub start: Start,
    /// Steps that an image still takes once it is misclassified.
    pub tau: u32,
    /// Deviation of the noise that is added before each step (omega of the authors' code).
    pub noise: f32,
}

impl Attack for Friendly {
    fn name(&self) -> &'static str {
        "friendly"
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn attempt(&self, objective: &mut Objective<'_>, _attempt: u32) -> Result<()> {
        objective.set_ball(&self.ball, self.step);
        match self.start {
            Start::Random => objective.start_random(self.ball.norm, 0)?,
            Start::Clean => objective.start_clean()?,
            Start::Normal => objective.start_normal(0)?,
        }
        let (left, moves) = (objective.values("friendly steps left")?, objective.values("friendly moves")?);
        objective.fill(left, self.tau as f32);
        let count = objective.count();
        let mut wholes = Vec::new();
        for k in 0..self.steps {
            objective.gradient()?;
            if self.noise > 0.0 {
                let stream = objective.stream(1 + k);
                objective.set_stream(stream);
            }
            self.step(objective, left, moves)?;
            // After the last step there is none to save.
            if k + 1 < self.steps {
                let moves: Vec<bool> = objective.read(moves)?.iter().map(|&m| m != 0.0).collect();
                if !moves.contains(&true) {
                    break;
                }
                wholes.extend(objective.narrow(&moves, count, &[left])?);
            }
        }
        wholes.into_iter().rev().try_for_each(|whole| objective.widen(whole))
    }
}

impl Friendly {
    /// A step of the images that are classified correctly or have steps left; the others stay.
    fn step(&self, objective: &mut Objective<'_>, left: Variable, moves: Variable) -> Result<()> {
        let (norm, noise) = (self.ball.norm, self.noise);
        // What was built for one deviation serves no other: its bits tell them apart.
        let variant = noise.to_bits() << 1 | norm as u32;
        objective.run("friendly step", variant, |m| {
            let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
            let b = m.buffers;
            let [correct, left, moves, radius, step] =
                [b.correct, left, moves, b.radius, b.step].map(|v| m.graph.variable(v, one));
            let gradient = m.graph.variable(b.gradient, image);
            let g = &mut m.graph;
            let wrong =
                g.add(Op::Map(Map { function: Function::Identity, scale: -1.0, shift: 1.0 }), &[correct])?;
            // moves = correct or left > 0; a step of a wrong image is one less that is left.
            let any_left = g.add(Op::Map(Map::plain(Function::Sign)), &[left])?;
            let late = g.add(Op::Multiply(Multiply), &[wrong, any_left])?;
            let now = g.add(Op::Add(Add), &[correct, late])?;
            let spent = g.add(Op::Scale(Scale { factor: -1.0 }), &[late])?;
            let remaining = g.add(Op::Add(Add), &[left, spent])?;
            let remaining = g.add(Op::Relu(Relu::PLAIN), &[remaining])?;
            g.update(Op::Copy(Copy), &[now], &[moves])?;
            g.update(Op::Copy(Copy), &[remaining], &[left])?;
            let step = g.add(Op::Multiply(Multiply), &[step, moves])?;
            if noise > 0.0 {
                let indices = g.variable(b.indices, one);
                let key = g.variable(b.key, Shape::vector(2));
                let random = g.add(Op::Noise(Noise { shape: image, normal: true }), &[indices, key])?;
                let size = g.add(Op::ImageSpread(ImageSpread { factor: noise, shape: image }), &[moves])?;
                let random = g.add(Op::Multiply(Multiply), &[random, size])?;
                g.update(Op::Accumulate(Accumulate), &[random], &[m.adversarial])?;
            }
            let inputs = [m.images, gradient, radius, step];
            g.update(Op::AttackStep(AttackStep { norm }), &inputs, &[m.adversarial])
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::finetune::testing::eight_images;
    use crate::loss::Loss;
    use crate::ops::Norm;
    use crate::random::Purpose;
    use crate::session::{Images, Session};

    /// Images that have stopped take no part in what follows, and those that have not end where they would have.
    #[test]
    fn only_what_moves_goes_through_the_network() {
        let (mut session, mut batch) = eight_images();
        let logits = session.logits(8, Images::Clean).unwrap();
        for (i, row) in logits.chunks_exact(4).enumerate() {
            let likeliest = (0..4).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            // Every third is wrong as it is.
            batch.labels[i] = ((likeliest + usize::from(i % 3 == 0)) % 4) as u32;
        }
        // Steps of several lengths, as those of a method with a radius for each image.
        let balls: Vec<(f32, f32)> = (1..=8u8).map(|i| (0.3, 0.004 * f32::from(i))).collect();
        for (tau, noise) in [(0, 0.0), (1, 0.0), (2, 0.001)] {
            let ball = Ball { norm: Norm::Linf, eps: 0.3 };
            let attack = Friendly { ball, step: 0.01, steps: 10, start: Start::Random, tau, noise };
            let mut attacked = |kept: Option<Vec<Variable>>| {
                session.load(&batch.images, &batch.labels, &batch.indices).unwrap();
                let counts = RefCell::new(Vec::new());
                let gradient = |session: &mut Session, count| {
                    counts.borrow_mut().push(count);
                    session.gradient(count, Loss::CrossEntropy)
                };
                let mut objective = Objective::new(&mut session, 8, 1, Purpose::TrainingAttackStart, 2)
                    .with_gradient(&gradient)
                    .with_kept(kept)
                    .with_balls(&balls);
                attack.perturb(&mut objective).unwrap();
                assert_eq!(objective.count(), 8);
                let labels = session.buffers().labels;
                let labels: Vec<u32> =
                    session.read_per_image(labels, 8).unwrap().into_iter().map(f32::to_bits).collect();
                assert_eq!(labels, batch.labels, "the batch is loaded again");
                (session.read_adversarial(8).unwrap(), counts.into_inner())
            };
            let (whole, counts) = attacked(None);
            assert!(counts.iter().all(|&count| count == 8), "{counts:?}");
            let (found, counts) = attacked(Some(Vec::new()));
            assert!(found == whole, "tau {tau}");
            let sizes: std::collections::BTreeSet<usize> = counts.iter().copied().collect();
            assert!(counts.is_sorted_by(|a, b| a >= b) && sizes.len() > 2, "tau {tau}: {counts:?}");
        }
    }
}
