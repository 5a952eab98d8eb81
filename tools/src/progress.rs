//! Standard error: progress, notes, warnings and errors. Nothing here is data.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::wrap;

/// What the user wants to see besides results.
#[derive(Clone)]
pub struct Console {
    quiet: bool,
    verbose: bool,
    terminal: bool,
    /// What was typed.
    command: Vec<String>,
}

/// The contexts that were added here, and the error; a library error already tells its own cause.
fn message(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        parts.push(cause.to_string());
        if cause.is::<adamant::Error>() {
            break;
        }
    }
    parts.join(": ")
}

impl Console {
    pub fn new(quiet: bool, verbose: bool) -> Self {
        let command = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        Self { quiet, verbose, terminal: std::io::stderr().is_terminal(), command }
    }

    /// The same console for a command that another one runs.
    pub fn running(&self, command: &[&str]) -> Self {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        Self { command, ..*self }
    }

    /// The command under way, word by word.
    pub fn command(&self) -> &[String] {
        &self.command
    }

    pub fn verbose(&self) -> bool {
        self.verbose
    }

    /// Prints lines as they are, unless the user wants quiet.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// What a user should know.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.wrapped(&format!("note: {text}"));
        }
    }

    /// What only a user who asked for details wants to know.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.wrapped(text);
        }
    }

    pub fn warn(&self, text: &str) {
        self.wrapped(&format!("warning: {text}"));
    }

    pub fn error(&self, error: &anyhow::Error) {
        self.wrapped(&format!("error: {}", message(error)));
    }

    /// Programs that read messages get each in one line.
    fn wrapped(&self, text: &str) {
        if self.terminal {
            eprintln!("{}", wrap(text, 2));
        } else {
            eprintln!("{text}");
        }
    }

    /// A bar of `length` steps; hidden where nobody looks at it.
    pub fn bar(&self, length: u64, template: &str) -> ProgressBar {
        if self.quiet || !self.terminal {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).expect("the templates are ours");
        ProgressBar::new(length).with_style(style.progress_chars("=> "))
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

/// The flag that the first Ctrl-C sets; a second one ends the program at once. Files are written
/// whole or not at all, so neither leaves half of one.
pub fn stop_on_interrupt() -> Result<&'static AtomicBool> {
    let result = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(2);
        }
        eprintln!("\nstopping; press Ctrl-C again to stop at once");
    });
    match result {
        // The demo asks for it in several of its steps.
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(&STOP),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_contexts_and_its_cause_once() {
        let cause = || std::io::Error::other("full");
        let library = || adamant::Error::Io { path: "a".into(), source: cause() };
        let plain = message(&library().into());
        assert_eq!(plain.matches("full").count(), 1, "{plain}");
        let with = message(&anyhow::Error::from(library()).context("folder"));
        assert_eq!(with, format!("folder: {plain}"));
        assert_eq!(message(&anyhow::Error::from(cause()).context("b")), "b: full");
    }
}
