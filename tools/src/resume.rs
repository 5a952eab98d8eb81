//! The state of an evaluation on disk, so that it can go on after a crash.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adamant::package::write_atomically;
use adamant::{CorruptionResult, EvaluationState};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::args::JsonArgs;
use crate::evaluation::Settings;

/// How much work may be lost.
const BETWEEN_WRITES: Duration = Duration::from_secs(5);

/// Where the state is when the result goes to no file.
const NAMELESS: &str = "adamant-evaluate.partial";

const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    evaluation_state: u32,
    settings: Settings,
    state: EvaluationState,
    /// Corruptions that are measured, after all attacks.
    #[serde(default)]
    corruptions: Vec<CorruptionResult>,
}

/// What an evaluation can go on from.
pub struct Resumed {
    pub state: EvaluationState,
    pub corruptions: Vec<CorruptionResult>,
}

/// The file of one evaluation's state.
pub struct StateFile {
    path: PathBuf,
    settings: Settings,
    written: Option<Instant>,
    /// What was found.
    state: Option<EvaluationState>,
    corruptions: Vec<CorruptionResult>,
    /// Whether more was found than was written.
    pending: bool,
}

impl StateFile {
    /// The file that belongs to this command, and the state that is in it. Without `--resume` there is
    /// none unless a result file gives it a name, and one that is already there is not overwritten.
    pub fn open(
        json: &JsonArgs,
        resume: bool,
        settings: &Settings,
    ) -> Result<(Option<Self>, Option<Resumed>)> {
        let path = match json.json.as_deref().filter(|path| *path != Path::new("-")) {
            Some(result) => {
                let mut name = OsString::from(result);
                name.push(".partial");
                PathBuf::from(name)
            }
            None if resume => PathBuf::from(NAMELESS),
            None => return Ok((None, None)),
        };
        let state = match (path.exists(), resume) {
            (false, _) => None,
            (true, true) => Some(read(&path, settings)?),
            (true, false) => bail!(
                "{}: an evaluation that stopped left this; go on with --resume, or delete the file",
                path.display()
            ),
        };
        let file = Self {
            path,
            settings: settings.clone(),
            written: None,
            state: None,
            corruptions: Vec::new(),
            pending: false,
        };
        Ok((Some(file), state))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the state as it is now; it is on the disk a few seconds later at most.
    pub fn put(&mut self, state: &EvaluationState) -> adamant::Result<()> {
        self.state = Some(state.clone());
        self.pending = true;
        if self.written.is_none_or(|at| at.elapsed() >= BETWEEN_WRITES) { self.flush() } else { Ok(()) }
    }

    /// Writes the corruptions that are measured: each took a while.
    pub fn put_corruptions(&mut self, results: &[CorruptionResult]) -> adamant::Result<()> {
        self.corruptions = results.to_vec();
        self.pending = true;
        self.flush()
    }

    /// Writes what is not yet written.
    pub fn flush(&mut self) -> adamant::Result<()> {
        if let Some(state) = self.state.clone().filter(|_| self.pending) {
            let (settings, corruptions) = (self.settings.clone(), self.corruptions.clone());
            let saved = Saved { evaluation_state: SCHEMA, settings, state, corruptions };
            let text = serde_json::to_vec(&saved).map_err(|e| adamant::Error::Config(e.to_string()))?;
            write_atomically(&self.path, &text)?;
            self.pending = false;
        }
        self.written = Some(Instant::now());
        Ok(())
    }
}

/// Removes the state of an evaluation that is complete.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

fn read(path: &Path, settings: &Settings) -> Result<Resumed> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    let damaged = || format!("{}: not the state of an evaluation, or damaged; delete it", path.display());
    let saved: Saved = serde_json::from_slice(&text).with_context(damaged)?;
    let differences = settings.differences(&saved.settings);
    if saved.evaluation_state != SCHEMA || !differences.is_empty() {
        bail!(
            "{}: the state of another evaluation, which differs in {}; repeat its command, or delete the file",
            path.display(),
            differences.join(", ")
        );
    }
    Ok(Resumed { state: saved.state, corruptions: saved.corruptions })
}
