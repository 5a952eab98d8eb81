//! What an attack raises: one number for each image, larger where the model is nearer to a mistake.

use crate::error::Result;
use crate::graph::ValueId;
use crate::ops::{CrossEntropy, LogitLoss, LogitLossKind, Op, Relu, Scale};
use crate::session::ModelGraph;

/// A loss of an attack. Those with a target read [`crate::Buffers::targets`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Loss {
    #[default]
    CrossEntropy,
    /// Minus the cross-entropy of the target.
    TargetCrossEntropy,
    /// The largest other logit minus the label's: positive where the model is wrong.
    Margin,
    /// The margin up to 50 (Carlini and Wagner's f6 with kappa = 50, as PGD maximises it in Madry et
    /// al., 2018).
    CarliniWagner,
    /// Difference of logits ratio (Croce and Hein, 2020).
    Dlr,
    TargetDlr,
    /// The target's logit minus the label's.
    TargetMargin,
    /// The margin up to 0: no gradient where the model is wrong (Carlini and Wagner's f6, negated).
    Boundary,
    /// Minus what the largest logit besides the target's is above it, 0 where the target's is the largest.
    TargetBoundary,
}

impl Loss {
    /// The loss that serves instead where there are too few classes for this one.
    pub fn for_classes(self, classes: usize) -> Self {
        match self {
            Self::Dlr if classes < LogitLossKind::Dlr.classes() => Self::Margin,
            Self::TargetDlr if classes < LogitLossKind::TargetDlr.classes() => Self::TargetMargin,
            other => other,
        }
    }

    /// Adds the loss of each image to a graph that has logits.
    pub(crate) fn add(self, m: &mut ModelGraph, logits: ValueId) -> Result<ValueId> {
        let kind = match self {
            Self::CrossEntropy => return m.graph.add(Op::CrossEntropy(CrossEntropy), &[logits, m.labels]),
            Self::TargetCrossEntropy => {
                let loss = m.graph.add(Op::CrossEntropy(CrossEntropy), &[logits, m.targets])?;
                return m.graph.add(Op::Scale(Scale { factor: -1.0 }), &[loss]);
            }
            Self::Margin => LogitLossKind::Margin { confidence: f32::INFINITY },
            Self::CarliniWagner => LogitLossKind::Margin { confidence: 50.0 },
            Self::Dlr => LogitLossKind::Dlr,
            Self::TargetDlr => LogitLossKind::TargetDlr,
            Self::TargetMargin => LogitLossKind::TargetMargin,
            Self::Boundary => LogitLossKind::Margin { confidence: 0.0 },
            Self::TargetBoundary => {
                let kind = LogitLossKind::Margin { confidence: f32::INFINITY };
                let inputs = [logits, m.targets, m.targets];
                let above = m.graph.add(Op::LogitLoss(LogitLoss { kind }), &inputs)?;
                let short = m.graph.add(Op::Relu(Relu::PLAIN), &[above])?;
                return m.graph.add(Op::Scale(Scale { factor: -1.0 }), &[short]);
            }
        };
        m.graph.add(Op::LogitLoss(LogitLoss { kind }), &[logits, m.labels, m.targets])
    }
}
