//! Arithmetic on values of a graph, so that a loss reads as its formula does.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::{Add, CrossEntropy, Function, ImageSum, LogSoftmax, Map, Multiply, Op, Scale};

pub(super) trait Formula {
    /// `a + b`.
    fn plus(&mut self, a: ValueId, b: ValueId) -> Result<ValueId>;

    /// `factor * x`.
    fn times(&mut self, factor: f32, x: ValueId) -> Result<ValueId>;

    /// `a * b`, element by element.
    fn product(&mut self, a: ValueId, b: ValueId) -> Result<ValueId>;

    /// `f(scale * x + shift)`.
    fn map(&mut self, function: Function, scale: f32, shift: f32, x: ValueId) -> Result<ValueId>;

    /// The sum over each image.
    fn image_sum(&mut self, x: ValueId) -> Result<ValueId>;

    fn log_softmax(&mut self, logits: ValueId) -> Result<ValueId>;

    fn cross_entropy(&mut self, logits: ValueId, labels: ValueId) -> Result<ValueId>;

    /// `a - b`.
    fn minus(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        let b = self.times(-1.0, b)?;
        self.plus(a, b)
    }

    fn exp(&mut self, x: ValueId) -> Result<ValueId> {
        self.map(Function::Exp, 1.0, 0.0, x)
    }

    /// `1 / |x|` for each image; finite, and without a gradient, where x is zero.
    fn inverse_length(&mut self, x: ValueId) -> Result<ValueId> {
        /// Far below the square of any length, yet the reciprocal of its root is a number.
        const TINY: f32 = 1e-24;
        let squares = self.product(x, x)?;
        let sum = self.image_sum(squares)?;
        let length = self.map(Function::SquareRoot, 1.0, TINY, sum)?;
        self.map(Function::Reciprocal, 1.0, 0.0, length)
    }

    /// `KL(p || q) = sum over k of p_k (log p_k - log q_k)` for each image, from the logarithms.
    fn kl(&mut self, log_p: ValueId, log_q: ValueId) -> Result<ValueId> {
        let p = self.exp(log_p)?;
        let ratio = self.minus(log_p, log_q)?;
        let terms = self.product(p, ratio)?;
        self.image_sum(terms)
    }
}

impl Formula for Graph {
    fn plus(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.add(Op::Add(Add), &[a, b])
    }

    fn times(&mut self, factor: f32, x: ValueId) -> Result<ValueId> {
        self.add(Op::Scale(Scale { factor }), &[x])
    }

    fn product(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.add(Op::Multiply(Multiply), &[a, b])
    }

    fn map(&mut self, function: Function, scale: f32, shift: f32, x: ValueId) -> Result<ValueId> {
        self.add(Op::Map(Map { function, scale, shift }), &[x])
    }

    fn image_sum(&mut self, x: ValueId) -> Result<ValueId> {
        self.add(Op::ImageSum(ImageSum { factor: 1.0 }), &[x])
    }

    fn log_softmax(&mut self, logits: ValueId) -> Result<ValueId> {
        self.add(Op::LogSoftmax(LogSoftmax), &[logits])
    }

    fn cross_entropy(&mut self, logits: ValueId, labels: ValueId) -> Result<ValueId> {
        self.add(Op::CrossEntropy(CrossEntropy), &[logits, labels])
    }
}
