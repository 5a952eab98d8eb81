//! Words that nearly are the name of something.

/// "; did you mean 'x'?" for the nearest of `names`, when it is near.
pub(crate) fn did_you_mean(word: &str, names: &[&str]) -> String {
    let plain = word.to_lowercase();
    let best = names.iter().map(|n| (distance(word, n).min(distance(&plain, n)), n)).min();
    match best {
        // Two edits at least: that many it takes to swap two letters.
        Some((d, name)) if d <= (word.len() / 3).max(2) => format!("; did you mean '{name}'?"),
        _ => String::new(),
    }
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let names = ["pgd", "apgd-ce", "square"];
        assert_eq!(did_you_mean("pdg", &names), "; did you mean 'pgd'?");
        assert_eq!(did_you_mean("apgd_ce", &names), "; did you mean 'apgd-ce'?");
        assert_eq!(did_you_mean("SQUARE", &names), "; did you mean 'square'?");
        assert_eq!(did_you_mean("deepfool", &names), "");
        assert_eq!(did_you_mean("", &[]), "");
    }

    #[test]
    fn distances_count_edits() {
        for (a, b, edits) in [("", "abc", 3), ("kitten", "sitting", 3), ("pdg", "pgd", 2), ("é", "e", 1)] {
            assert_eq!((distance(a, b), distance(b, a)), (edits, edits), "{a} {b}");
        }
    }
}
