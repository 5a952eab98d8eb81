//! CW-L2: Adam on a change of variables that cannot leave the box, with the weight of the
//! misclassification found by binary search (Carlini and Wagner, "Towards evaluating the robustness of
//! neural networks", 2017, section VI.A). Where the authors stop a batch that no longer improves, each
//! image stops by itself: what is found for it does not depend on its company.

use super::nearest::{Nearest, combine, length};
use super::{Aim, Attack, Ball, Objective};
use crate::error::Result;
use crate::graph::{ValueId, Variable};
use crate::loss::Loss;
use crate::ops::{Adam, Add, Copy, CopyWhere, Fill, Function, ImageSpread, Map, Multiply, Norm, Op};
use crate::session::ModelGraph;
use crate::shape::Shape;

/// Keeps the change of variables finite for pixels that are 0 or 1.
const INSIDE: f32 = 0.999_999;

/// How many times in a search it is looked at whether images still improve, and by how much they must.
const LOOKS: u32 = 10;
const IMPROVED: f64 = 0.9999;

/// The largest weight, and the number of searches from which on the last one repeats the best weight.
const LARGEST: f64 = 1e10;
const MANY: u32 = 10;

const ADAM: Adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, decoupled: false };

/// Minimises `|x' - x|^2 + c max(z[y] - max over k != y of z[k], 0)` over w, where
/// `x' = (tanh(w) + 1) / 2`; towards a target t, `max(max over k != t of z[k] - z[t], 0)` takes the
/// place of the second term. An image counts as found when the nearest one is inside the ball; else
/// the result is the clean image. The confidence (kappa) is 0.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CwL2 {
    pub name: &'static str,
    /// Radius in l2: what the search does does not depend on it.
    pub eps: f32,
    /// Steps of Adam in each search.
    pub steps: u32,
    /// Values of c that are tried.
    pub searches: u32,
    /// Adam's learning rate.
    pub rate: f32,
    /// The first c: it grows tenfold until an image is found.
    pub c: f32,
    pub aim: Aim,
}

/// What a search keeps of a batch.
struct State {
    w: Variable,
    moments: [Variable; 2],
    /// Adam's learning rate and corrections.
    rates: Variable,
    c: Variable,
    distance: Variable,
    /// 1 while an image improves, then 0.
    active: Variable,
    /// 0 where this step reached what is wanted, else 1.
    correct: Variable,
    /// 0 where any step of the search did, else 1.
    missed: Variable,
}

/// Where the binary search over c of one image is.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Bounds {
    c: f64,
    low: f64,
    high: f64,
}

impl Bounds {
    const fn new(c: f64) -> Self {
        Self { c, low: 0.0, high: f64::INFINITY }
    }

    /// After a search with c that reached what is wanted, or did not.
    fn narrow(&mut self, reached: bool) {
        if reached {
            self.high = self.high.min(self.c);
        } else {
            self.low = self.low.max(self.c);
        }
        self.c = if self.high.is_finite() { 0.5 * (self.low + self.high) } else { 10.0 * self.c };
        self.c = self.c.min(LARGEST);
    }
}

impl Attack for CwL2 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn ball(&self) -> Ball {
        Ball { norm: Norm::L2, eps: self.eps }
    }

    fn attempts(&self, classes: usize) -> u32 {
        self.aim.targets(classes)
    }

    fn attempt(&self, objective: &mut Objective<'_>, attempt: u32) -> Result<()> {
        let nearest = Nearest::new(objective)?;
        let state = State::new(objective)?;
        objective.set_loss(if self.aim == Aim::Any { Loss::Boundary } else { Loss::TargetBoundary });
        objective.set_targets(self.aim, attempt)?;
        let mut bounds = vec![Bounds::new(f64::from(self.c)); objective.count()];
        for search in 0..self.searches {
            if self.searches >= MANY && search + 1 == self.searches {
                bounds.iter_mut().for_each(|b| b.c = b.high.min(LARGEST));
            }
            let c: Vec<f32> = bounds.iter().map(|b| b.c as f32).collect();
            objective.write(state.c, &c);
            self.search(objective, &state, &nearest, &c)?;
            let missed = objective.read(state.missed)?;
            bounds.iter_mut().zip(missed).for_each(|(b, missed)| b.narrow(missed == 0.0));
        }
        nearest.take(objective, &self.ball())
    }
}

