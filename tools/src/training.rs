//! The run that `train` and `finetune` share: epochs, checkpoints, metrics, progress.

use std::path::Path;

use adamant::finetune::{
    BatchNormTraining, EpochMetrics, RunDirectory, SelectionKind, Trainer, TrainerOptions, room,
};
use adamant::package::{Package, Provenance, TrainingState};
use adamant::{Device, Model, Session};
use anyhow::{Result, bail};
use serde::Serialize;

use crate::data::Images;
use crate::output::percent;
use crate::progress::{Console, stop_on_interrupt};
use crate::settings::Settings;

mod epochs;

use epochs::Progress;

/// Everything that a run needs.
pub struct Run {
    pub directory: RunDirectory,
    pub settings: Settings,
    /// The model to start from, or that of the checkpoint.
    pub model: Model,
    pub provenance: Provenance,
    pub images: Images,
    pub device: Device,
    /// Where to continue.
    pub resumed: Option<TrainingState>,
}

/// What became of a run, for `--json`.
#[derive(Serialize)]
pub struct Summary {
    schema: u32,
    run: String,
    device: String,
    /// The epoch that the run stands for.
    selected: u32,
    epochs: Vec<EpochMetrics>,
}

impl Run {
    /// Trains to the last epoch, with a checkpoint after each.
    pub fn finish(self, console: &Console) -> Result<Summary> {
        let Self { directory, settings, model, provenance, images, device, resumed } = self;
        let recipe = settings.recipe.clone();
        let epochs = recipe.epochs;
        // A limit that cannot be kept is known before anything is written.
        let at_once = room(&device, &model, &recipe, &images.train)?.images;
        let batch_statistics =
            recipe.batchnorm.mode != BatchNormTraining::Frozen && model.network.has_batch_norm();
        let device_name = device.name();
        let text = settings.to_toml()?;
        if resumed.is_none() {
            directory.start()?;
        }
        directory.write_config(&text)?;
        directory.log(&format!(
            "{} {} on {} of {}, {device_name}",
            if resumed.is_some() { "resumed" } else { "started" },
            recipe.name,
            crate::output::count(images.train.len(), "image"),
            settings.run.data,
        ))?;

        let stop = stop_on_interrupt()?;
        let session = Session::new(device, &model, at_once)?;
        let options = TrainerOptions {
            seed: settings.run.seed,
            train: images.train,
            extra: images.extra.map(|share| share.of_batch(recipe.data.batch)).transpose()?,
            validation: images.validation,
            stop,
        };
        let mut trainer = Trainer::new(session, recipe, options)?;
        let mut best = None;
        if let Some(state) = resumed {
            trainer.restore(&model.values, &state)?;
            best = state.best;
        }
        // What training starts from is in the trainer now.
        let bare = Model { values: Vec::new(), ..model };
        directory.rewind_metrics(trainer.epochs_done())?;
        let mut history = history(&directory)?;
        let mut progress = Progress::new(console, trainer.epochs_done(), epochs, batch_statistics);
        while !trainer.is_done() {
            let epoch = trainer.epochs_done() + 1;
            progress.start(epoch);
            let metrics = match trainer.epoch(|event| progress.event(&event)) {
                Ok(metrics) => metrics,
                Err(adamant::Error::Interrupted) => {
                    progress.clear();
                    bail!(stopped(epoch));
                }
                Err(e) => {
                    progress.clear();
                    directory.log(&e.to_string())?;
                    return Err(e.into());
                }
            };
            progress.clear();

            let score = metrics.robust_accuracy.or(metrics.clean_accuracy);
            let selects = trainer.recipe().selection.kind == SelectionKind::Best;
            let improved =
                selects && !metrics.rolled_back && score.is_some_and(|s| best.is_none_or(|b| s > b));
            if improved {
                best = score;
            }
            let mut state = trainer.state(best)?;
            state.settings.clone_from(&text);
            let model = Model { values: trainer.weights()?, ..bare.clone() };
            let mut package = Package::new(model, provenance.clone());
            directory.append_metrics(&serde_json::to_string(&metrics)?)?;
            if improved {
                directory.write_best(&package)?;
            }
            package.training = Some(state);
            directory.write_checkpoint(&package)?;
            let line = epochs::line(&metrics, epochs, improved);
            console.line(&line);
            directory.log(&line)?;
            history.push(metrics);
        }
        let selected = selected(&history, trainer.recipe().selection.kind);
        Ok(Summary {
            schema: 1,
            run: directory.path().display().to_string(),
            device: device_name,
            selected,
            epochs: history,
        })
    }
}

