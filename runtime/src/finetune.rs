//! Training and adversarial fine-tuning.

mod adversary;
mod epsilon;
mod formula;
mod loss;
mod recipe;
mod run;
mod schedule;
mod trainer;

pub use adversary::Adversary;
pub use epsilon::{EpsilonConfig, EpsilonPolicy};
pub use loss::{BatchLoss, LossConfig, LossKind};
pub use recipe::{
    AttackConfig, AttackKind, AttackObjective, Augmentation, BatchNormConfig, BatchNormTraining, DataConfig,
    Fraction, PRESETS, Preset, Recipe, SelectionConfig, SelectionKind,
};
pub use run::{EpochMetrics, RunDirectory};
pub use schedule::{Schedule, ScheduleKind};
pub use trainer::{Event, Trainer, TrainerOptions};

pub use crate::optim::{Optimizer, OptimizerConfig, OptimizerKind};
