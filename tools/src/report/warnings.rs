//! What a warning means, in the words of `tools/docs/warnings.md`.

const PAGE: &str = include_str!("../../docs/warnings.md");

/// A row of its table.
pub struct Explained {
    pub means: String,
    pub remedy: String,
}

pub fn explain(flag: &str) -> Option<Explained> {
    let [means, remedy] = row(flag)?;
    Some(Explained { means: resolve(means, 0), remedy: resolve(remedy, 1) })
}

/// The last two cells of a flag's row.
fn row(flag: &str) -> Option<[&'static str; 2]> {
    PAGE.lines().find_map(|line| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, means, remedy] = cells[..] else { return None };
        (name.trim_matches('`') == flag).then_some([means, remedy])
    })
}

/// A cell without marks; where it is as another row's, with that one's words.
fn resolve(cell: &str, column: usize) -> String {
    let other = cell.strip_prefix("as for `").and_then(|rest| rest.split_once('`'));
    let text = match other.and_then(|(flag, rest)| Some((row(flag)?[column], rest))) {
        Some((words, rest)) => format!("{words}{rest}"),
        None => cell.to_owned(),
    };
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_explained() {
        let found = explain("zero-gradient").expect("it is on the page");
        assert!(found.means.contains("cannot move") && found.remedy.contains("square"));
        let other = explain("pgd-weaker-than-fgsm").expect("it is on the page");
        assert!(
            other.remedy.contains("shorter step") && !other.remedy.contains("as for"),
            "{}",
            other.remedy
        );
        assert!(explain("no-such-flag").is_none());
    }
}