impl CwL2 {
    /// One search, with the c of each image.
    fn search(
        &self,
        objective: &mut Objective<'_>,
        state: &State,
        nearest: &Nearest,
        c: &[f32],
    ) -> Result<()> {
        objective.fill(state.missed, 1.0);
        objective.fill(state.active, 1.0);
        objective.run("cw-l2 start", 0, |m| state.start(m))?;
        let mut before = vec![f64::INFINITY; c.len()];
        let mut active = vec![1.0; c.len()];
        for step in 0..self.steps {
            objective.gradient()?;
            if step % self.steps.div_ceil(LOOKS) == 0 {
                objective.run("cw-l2 distance", 0, |m| state.measure(m))?;
                let (distance, loss) = (objective.read(state.distance)?, objective.loss()?);
                for (n, active) in active.iter_mut().enumerate() {
                    let [distance, c, loss] = [distance[n], c[n], loss[n]].map(f64::from);
                    let total = distance * distance - c * loss;
                    // Not a number does not improve.
                    let improves = total <= IMPROVED * before[n];
                    if !improves {
                        *active = 0.0;
                    }
                    before[n] = total;
                }
                if active.iter().all(|&a| a == 0.0) {
                    break;
                }
                objective.write(state.active, &active);
            }
            let power = |beta: f32| (1.0 - f64::from(beta).powi(step as i32 + 1)) as f32;
            objective.write(state.rates, &[self.rate, power(ADAM.beta1), power(ADAM.beta2)]);
            objective.run("cw-l2 step", 0, |m| {
                let correct = state.count(m)?;
                nearest.keep_where(m, Norm::L2, correct)?;
                state.step(m)
            })?;
        }
        Ok(())
    }
}

impl State {
    fn new(objective: &mut Objective<'_>) -> Result<Self> {
        Ok(Self {
            w: objective.images("cw-l2 w")?,
            moments: [objective.images("cw-l2 first moment")?, objective.images("cw-l2 second moment")?],
            rates: objective.vector("cw-l2 rates", 3)?,
            c: objective.values("cw-l2 c")?,
            distance: objective.values("cw-l2 distance")?,
            active: objective.values("cw-l2 active")?,
            correct: objective.values("cw-l2 correct")?,
            missed: objective.values("cw-l2 missed")?,
        })
    }

    /// w of the clean images, and Adam at rest.
    fn start(&self, m: &mut ModelGraph) -> Result<()> {
        let image = m.graph.shape(m.images);
        // atanh(v) with v = (2 x - 1) INSIDE.
        let log = |scale, shift| Op::Map(Map { function: Function::Log, scale, shift });
        let above = m.graph.add(log(2.0 * INSIDE, 1.0 - INSIDE), &[m.images])?;
        let below = m.graph.add(log(-2.0 * INSIDE, 1.0 + INSIDE), &[m.images])?;
        let start = combine(m, (0.5, above), (-0.5, below))?;
        let w = m.graph.variable(self.w, image);
        m.graph.update(Op::Copy(Copy), &[start], &[w])?;
        for moment in self.moments {
            let zero = m.graph.add(Op::Fill(Fill { value: 0.0, shape: image }), &[])?;
            let moment = m.graph.variable(moment, image);
            m.graph.update(Op::Copy(Copy), &[zero], &[moment])?;
        }
        show(m, w)
    }

    fn measure(&self, m: &mut ModelGraph) -> Result<()> {
        let away = combine(m, (1.0, m.adversarial), (-1.0, m.images))?;
        let far = length(m, away, Norm::L2)?;
        let distance = m.graph.variable(self.distance, Shape::per_image(m.count));
        m.graph.update(Op::Copy(Copy), &[far], &[distance])
    }

