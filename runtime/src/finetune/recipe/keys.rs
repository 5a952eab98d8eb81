//! The keys of a recipe: setting one, and naming the nearest to one that there is not.

use crate::spelling::did_you_mean;

/// Sets `a.b = value`: a TOML value where it reads as one, else a string.
pub(super) fn set(table: &mut toml::Table, key: &str, value: &str) -> Result<(), String> {
    let parsed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().filter(|l| !l.is_empty()).ok_or("an empty key")?;
    let mut place = table;
    for part in parts {
        place = place
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("'{part}' in '{key}' is not a table"))?;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

/// All keys, for the message that names the nearest.
const KEYS: &[&str] = &[
    "name",
    "epochs",
    "layers",
    "attack.kind",
    "attack.norm",
    "attack.eps",
    "attack.step",
    "attack.steps",
    "attack.start",
    "attack.objective",
    "attack.guide",
    "attack.part",
    "attack.tau",
    "attack.tau_stages",
    "attack.noise",
    "attack.reset_epochs",
    "attack.inner_steps",
    "epsilon.policy",
    "epsilon.start",
    "epsilon.end",
    "epsilon.last",
    "epsilon.gamma",
    "epsilon.beta",
    "epsilon.warmup_epochs",
    "epsilon.rule",
    "epsilon.probe_steps",
    "epsilon.smallest",
    "epsilon.largest",
    "epsilon.rho",
    "epsilon.rho_stages",
    "epsilon.tau",
    "epsilon.enlarge",
    "loss.kind",
    "loss.beta",
    "guide.kind",
    "guide.distance",
    "guide.weight",
    "replay.kind",
    "replay.angle",
    "replay.until_epoch",
    "head.temperature",
    "weights.ema",
    "weights.swa",
    "weights.awp",
    "weights.awp_warmup_epochs",
    "batchnorm.mode",
    "batchnorm.recalibrate",
    "optimizer.kind",
    "optimizer.momentum",
    "optimizer.nesterov",
    "optimizer.beta1",
    "optimizer.beta2",
    "optimizer.weight_decay",
    "optimizer.clip",
    "schedule.kind",
    "schedule.start",
    "schedule.peak",
    "schedule.warmup_epochs",
    "schedule.decay",
    "schedule.milestones",
    "schedule.rates",
    "data.batch",
    "data.augment",
    "selection.kind",
    "selection.guard",
];

pub(super) fn known_keys(table: &toml::Table) -> Result<(), String> {
    for (outer, value) in table {
        let found: Vec<String> = match value {
            toml::Value::Table(inner) => inner.keys().map(|k| format!("{outer}.{k}")).collect(),
            _ => {
                let inside = |key: &&&str| key.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
                if let Some(example) = KEYS.iter().find(inside) {
                    return Err(format!("'{outer}' is a table: set a key in it, such as {example}"));
                }
                vec![outer.clone()]
            }
        };
        for key in found {
            if !KEYS.contains(&key.as_str()) {
                let inside: Vec<&str> =
                    KEYS.iter().copied().filter(|known| known.split('.').next_back() == Some(&key)).collect();
                let near = match inside.is_empty() {
                    true => did_you_mean(&key, KEYS),
                    false => format!("; did you mean '{}'?", inside.join("' or '")),
                };
                return Err(format!("unknown key '{key}'{near}"));
            }
        }
    }
    Ok(())
}

/// What is wrong with a value, after its key, and with the nearest of the words that may stand there.
pub(super) fn explain(error: &toml::de::Error) -> String {
    let (message, shown) = (error.message(), error.to_string());
    let key = shown.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    let key = key.map_or_else(String::new, |key| format!("{key}: "));
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let near = match words.split_first() {
        Some((word, others)) if message.starts_with("unknown variant") => did_you_mean(word, others),
        _ => String::new(),
    };
    format!("{key}{message}{near}")
}
