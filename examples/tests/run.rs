//! Every example runs, and prints what it promises.

use std::path::Path;
use std::process::Command;

/// Runs an example from the project's folder; what it printed.
fn run(program: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent");
    let output = Command::new(program).current_dir(root).output().expect("the example starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// The numbers of a line, in order.
fn numbers(line: &str) -> Vec<f64> {
    line.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn classify_reads_most_of_five_digits() {
    let text = run(env!("CARGO_BIN_EXE_classify"));
    let read: Vec<Vec<f64>> = text.lines().filter(|l| l.starts_with("a ")).map(numbers).collect();
    assert!(read.len() == 5 && read.iter().filter(|n| n[0] == n[1]).count() >= 4, "{text}");
}

#[test]
fn attack_fools_more_digits_as_the_ball_grows() {
    let text = run(env!("CARGO_BIN_EXE_attack"));
    let robust: Vec<f64> = text.lines().map(|l| numbers(l)[3]).collect();
    assert!(robust.len() == 3 && robust.is_sorted_by(|a, b| a >= b), "{text}");
    assert!(robust[2] < numbers(text.lines().next().expect("three lines"))[1], "{text}");
}

#[test]
fn evaluate_counts_the_worst_of_all_attacks() {
    let text = run(env!("CARGO_BIN_EXE_evaluate"));
    let percent = |start: &str| {
        let line = text.lines().find(|l| l.starts_with(start)).expect(start);
        numbers(line.split_once(": ").expect("a colon").1)
    };
    let all = percent("all of them");
    assert!(all[0] <= percent("pgd")[0] && percent("pgd")[0] < percent("clean")[0], "{text}");
    assert!(all[2] <= all[0] && all[0] <= all[3], "the interval is around the value: {text}");
}

#[test]
fn harden_leaves_a_package() {
    let text = run(env!("CARGO_BIN_EXE_harden"));
    let path = text.lines().find_map(|l| l.strip_prefix("wrote ")).expect("it says where");
    assert!(adamant::package::verify(path).expect("it is a package").is_sound());
}

#[test]
fn adapt_learns_the_users_hand() {
    let text = run(env!("CARGO_BIN_EXE_adapt"));
    let of = |start: &str| numbers(text.lines().find(|l| l.starts_with(start)).expect(start));
    let (before, after) = (of("before"), of("after"));
    assert!(after[0] >= before[0] + 40.0, "clean, of 200: {text}");
    assert!(after[2] > before[2], "attacked: {text}");
}
