//! Feeds a reader of files with inputs that are nearly right, for a time:
//!
//! `cargo run --release --bin fuzz -- package --seconds 600 [--seed 0]`
//!
//! An input counts as a finding when the reader panics, takes longer than ten seconds, or takes more memory than
//! its target allows. It is written to `tests/fuzz/findings`; the exit code is then 1.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use adamant_tests::fuzz::{Counting, Mutator, TARGETS, Target, clean_up, peak, reset_peak};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The longest that a reader may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most inputs that are kept because they were answered in a new way.
const MOST_KEPT: usize = 2000;

/// What is being read, and since when.
static CURRENT: Mutex<Option<(Instant, Vec<u8>)>> = Mutex::new(None);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        let at = arguments.iter().position(|a| a == flag)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let Some(target) = arguments.first().and_then(|name| Target::named(name)) else {
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        eprintln!("usage: fuzz TARGET [--seconds N] [--seed N]; the targets are {}", names.join(", "));
        return ExitCode::from(2);
    };
    let seconds = Duration::from_secs(value("--seconds").unwrap_or(60));
    std::panic::set_hook(Box::new(|_| {}));
    watch(target);
    let found = fuzz(target, seconds, value("--seed").unwrap_or(0));
    clean_up();
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Ends the process when an input takes too long.
fn watch(target: &'static Target) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let current = CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some((since, input)) = current.as_ref()
                && since.elapsed() > PATIENCE
            {
                save(target, "slow", input);
                std::process::exit(1);
            }
        }
    });
}

/// The number of findings.
fn fuzz(target: &Target, seconds: Duration, seed: u64) -> usize {
    let mut inputs: Vec<Vec<u8>> = target.corpus().into_iter().map(|(_, bytes)| bytes).collect();
    assert!(!inputs.is_empty(), "{} has no corpus", target.name);
    let (seeds, start) = (inputs.len(), Instant::now());
    let mut mutator = Mutator::new(seed);
    let (mut answers, mut faults) = (HashSet::new(), HashSet::new());
    let (mut runs, mut accepted, mut most) = (0_u64, 0_u64, 0.0_f64);
    while start.elapsed() < seconds {
        let first = mutator.below(inputs.len());
        let second = mutator.below(inputs.len());
        let input = mutator.mutate(&inputs[first], &inputs[second]);
        if input.len() > 1 << 20 {
            continue;
        }
        set_current(Some((Instant::now(), input.clone())));
        let before = reset_peak();
        let answer = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let taken = peak().saturating_sub(before);
        set_current(None);
        runs += 1;
        most = most.max(taken as f64 / target.limit(input.len()) as f64);
        let fault = match &answer {
            Err(panic) => Some(format!("panic: {}", text(panic.as_ref()))),
            Ok(_) if taken > target.limit(input.len()) => Some("memory".to_owned()),
            Ok(_) => None,
        };
        if let Some(fault) = fault {
            // One input of each kind is enough.
            if faults.insert(without_numbers(&fault)) {
                save(target, &format!("{fault} ({taken} bytes for {})", input.len()), &input);
            }
            continue;
        }
        let answer = match answer {
            Ok(Ok(found)) => {
                accepted += 1;
                found
            }
            Ok(Err(message)) => message,
            Err(_) => continue,
        };
        // What is answered in a new way leads somewhere new.
        if answers.insert(without_numbers(&answer)) && inputs.len() < seeds + MOST_KEPT {
            inputs.push(input);
        }
    }
    println!(
        "{}: {runs} inputs in {:.0} s (seed {seed}), {accepted} accepted, {} kinds of answers, at most {:.0}% of the \
         memory allowed, {} findings",
        target.name,
        start.elapsed().as_secs_f64(),
        answers.len(),
        100.0 * most,
        faults.len()
    );
    faults.len()
}

fn set_current(current: Option<(Instant, Vec<u8>)>) {
    *CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = current;
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

/// Answers that differ in their numbers and names alone are one kind.
fn without_numbers(answer: &str) -> String {
    let mut quoted = false;
    let kept = answer.chars().filter(|&c| {
        if c == '\'' {
            quoted = !quoted;
        }
        !quoted && !c.is_ascii_digit()
    });
    kept.take(200).collect()
}

fn save(target: &Target, fault: &str, input: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/findings");
    let hash = blake3::hash(input).to_hex()[..12].to_owned();
    let path = folder.join(format!("{}-{hash}", target.name));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    eprintln!("{}: {fault}: {} {written:?}", target.name, path.display());
}
