//! Guesses which word was meant.

/// The candidate that the word is most like, if it is like one.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase();
    let near = candidates.into_iter().map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase()), candidate));
    let (distance, candidate) = near.min()?;
    let is_near = distance <= (word.len().min(candidate.len()) / 3).clamp(1, 3);
    // Names of one or two letters are like everything.
    (is_near && (distance == 0 || word.len() > 2)).then_some(candidate)
}

/// Number of letters to add, remove, replace or swap.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut cost = (row[j] + usize::from(a != b)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && from[i - 1] == *b && to[j - 1] == *a {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_recognised_and_another_word_is_not() {
        let known = ["rules", "selector", "action", "targetPort", "port", "principals", "labels"];

        for (typed, meant) in [
            ("rule", Some("rules")),
            ("targetport", Some("targetPort")),
            ("target_port", Some("targetPort")),
            ("principal", Some("principals")),
            ("lables", Some("labels")),
            ("actoin", Some("action")),
            ("speed", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }
}