fn history(directory: &RunDirectory) -> Result<Vec<EpochMetrics>> {
    Ok(directory.read_metrics()?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn stopped(epoch: u32) -> String {
    match epoch {
        1 => "stopped in epoch 1, before the first checkpoint: there is nothing to resume".to_owned(),
        _ => format!(
            "stopped in epoch {epoch}; the checkpoint of epoch {} is intact: continue with --resume",
            epoch - 1
        ),
    }
}

/// The epoch whose weights stand for the run: the first of those with the highest accuracy on the
/// validation images, or the last.
fn selected(history: &[EpochMetrics], kind: SelectionKind) -> u32 {
    let mut found: Option<(&EpochMetrics, f64)> = None;
    for metrics in history.iter().filter(|m| !m.rolled_back) {
        let score = metrics.robust_accuracy.or(metrics.clean_accuracy);
        if let Some(score) = score.filter(|s| found.is_none_or(|(_, best)| *s > best)) {
            found = Some((metrics, score));
        }
    }
    match (kind, found) {
        (SelectionKind::Best, Some((metrics, _))) => metrics.epoch,
        _ => history.iter().rfind(|m| !m.rolled_back).map_or(0, |m| m.epoch),
    }
}

impl Summary {
    /// What became of the finished run in this folder.
    pub fn read(path: &Path) -> Result<Self> {
        let directory = RunDirectory::open(path)?;
        let training = Package::read(directory.checkpoint())?.training;
        let settings = Settings::parse(&training.map(|state| state.settings).unwrap_or_default())?;
        let epochs = history(&directory)?;
        Ok(Self {
            schema: 1,
            run: path.display().to_string(),
            device: settings.run.device,
            selected: selected(&epochs, settings.recipe.selection.kind),
            epochs,
        })
    }

    /// The run for people.
    pub fn text(&self) -> String {
        let Some(metrics) = self.epochs.iter().find(|m| m.epoch == self.selected) else {
            return String::new();
        };
        let mut line = format!("{}: epoch {} of {}", self.run, self.selected, self.epochs.len());
        if let Some(clean) = metrics.clean_accuracy {
            line += &format!(", validation clean {}", percent(clean));
        }
        if let Some(robust) = metrics.robust_accuracy {
            line += &format!(" robust {}", percent(robust));
        }
        line + "\n"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn metrics(epoch: u32, robust: f64) -> EpochMetrics {
        EpochMetrics {
            epoch,
            lr: 0.1,
            loss: 12.345,
            terms: BTreeMap::new(),
            train_accuracy: 1.0,
            clean_accuracy: Some(1.0),
            robust_accuracy: Some(robust),
            cosine: None,
            eps_quartiles: None,
            mean_eps: 0.03,
            rolled_back: false,
            seconds: 36_000.0,
            images_per_second: 12.0,
        }
    }

    #[test]
    fn the_first_of_the_best_epochs_is_selected() {
        let history = [metrics(1, 0.2), metrics(2, 0.5), metrics(3, 0.5), metrics(4, 0.1)];
        assert_eq!(selected(&history, SelectionKind::Best), 2);
        assert_eq!(selected(&history, SelectionKind::Last), 4);
        let undone = EpochMetrics { rolled_back: true, ..metrics(5, 0.9) };
        let history = [&history[..], &[undone]].concat();
        assert_eq!(selected(&history, SelectionKind::Best), 2);
        assert_eq!(selected(&history, SelectionKind::Last), 4);
    }
}
