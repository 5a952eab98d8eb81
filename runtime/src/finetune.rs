//! Training and adversarial fine-tuning.

mod epsilon;
mod recipe;
mod run;
mod schedule;
mod trainer;

pub use epsilon::{EpsilonConfig, EpsilonPolicy};
pub use recipe::{
    AttackConfig, AttackKind, Augmentation, BatchNormConfig, BatchNormTraining, DataConfig, Fraction,
    LossConfig, LossKind, PRESETS, Preset, Recipe, SelectionConfig, SelectionKind,
};
pub use run::{EpochMetrics, RunDirectory};
pub use schedule::{Schedule, ScheduleKind};
pub use trainer::{Event, Trainer, TrainerOptions};

pub use crate::optim::{Optimizer, OptimizerConfig, OptimizerKind};
