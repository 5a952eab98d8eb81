//! Keys that a choice makes meaningless, and those that are left out where the choice is another one than the
//! recipe's.

use super::Recipe;
use crate::finetune::attack::AttackKind;
use crate::finetune::epsilon::EpsilonPolicy;
use crate::finetune::schedule::ScheduleKind;
use crate::optim::OptimizerKind;

/// Keys that go with a choice, that choice, and what else may be chosen with them: anything else means another number
/// by them, or none.
const GO_WITH: &[(&[&str], &str, &[&str])] = &[
    (&["attack.part"], "attack.kind", &["dra"]),
    (&["attack.tau", "attack.tau_stages", "attack.noise"], "attack.kind", &["friendly"]),
    (&["attack.reset_epochs"], "attack.kind", &["atta"]),
    (&["attack.inner_steps"], "attack.kind", &["yopo"]),
    (&["attack.step"], "attack.kind", STEPS),
    (&["attack.guide", "guide.distance", "guide.weight"], "guide.kind", GUIDES),
    (&["epsilon.start", "epsilon.end"], "epsilon.policy", &["hinge"]),
    (&["epsilon.last"], "epsilon.policy", &["linear"]),
    (
        &[
            "epsilon.gamma",
            "epsilon.beta",
            "epsilon.warmup_epochs",
            "epsilon.rule",
            "epsilon.probe_steps",
            "epsilon.smallest",
            "epsilon.largest",
        ],
        "epsilon.policy",
        &["iaat"],
    ),
    (
        &["epsilon.rho", "epsilon.rho_stages", "epsilon.tau", "epsilon.enlarge"],
        "epsilon.policy",
        &["daat", "daat-linear", "daat-piecewise"],
    ),
    (&["epsilon.largest"], "epsilon.rule", &["line-search"]),
    (&["loss.beta"], "loss.kind", &[]),
    (&["replay.angle", "replay.until_epoch"], "replay.kind", &["noisy"]),
    (&["schedule.milestones", "schedule.rates"], "schedule.kind", &["piecewise"]),
];

/// Attacks with steps of a length of their own.
const STEPS: &[&str] =
    &["bim", "pgd", "pgd-random-target", "mi-fgsm", "fgsm-rs", "n-fgsm", "friendly", "atta", "yopo"];

const GUIDES: &[&str] = &["representation", "features", "attention", "logit"];

/// Leaves out what went with the choice that `key = value` replaces.
pub(super) fn forget(table: &mut toml::Table, key: &str, value: &str) {
    let value = value.trim_matches('"');
    let before = place(table, key).and_then(|(inner, last)| inner.get(last)?.as_str().map(str::to_owned));
    if before.as_deref() == Some(value) {
        return;
    }
    let others = GO_WITH.iter().filter(|(_, choice, with)| *choice == key && !with.contains(&value));
    for key in others.flat_map(|(keys, _, _)| *keys) {
        if let Some((inner, last)) = place(table, key) {
            inner.remove(last);
        }
    }
}

fn place<'a, 'k>(table: &'a mut toml::Table, key: &'k str) -> Option<(&'a mut toml::Table, &'k str)> {
    let (outer, last) = key.split_once('.')?;
    Some((table.get_mut(outer)?.as_table_mut()?, last))
}

impl Recipe {
    /// Why `key` changes nothing in this recipe, where that is so.
    pub fn why_unread(&self, key: &str) -> Option<&'static str> {
        use AttackKind::{Fgsm, FgsmRs, Friendly, NFgsm, None as NoAttack, Pgd, PgdRandomTarget};
        let (attack, schedule) = (self.attack.kind, self.schedule.kind);
        let sgd = self.optimizer.kind == OptimizerKind::Sgd;
        let unread = match key {
            "attack.kind" => return None,
            _ if key.starts_with("attack.") && attack == NoAttack => "there is no attack; set attack.kind",
            "attack.steps" if matches!(attack, Fgsm | FgsmRs | NFgsm) => {
                "this attack takes one step; set attack.kind = pgd for more"
            }
            "attack.step" if attack == Fgsm => "the step of fgsm is attack.eps long",
            "attack.step" if self.epsilon.policy == EpsilonPolicy::Mma => {
                "the steps of mma follow from the ball that it searches"
            }
            "attack.start" if !matches!(attack, Pgd | PgdRandomTarget | Friendly) => {
                "this attack has a start of its own; set attack.kind = pgd to choose one"
            }
            "schedule.start"
                if !matches!(schedule, ScheduleKind::SlowStartFastDecay | ScheduleKind::Cosine) =>
            {
                "it is where schedule.kind = slow-start-fast-decay and cosine start from"
            }
            "schedule.warmup_epochs"
                if matches!(
                    schedule,
                    ScheduleKind::Piecewise | ScheduleKind::Step | ScheduleKind::Constant
                ) =>
            {
                "it is of schedule.kind = slow-start-fast-decay, cosine and cyclic"
            }
            "schedule.milestones" if schedule != ScheduleKind::Piecewise => {
                "it is of schedule.kind = piecewise"
            }
            "schedule.decay"
                if matches!(
                    schedule,
                    ScheduleKind::Cosine | ScheduleKind::Cyclic | ScheduleKind::Constant
                ) || !self.schedule.rates.is_empty() =>
            {
                "it is of schedule.kind = slow-start-fast-decay, step, and piecewise without schedule.rates"
            }
            "optimizer.beta1" | "optimizer.beta2" if sgd => "it is of optimizer.kind = adam",
            "optimizer.momentum" | "optimizer.nesterov" if !sgd => "it is of optimizer.kind = sgd",
            _ => return None,
        };
        Some(unread)
    }
}
