//! Training and adversarial fine-tuning.

mod adversary;
mod atta;
mod attack;
mod branch;
mod copies;
mod daat;
mod epsilon;
mod formula;
mod free;
mod friendly;
mod guard;
mod guide;
mod head;
mod iaat;
mod layers;
mod likeness;
mod loss;
mod memory;
mod mixup;
mod mma;
mod n_fgsm;
mod on;
mod parts;
mod presets;
mod pseudo;
mod radii;
mod recalibrate;
mod recipe;
mod room;
mod run;
mod schedule;
#[cfg(test)]
mod testing;
mod totals;
mod trainer;
mod update;
mod weights;
mod yopo;

pub use adversary::Adversary;
pub use attack::{AttackConfig, AttackKind, AttackObjective, Fraction};
pub use epsilon::{EpsilonConfig, EpsilonPolicy, IaatRule};
pub use guide::{GuideConfig, GuideDistance, GuideKind, ReplayConfig, ReplayKind, Teacher};
pub use head::HeadConfig;
pub use layers::TrainedLayers;
pub use likeness::{Cosines, features, mean_cosine};
pub use loss::{BatchLoss, LossConfig, LossKind, Term};
pub use on::On;
pub use presets::{PRESETS, Preset};
pub use pseudo::pseudo_labels;
pub use recipe::{
    Augmentation, BatchNormConfig, BatchNormTraining, DataConfig, Recipe, SelectionConfig, SelectionKind,
};
pub use room::{Room, room};
pub use run::{EpochMetrics, RunDirectory};
pub use schedule::{Schedule, ScheduleKind};
pub use trainer::{Event, Trainer, TrainerOptions, TrainingStep};
pub use weights::{WeightPerturbation, WeightsConfig};

pub use crate::optim::{Optimizer, OptimizerConfig, OptimizerKind};
