//! Adamant makes pretrained image classifiers robust to adversarial examples, on any GPU.
//!
//! ONNX file -> [`Network`] -> [`Graph`] -> gradients -> [`Plan`] -> dispatches -> update ->
//! [`package`].
//!
//! A [`Model`] is a network with its weights, read from ONNX (`import`, feature `onnx`) or from a
//! [`package::Package`]. A [`Session`] puts it on a [`Device`]: a GPU through wgpu (feature `gpu`), or
//! the CPU executor. Images are batch x channels x height x width in [0, 1]; the session normalises
//! them.
//!
//! ```no_run
//! use adamant::{Classifier, Picture};
//!
//! # fn main() -> adamant::Result<()> {
//! # let (width, height, bytes) = (32, 32, [0; 32 * 32 * 3]);
//! let classifier = Classifier::open("model.adamant")?;
//! let picture = Picture::from_rgb8(width, height, &bytes)?;
//! for guess in classifier.classify(&picture, 5)? {
//!     println!("{:?} {:.3}", guess.label, guess.probability);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Attacks implement [`Attack`] and see an [`Objective`]; `evaluate` measures what they leave of a
//! model's accuracy, `finetune` trains against them, and an `Adaptation` does so in an application, with its
//! own images (feature `train`; feature `data` adds the files of data sets).

#[cfg(feature = "train")]
mod adapt;
mod architectures;
mod attacks;
mod autodiff;
#[cfg(feature = "data")]
mod benchmark;
mod choices;
mod classifier;
mod compact;
#[cfg(feature = "data")]
mod corruptions;
mod cpu;
#[cfg(feature = "train")]
mod data;
mod device;
#[cfg(feature = "train")]
mod dry;
mod error;
#[cfg(feature = "train")]
mod evaluate;
#[cfg(feature = "onnx")]
mod export;
#[cfg(feature = "train")]
pub mod finetune;
mod fold;
#[cfg(feature = "train")]
mod footprint;
mod fours;
mod fuse;
#[cfg(feature = "gpu")]
mod gpu;
mod graph;
#[cfg(feature = "onnx")]
mod import;
mod loss;
mod model;
mod network;
mod ops;
#[cfg(feature = "train")]
mod optim;
pub mod package;
#[cfg(any(feature = "gpu", not(target_arch = "wasm32")))]
mod pending;
mod plan;
mod profile;
mod prologue;
mod random;
mod recompute;
mod report;
#[cfg(feature = "data")]
mod selftest;
mod session;
mod shape;
mod spelling;
#[cfg(feature = "gpu")]
mod tune;

#[cfg(feature = "train")]
pub use adapt::{AdaptLimits, AdaptOptions, AdaptProgress, Adaptation, Example, Examples};
pub use architectures::{Architecture, architectures};
pub use attacks::{
    Aim, Apgd, Attack, AttackSpec, Ball, CwL2, DRA_RADIUS, DeepFool, Fab, Fgsm, MiFgsm, Objective, Passes,
    Pgd, Square, Start, parse_fraction, show_fraction,
};
pub use autodiff::differentiate;
#[cfg(feature = "data")]
pub use benchmark::{Benchmark, Workload};
pub use choices::Choices;
pub use classifier::{Classifier, Guess, Picture, probabilities};
#[cfg(feature = "data")]
pub use corruptions::{CORRUPTIONS, Corruption, Group, SEVERITIES};
#[cfg(feature = "train")]
pub use data::{Augment, Batch, Dataset, Extra, Loader, LoaderOptions, check_fit};
#[cfg(feature = "data")]
pub use data::{OpenOptions, PublishedCorruptions, Split, load_image};
#[cfg(feature = "gpu")]
pub use device::Tell;
pub use device::{Device, DeviceChoice, Program};
pub use error::{Error, Result};
#[cfg(feature = "train")]
pub use evaluate::{
    Ardist, Curve, CurvePoint, Distance, EvaluateOptions, EvaluateProgress, EvaluationState, LossRise,
    Observer, Order, Outcome, ReportContext, Signs, Tradeoff, evaluate, evaluate_transfer, evaluate_with,
};
#[cfg(feature = "data")]
pub use evaluate::{Corrupted, CorruptionObserver, CorruptionReport, CorruptionResult, evaluate_corruptions};
#[cfg(feature = "onnx")]
pub use export::{export, to_onnx, to_onnx_as, to_safetensors};
#[cfg(feature = "train")]
pub use footprint::Footprint;
#[cfg(feature = "gpu")]
pub use gpu::{AdapterInfo, adapters};
pub use graph::{Graph, Node, Storage, Value, ValueId, Variable};
#[cfg(feature = "onnx")]
pub use import::{
    BatchNormState, ImportNotes, import, import_bytes, import_with_notes, reference_logits,
    reference_logits_bytes,
};
pub use loss::Loss;
pub use model::{Model, Preprocessing};
pub use network::{BatchNormMode, Forward, Head, Layer, Network, Parameter, Role, Source};
pub use plan::{Limits, Operand, Plan, Slot, Step, Temporaries};
pub use profile::StepTime;
pub use random::{Purpose, Stream, threefry};
pub use report::{AttackResult, CleanResult, EvaluationReport, Warning, WorstCase, wilson};
#[cfg(feature = "data")]
pub use selftest::{Check, self_test};
pub use session::{Buffers, Images, ModelGraph, Session};
pub use shape::{Shape, Tensor};

/// The operations of a [`Graph`].
pub mod op {
    pub use crate::ops::*;
}
