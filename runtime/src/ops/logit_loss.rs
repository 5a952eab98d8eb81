//! Losses of attacks that compare logits, one value for each image: larger is worse for the model.
//!
//! With `y` the label, `t` the target, and `z_1 >= z_2 >= ...` the logits in order, ties by class:
//!
//! | kind | loss | source |
//! |---|---|---|
//! | margin | `min(max over k != y of z[k] - z[y], confidence)` | Carlini and Wagner, 2017, f6 |
//! | dlr | `-(z[y] - max over k != y of z[k]) / max(z_1 - z_3, 1e-12)` | Croce and Hein, 2020, eq. 6 |
//! | target margin | `z[t] - z[y]` | the difference that FAB and DeepFool make linear |
//! | target dlr | `-(z[y] - z[t]) / max(z_1 - (z_3 + z_4) / 2, 1e-12)` | Croce and Hein, 2020, eq. 7 |

use serde::{Deserialize, Serialize};

use super::launch::{Argument, Kernel, Launch, params};
use super::{Operation, View, ViewMut, arity, same};
use crate::shape::Shape;

/// Which difference of logits counts.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum LogitLossKind {
    /// The largest other logit above the label's, up to `confidence`, beyond which there is no gradient.
    Margin { confidence: f32 },
    /// Difference of logits ratio: does not change when the logits are scaled. Three classes or more.
    Dlr,
    /// The target's logit above the label's.
    TargetMargin,
    /// The ratio for a target. Four classes or more.
    TargetDlr,
}

/// Inputs: logits (batch x 1 x 1 x classes), labels, targets (batch each, u32; kinds without a
/// target read no targets). Output: the loss of each image.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct LogitLoss {
    pub kind: LogitLossKind,
}

/// Inputs: logits, labels, targets, the gradient of each image's loss. Output: the gradient of the
/// logits.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct LogitLossGrad {
    pub kind: LogitLossKind,
}

params! {
    struct LogitLossParams { batch: u32, classes: u32, kind: u32, confidence: f32, }
}

const LOGIT_LOSS: Kernel = Kernel {
    name: "logit_loss",
    sources: &[adamant_shaders::INDEX, adamant_shaders::LOGIT_LOSS_TERMS, adamant_shaders::LOGIT_LOSS],
    workgroup: 64,
};

const LOGIT_LOSS_GRAD: Kernel = Kernel {
    name: "logit_loss_grad",
    sources: &[adamant_shaders::INDEX, adamant_shaders::LOGIT_LOSS_TERMS, adamant_shaders::LOGIT_LOSS_GRAD],
    workgroup: 64,
};

/// Keeps a division finite when the largest logits are equal.
const SMALLEST_SCALE: f32 = 1e-12;

impl LogitLossKind {
    /// The fewest classes that it is defined for.
    pub const fn classes(self) -> usize {
        match self {
            Self::Margin { .. } | Self::TargetMargin => 2,
            Self::Dlr => 3,
            Self::TargetDlr => 4,
        }
    }

    fn parameters(self, logits: Shape) -> LogitLossParams {
        let (kind, confidence) = match self {
            // Kernels may not rely on infinity.
            Self::Margin { confidence } => (0, confidence.min(f32::MAX)),
            Self::Dlr => (1, 0.0),
            Self::TargetMargin => (2, f32::MAX),
            Self::TargetDlr => (3, 0.0),
        };
        LogitLossParams { batch: logits.batch() as u32, classes: logits.channels() as u32, kind, confidence }
    }

    fn check(self, logits: Shape, labels: Shape, targets: Shape) -> Result<(), String> {
        if logits.height() != 1 || logits.width() != 1 {
            return Err(format!("logits are batch x 1 x 1 x classes, got {logits:?}"));
        }
        if logits.channels() < self.classes() {
            return Err(format!(
                "the loss {self:?} needs {} classes, there are {}",
                self.classes(),
                logits.channels()
            ));
        }
        same(Shape::per_image(logits.batch()), labels)?;
        same(labels, targets)
    }
}

/// The two classes that count and what divides their difference.
struct Terms {
    own: usize,
    rival: usize,
    /// Classes of the four largest logits, as far as there are four.
    ranks: [usize; 4],
    difference: f32,
    scale: f32,
}

