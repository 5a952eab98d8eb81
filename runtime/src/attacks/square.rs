//! Square, a random search that needs no gradient: it moves squares of pixels and keeps what lowers
//! the margin (Andriushchenko et al., "Square attack: a query-efficient black-box adversarial attack
//! via random search", 2020). Schedule and acceptance are those of the AutoAttack authors' code; the
//! place and the signs of a square are drawn for each image, not for the batch.

mod l2;

use super::mistakes::Mistakes;
use super::{Attack, Ball, Objective};
use crate::error::Result;
use crate::graph::ValueId;
use crate::loss::Loss;
use crate::ops::{
    ImageNorm, KeepWorst, MoveAlong, Norm, Op, Order, SquareExchange, SquareStart, SquareTiles, SquareWindow,
};
use crate::random::{Stream, threefry};
use crate::session::ModelGraph;
use crate::shape::Shape;

/// The part of the image that the first squares cover.
const INITIAL_PART: f64 = 0.8;

/// Queries between two looks at whether any image is left to fool.
const QUERIES_BETWEEN_LOOKS: u32 = 50;

/// Tells the keys of queries from other random numbers of a stream.
const QUERY_POSITION: u32 = u32::MAX - 2;

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Square {
    pub ball: Ball,
    pub queries: u32,
    pub restarts: u32,
}

impl Attack for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn attempts(&self, _classes: usize) -> u32 {
        self.restarts
    }

    fn attempt(&self, objective: &mut Objective<'_>, attempt: u32) -> Result<()> {
        objective.set_ball(&self.ball, 0.0);
        objective.set_loss(Loss::Margin);
        let best = objective.images("square best")?;
        let best_loss = objective.values("square best loss")?;
        let best_correct = objective.values("square best correct")?;
        let side = objective.values("square side")?;
        let pattern = objective.images("square pattern")?;
        let mistakes = Mistakes::new(objective)?;
        // Any score beats these.
        objective.fill(best_loss, f32::MIN);
        objective.fill(best_correct, 2.0);
        let stream = objective.stream(attempt);
        // A query beats the best so far when it fools the model, or when the margin is smaller.
        let keep = |m: &mut ModelGraph| {
            let (image, one) = (m.graph.shape(m.images), Shape::per_image(m.count));
            let found = [m.buffers.loss, m.buffers.correct].map(|v| m.graph.variable(v, one));
            let kept = [best_loss, best_correct].map(|v| m.graph.variable(v, one));
            let best = m.graph.variable(best, image);
            let inputs = [m.adversarial, found[0], found[1]];
            m.graph.update(Op::KeepWorst(KeepWorst), &inputs, &[best, kept[0], kept[1]])?;
            mistakes.keep(m)
        };

        objective.set_stream(stream);
        let [height, width] = objective.image_size();
        match self.ball.norm {
            Norm::Linf => objective.run("square start", 0, |m| {
                let [radius, indices, key] = sources(m);
                let inputs = [m.images, radius, indices, key];
                m.graph.update(Op::SquareStart(SquareStart), &inputs, &[m.adversarial])
            })?,
            Norm::L2 => {
                let side = (height.min(width) / 5).max(1);
                objective.write(pattern, &l2::pattern(side));
                objective.run("square start l2", 0, |m| {
                    let [radius, indices, key] = sources(m);
                    let pattern = m.graph.variable(pattern, Shape::vector(height * width));
                    let op = SquareTiles { shape: m.graph.shape(m.images), side };
                    let delta = m.graph.add(Op::SquareTiles(op), &[indices, key, pattern])?;
                    scale_to(m, delta, radius)
                })?;
            }
        }
        objective.score()?;
        objective.run("square keep", 0, keep)?;
        let mut last_side = 0;
        for query in 0..self.queries {
            if query % QUERIES_BETWEEN_LOOKS == 0 && mistakes.all(objective)? {
                break;
            }
            let size = match self.ball.norm {
                Norm::Linf => side_of_square(query, height, width, 1),
                // Odd, so that the pattern has a middle.
                Norm::L2 => (side_of_square(query, height, width, 3) | 1).min(height.min(width)),
            };
            objective.write_integer(side, size as u32);
            objective.set_stream(Stream { key: threefry(stream.key, [query, QUERY_POSITION]) });
            match self.ball.norm {
                Norm::Linf => objective.run("square window", 0, |m| {
                    let [radius, indices, key] = sources(m);
                    let best = m.graph.variable(best, m.graph.shape(m.images));
                    let side = m.graph.variable(side, Shape::SCALAR);
                    let inputs = [m.images, best, radius, indices, key, side];
                    m.graph.update(Op::SquareWindow(SquareWindow), &inputs, &[m.adversarial])
                })?,
                Norm::L2 => {
                    if size != last_side {
                        objective.write(pattern, &l2::pattern(size));
                        last_side = size;
                    }
                    objective.run("square exchange", 0, |m| {
                        let [radius, indices, key] = sources(m);
                        let best = m.graph.variable(best, m.graph.shape(m.images));
                        let side = m.graph.variable(side, Shape::SCALAR);
                        let pattern = m.graph.variable(pattern, Shape::vector(height * width));
                        let inputs = [m.images, best, radius, indices, key, side, pattern];
                        let delta = m.graph.add(Op::SquareExchange(SquareExchange), &inputs)?;
                        scale_to(m, delta, radius)
                    })?;
                }
            }
            objective.score()?;
            objective.run("square keep", 0, keep)?;
        }
        objective.run("square end", 0, |m| mistakes.take(m, best))
    }
}

/// Radius, indices and key as values of a graph.
fn sources(m: &mut ModelGraph) -> [ValueId; 3] {
    let one = Shape::per_image(m.count);
    [
        m.graph.variable(m.buffers.radius, one),
        m.graph.variable(m.buffers.indices, one),
        m.graph.variable(m.buffers.key, Shape::vector(2)),
    ]
}

/// The adversarial images become the clean ones plus `delta`, scaled to the radius of the l2 ball.
fn scale_to(m: &mut ModelGraph, delta: ValueId, radius: ValueId) -> Result<()> {
    let length = m.graph.add(Op::ImageNorm(ImageNorm { order: Order::L2 }), &[delta])?;
    m.graph.update(Op::MoveAlong(MoveAlong), &[m.images, delta, length, radius], &[m.adversarial])
}

/// The part of the image that a square covers halves at fixed queries.
fn side_of_square(query: u32, height: usize, width: usize, least: usize) -> usize {
    let halvings = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
    let passed = halvings.iter().filter(|&&at| query > at).count();
    let part = INITIAL_PART / f64::from(1u32 << passed);
    let side = (part * (height * width) as f64).sqrt().round_ties_even() as usize;
    side.max(least).min(height.min(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_shrink_as_published() {
        let sides =
            |size| [0, 10, 11, 51, 201, 501, 1001, 2001, 4001].map(|q| side_of_square(q, size, size, 1));
        assert_eq!(sides(32), [29, 29, 20, 14, 10, 7, 5, 4, 3]);
        assert_eq!(sides(28), [25, 25, 18, 13, 9, 6, 4, 3, 2]);
        assert_eq!(sides(224), [200, 200, 142, 100, 71, 50, 35, 25, 18]);
        assert_eq!(side_of_square(4001, 2, 2, 1), 1);
        assert_eq!(side_of_square(0, 4, 100, 1), 4);
        assert_eq!(side_of_square(4001, 32, 32, 3), 3);
    }
}
