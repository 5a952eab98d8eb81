//! Standard output: results, for people or as JSON. And how numbers are written for people.

use std::io::{self, Write};
use std::path::Path;

use adamant::package::write_atomically;
/// A distance in pixels of [0, 1].
pub use adamant::show_fraction as pixels;
use anyhow::{Result, bail};
use serde::Serialize;

use crate::args::JsonArgs;

/// Width of everything written for people.
pub const WIDTH: usize = 80;

/// Writes a command's result: `text` for people, unless the JSON goes to standard output.
pub fn result(json: &JsonArgs, value: &impl Serialize, text: &str) -> Result<()> {
    let Some(path) = &json.json else { return print(text) };
    let mut rendered = serde_json::to_string_pretty(value)?;
    rendered.push('\n');
    if path == Path::new("-") {
        return print(&rendered);
    }
    write_atomically(path, rendered.as_bytes())?;
    print(text)
}

/// Refuses a file that could not be written once the result is there, which may take hours.
pub fn check(json: &JsonArgs) -> Result<()> {
    let Some(path) = json.json.as_deref().filter(|path| *path != Path::new("-")) else { return Ok(()) };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        let what = if path.is_dir() { "is a folder" } else { "lies in no folder that there is" };
        bail!("--json {}: it {what}; name a file", path.display());
    }
    Ok(())
}

pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Whether a reader such as `head` closed standard output: it has seen enough.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// `0.917` as `91.7%`.
pub fn percent(part: f64) -> String {
    format!("{:.1}%", 100.0 * part)
}

/// Seconds as people say them.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 if seconds < 59.95 => format!("{seconds:.1} s"),
        0..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

pub fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", count as f64 / 1_073_741_824.0),
    }
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A command as one would type it: words with other than plain characters are quoted, and the program
/// is called by its name.
pub fn shell(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    let quoted = |(i, word): (usize, &String)| match word {
        program if i == 0 => program.rsplit(['/', '\\']).next().unwrap_or(program).to_owned(),
        word if !word.is_empty() && word.chars().all(plain) => word.clone(),
        word => format!("'{}'", word.replace('\'', "'\\''")),
    };
    words.iter().enumerate().map(quoted).collect::<Vec<_>>().join(" ")
}

/// "1 image", "2 images".
pub fn count(number: usize, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {what}{ending}", grouped(number as u64))
}

/// Breaks lines at spaces so that they fit [`WIDTH`]. Continued lines are indented by `indent`
/// beyond their own start.
pub fn wrap(text: &str, indent: usize) -> String {
    text.lines().map(|line| wrap_line(line, indent)).collect::<Vec<_>>().join("\n")
}

fn wrap_line(line: &str, indent: usize) -> String {
    let start = line.len() - line.trim_start().len();
    let mut out = line[..start].to_owned();
    let mut column = start;
    for (i, word) in line[start..].split(' ').enumerate() {
        let len = word.chars().count();
        if i > 0 && column + 1 + len > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(start + indent));
            column = start + indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += len;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([pixels(8.0 / 255.0), pixels(0.5 / 255.0), pixels(0.1)], ["8/255", "0.5/255", "0.1"]);
        assert_eq!([pixels(0.031), pixels(0.0), pixels(0.25 / 255.0)], ["0.031", "0", "0.25/255"]);
        assert_eq!([pixels(f64::from(0.6f32)), pixels(0.123_456_78)], ["0.6", "0.123457"]);
        assert_eq!([duration(1.25), duration(59.97), duration(3725.0)], ["1.2 s", "1m00s", "1h02m"]);
        assert_eq!([bytes(12), bytes(1 << 20)], ["12 bytes", "1.0 MiB"]);
        assert_eq!([count(1, "image"), count(1500, "image")], ["1 image", "1,500 images"]);
    }

    #[test]
    fn commands_survive_the_shell() {
        let words = ["/usr/bin/adamant", "evaluate", "a b", "it's", "", "pgd:eps=8/255"].map(str::to_owned);
        assert_eq!(shell(&words), r"adamant evaluate 'a b' 'it'\''s' '' pgd:eps=8/255");
    }

    #[test]
    fn long_lines_are_broken_at_spaces() {
        let text = format!("error: {}\n  {}", "word ".repeat(30).trim(), "x".repeat(100));
        let wrapped = wrap(&text, 2);
        let lines: Vec<_> = wrapped.lines().collect();
        assert!(lines[..2].iter().all(|l| l.len() <= WIDTH), "{wrapped}");
        assert!(lines[1].starts_with("  word"));
        assert_eq!(lines.last().unwrap().trim().len(), 100, "a long word stays whole");
        assert_eq!(wrapped.split_whitespace().count(), text.split_whitespace().count());
    }
}