impl Terms {
    fn new(kind: LogitLossKind, row: &[f32], label: u32, target: u32) -> Self {
        let mut ranks = [0; 4];
        for rank in 0..row.len().min(4) {
            let mut best = None;
            for k in 0..row.len() {
                let larger = best.is_none_or(|b: usize| row[k] > row[b]);
                if larger && !ranks[..rank].contains(&k) {
                    best = Some(k);
                }
            }
            ranks[rank] = best.expect("as many classes as ranks");
        }
        let own = label as usize;
        let rival = match kind {
            LogitLossKind::TargetMargin | LogitLossKind::TargetDlr => target as usize,
            _ if ranks[0] == own => ranks[1],
            _ => ranks[0],
        };
        let scale = match kind {
            LogitLossKind::Margin { .. } | LogitLossKind::TargetMargin => 1.0,
            LogitLossKind::Dlr => row[ranks[0]] - row[ranks[2]],
            LogitLossKind::TargetDlr => row[ranks[0]] - 0.5 * (row[ranks[2]] + row[ranks[3]]),
        };
        let scale = if scale < SMALLEST_SCALE { SMALLEST_SCALE } else { scale };
        Self { own, rival, ranks, difference: row[rival] - row[own], scale }
    }
}

/// Rows of logits with the label and the target of each.
fn rows<'a>(inputs: &[View<'a>]) -> impl Iterator<Item = (&'a [f32], u32, u32)> {
    let labels: &[u32] = bytemuck::cast_slice(inputs[1].data);
    let targets: &[u32] = bytemuck::cast_slice(inputs[2].data);
    let rows = inputs[0].data.chunks_exact(inputs[0].shape.channels());
    rows.zip(labels).zip(targets).map(|((row, label), target)| (row, *label, *target))
}

impl Operation for LogitLoss {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [logits, labels, targets] = arity(inputs)?;
        self.kind.check(logits, labels, targets)?;
        Ok(vec![labels])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        let arguments = [Argument::Input(0), Argument::Input(1), Argument::Input(2), Argument::Output(0)];
        Launch::single(LOGIT_LOSS, &arguments, &self.kind.parameters(inputs[0]), inputs[0].batch())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        for (loss, (row, label, target)) in outputs[0].data.iter_mut().zip(rows(inputs)) {
            let terms = Terms::new(self.kind, row, label, target);
            let value = terms.difference / terms.scale;
            *loss = match self.kind {
                LogitLossKind::Margin { confidence } if value > confidence => confidence,
                _ => value,
            };
        }
    }
}

impl Operation for LogitLossGrad {
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>, String> {
        let [logits, labels, targets, dloss] = arity(inputs)?;
        self.kind.check(logits, labels, targets)?;
        same(labels, dloss)?;
        Ok(vec![logits])
    }

    fn launch(&self, inputs: &[Shape], _outputs: &[Shape]) -> Launch {
        use Argument::{Input, Output};
        let arguments = [Input(0), Input(1), Input(2), Input(3), Output(0)];
        Launch::single(LOGIT_LOSS_GRAD, &arguments, &self.kind.parameters(inputs[0]), inputs[0].batch())
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        let classes = inputs[0].shape.channels();
        let gradients = outputs[0].data.chunks_exact_mut(classes).zip(inputs[3].data);
        for ((gradient, dloss), (row, label, target)) in gradients.zip(rows(inputs)) {
            let terms = Terms::new(self.kind, row, label, target);
            gradient.fill(0.0);
            if matches!(self.kind, LogitLossKind::Margin { confidence } if terms.difference >= confidence) {
                continue;
            }
            let loss = terms.difference / terms.scale;
            let factor = dloss / terms.scale;
            gradient[terms.rival] += factor;
            gradient[terms.own] -= factor;
            // What the scale adds.
            let [first, _, third, fourth] = terms.ranks;
            match self.kind {
                LogitLossKind::Margin { .. } | LogitLossKind::TargetMargin => {}
                LogitLossKind::Dlr => {
                    gradient[first] -= factor * loss;
                    gradient[third] += factor * loss;
                }
                LogitLossKind::TargetDlr => {
                    gradient[first] -= factor * loss;
                    gradient[third] += 0.5 * factor * loss;
                    gradient[fourth] += 0.5 * factor * loss;
                }
            }
        }
    }
}