    /// Which images are not where the search wants them: those that count as classified correctly.
    fn count(&self, m: &mut ModelGraph) -> Result<ValueId> {
        let one = Shape::per_image(m.count);
        let [loss, right, active] =
            [m.buffers.loss, m.buffers.correct, self.active].map(|v| m.graph.variable(v, one));
        // The loss is 0 beyond the boundary, and negative before it.
        let side = m.graph.add(Op::Map(Map::plain(Function::Sign)), &[loss])?;
        let idle = Map { function: Function::Identity, scale: 1.0, shift: -1.0 };
        let idle = m.graph.add(Op::Map(idle), &[active])?;
        let not_there = m.graph.add(Op::Add(Add), &[side, idle])?;
        let all = m.graph.add(Op::Fill(Fill { value: 1.0, shape: one }), &[])?;
        let [correct, missed] = [self.correct, self.missed].map(|v| m.graph.variable(v, one));
        m.graph.update(Op::Copy(Copy), &[all], &[correct])?;
        m.graph.update(Op::CopyWhere(CopyWhere { wanted: 0.0 }), &[right, not_there], &[correct])?;
        m.graph.update(Op::CopyWhere(CopyWhere { wanted: 0.0 }), &[correct, correct], &[missed])?;
        Ok(correct)
    }

    /// A step of Adam on w.
    fn step(&self, m: &mut ModelGraph) -> Result<()> {
        let image = m.graph.shape(m.images);
        let gradient = m.graph.variable(m.buffers.gradient, image);
        let c = m.graph.variable(self.c, Shape::per_image(m.count));
        let c = m.graph.add(Op::ImageSpread(ImageSpread { factor: 1.0, shape: image }), &[c])?;
        let pull = m.graph.add(Op::Multiply(Multiply), &[c, gradient])?;
        let away = combine(m, (1.0, m.adversarial), (-1.0, m.images))?;
        let of_image = combine(m, (2.0, away), (-1.0, pull))?;
        // dx'/dw = (1 - tanh(w)^2) / 2 = 2 x' (1 - x').
        let rest = Map { function: Function::Identity, scale: -2.0, shift: 2.0 };
        let rest = m.graph.add(Op::Map(rest), &[m.adversarial])?;
        let slope = m.graph.add(Op::Multiply(Multiply), &[m.adversarial, rest])?;
        let of_w = m.graph.add(Op::Multiply(Multiply), &[of_image, slope])?;
        let rates = m.graph.variable(self.rates, Shape::vector(3));
        let [w, first, second] =
            [self.w, self.moments[0], self.moments[1]].map(|v| m.graph.variable(v, image));
        m.graph.update(Op::Adam(ADAM), &[of_w, rates], &[w, first, second])?;
        show(m, w)
    }
}

/// The adversarial images become `(tanh(w) + 1) / 2`.
fn show(m: &mut ModelGraph, w: ValueId) -> Result<()> {
    let tanh = m.graph.add(Op::Map(Map::plain(Function::Tanh)), &[w])?;
    let half = Map { function: Function::Identity, scale: 0.5, shift: 0.5 };
    let image = m.graph.add(Op::Map(half), &[tanh])?;
    m.graph.update(Op::Copy(Copy), &[image], &[m.adversarial])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_grows_until_it_suffices_and_is_halved_in_from_there() {
        let mut bounds = Bounds::new(0.01);
        let mut tried = Vec::new();
        for reached in [false, false, true, false, true] {
            tried.push(bounds.c);
            bounds.narrow(reached);
        }
        tried.push(bounds.c);
        let expected = [0.01, 0.1, 1.0, 0.55, 0.775, 0.6625];
        assert!(tried.iter().zip(expected).all(|(t, e)| (t - e).abs() < 1e-12), "{tried:?}");
        // It stays finite where nothing is ever found.
        (0..400).for_each(|_| bounds.narrow(false));
        let mut hopeless = Bounds::new(1.0);
        (0..400).for_each(|_| hopeless.narrow(false));
        assert!(bounds.c.is_finite() && hopeless.c == LARGEST);
    }
}
