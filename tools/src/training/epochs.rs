//! Epochs on standard error: a bar for the one under way, a line for each that is done.

use std::time::Instant;

use adamant::finetune::{EpochMetrics, Event};
use indicatif::ProgressBar;

use crate::output::{duration, percent};
use crate::progress::Console;

/// An epoch in one line of at most 80 columns.
pub fn line(metrics: &EpochMetrics, epochs: u32, best: bool) -> String {
    let mut line = format!(
        "epoch {:>2}/{epochs} loss {:<6.3} train {:>6}",
        metrics.epoch,
        metrics.loss,
        percent(metrics.train_accuracy)
    );
    if let Some(clean) = metrics.clean_accuracy {
        line += &format!("  valid clean {:>6}", percent(clean));
    }
    if let Some(robust) = metrics.robust_accuracy {
        line += &format!(" robust {:>6}", percent(robust));
    }
    if metrics.rolled_back {
        return line + "  robustness collapsed: undone, and the run ends";
    }
    line + &format!("{}{:>7}", if best { "*" } else { " " }, duration(metrics.seconds))
}

/// The bar of the epoch under way, with the time that the whole run still takes.
pub struct Progress<'a> {
    console: &'a Console,
    bar: ProgressBar,
    epoch: u32,
    epochs: u32,
    validation_start: Option<Instant>,
    /// Of the epoch before: until one is known, validation counts as free.
    validation_seconds: f64,
    /// Whether the cost of the memory limit has been told.
    told: bool,
    told_parts: bool,
    /// Whether BatchNorm takes its statistics from what is trained on at once.
    batch_statistics: bool,
}

impl<'a> Progress<'a> {
    pub fn new(console: &'a Console, epoch: u32, epochs: u32, batch_statistics: bool) -> Self {
        Self {
            console,
            bar: ProgressBar::hidden(),
            epoch,
            epochs,
            validation_start: None,
            validation_seconds: 0.0,
            told: false,
            told_parts: false,
            batch_statistics,
        }
    }

    pub fn start(&mut self, epoch: u32) {
        self.epoch = epoch;
        self.validation_start = None;
        self.bar = self.console.bar(1, "{prefix} [{bar:12}] {msg}");
        self.bar.set_prefix(format!("epoch {epoch:>2}/{}", self.epochs));
        self.bar.tick();
    }

    pub fn event(&mut self, event: &Event) {
        let left = f64::from(self.epochs - self.epoch);
        match *event {
            Event::Batch { batch, batches, images, loss, accuracy, seconds, .. } => {
                let whole = seconds * batches as f64 / batch as f64;
                let eta = whole - seconds + left * whole + (left + 1.0) * self.validation_seconds;
                self.bar.set_length(batches as u64);
                self.bar.set_position(batch as u64);
                self.bar.set_message(format!(
                    "{batch}/{batches} loss {loss:.3} acc {} {:.0}/s eta {}",
                    percent(accuracy),
                    images as f64 / seconds,
                    duration(eta)
                ));
            }
            Event::Recomputes { part } if !self.told => {
                self.told = true;
                let note = format!(
                    "within --memory-limit, {} of a step's arithmetic is computed a second time",
                    percent(part)
                );
                self.bar.suspend(|| self.console.line(&note));
            }
            Event::Accumulates { parts, images } if !self.told_parts => {
                self.told_parts = true;
                let statistics = match self.batch_statistics {
                    true => "; BatchNorm sees the parts",
                    false => "",
                };
                let note = format!(
                    "within --memory-limit, a batch comes in {parts} parts of {images}, for one update{statistics}"
                );
                self.bar.suspend(|| self.console.line(&note));
            }
            Event::Recomputes { .. } | Event::Accumulates { .. } => {}
            Event::Validation { fraction, .. } => {
                let start = *self.validation_start.get_or_insert_with(Instant::now);
                self.validation_seconds = start.elapsed().as_secs_f64();
                self.bar.set_length(1000);
                self.bar.set_position((fraction * 1000.0) as u64);
                self.bar.set_message("validating");
            }
        }
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_epoch_is_one_line() {
        let metrics = EpochMetrics {
            epoch: 100,
            lr: 0.1,
            loss: 12.345,
            terms: BTreeMap::new(),
            train_accuracy: 1.0,
            clean_accuracy: Some(1.0),
            robust_accuracy: Some(1.0),
            rolled_back: false,
            cosine: None,
            eps_quartiles: None,
            mean_eps: 0.03,
            seconds: 36_000.0,
            images_per_second: 12.0,
        };
        let line = line(&metrics, 100, true);
        assert!(line.len() <= crate::output::WIDTH, "{line}");
    }
}
