//! Training and adversarial fine-tuning.

mod adversary;
mod daat;
mod epsilon;
mod formula;
mod guide;
mod iaat;
mod loss;
mod memory;
mod radii;
mod recipe;
mod run;
mod schedule;
mod trainer;
mod weights;

pub use adversary::Adversary;
pub use epsilon::{EpsilonConfig, EpsilonPolicy};
pub use guide::{GuideConfig, GuideDistance, GuideKind, ReplayConfig, ReplayKind, Teacher};
pub use loss::{BatchLoss, LossConfig, LossKind};
pub use recipe::{
    AttackConfig, AttackKind, AttackObjective, Augmentation, BatchNormConfig, BatchNormTraining, DataConfig,
    Fraction, PRESETS, Preset, Recipe, SelectionConfig, SelectionKind,
};
pub use run::{EpochMetrics, RunDirectory};
pub use schedule::{Schedule, ScheduleKind};
pub use trainer::{Event, Trainer, TrainerOptions};
pub use weights::{WeightPerturbation, WeightsConfig};

pub use crate::optim::{Optimizer, OptimizerConfig, OptimizerKind};
