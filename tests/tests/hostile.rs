//! The corpora of hostile files: every reader takes or refuses each of them, without a panic and within the
//! memory that its length allows. `tests/fuzz/README.md` says how they are searched for more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use adamant_tests::fuzz::{Counting, Mutator, TARGETS, clean_up, peak, reset_peak};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Mutated inputs of each target: as many as take a second or so.
const MUTATIONS: usize = 300;

/// One test, since memory is counted for the whole process.
#[test]
fn readers_stand_what_they_are_given() {
    for target in TARGETS {
        let corpus = target.corpus();
        assert!(corpus.len() >= 3, "{}: {} files", target.name, corpus.len());
        let mut answers = BTreeSet::new();
        let mut run = |what: &str, input: &[u8]| {
            let (before, start) = (reset_peak(), Instant::now());
            let answer = (target.run)(input);
            let (taken, time) = (peak().saturating_sub(before), start.elapsed());
            assert!(taken <= target.limit(input.len()), "{what}: {taken} bytes for {}", input.len());
            assert!(time < Duration::from_secs(20), "{what}: {time:?}");
            let accepted = answer.is_ok();
            answers.insert(accepted);
            accepted
        };
        for (path, bytes) in &corpus {
            run(&path.display().to_string(), bytes);
        }
        let mut mutator = Mutator::new(1);
        for n in 0..MUTATIONS {
            let first = &corpus[mutator.below(corpus.len())].1;
            let second = &corpus[mutator.below(corpus.len())].1;
            let input = mutator.mutate(first, second);
            run(&format!("{}: mutation {n} of seed 1", target.name), &input);
        }
        assert_eq!(answers.len(), 2, "{}: some are sound, some are not", target.name);
    }
    clean_up();
    // What the counting is worth: an allocation shows.
    let before = reset_peak();
    let block = vec![1_u8; 200 << 20];
    assert!(peak() >= before + (200 << 20), "{}", block.len());
}
