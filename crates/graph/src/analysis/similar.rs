//! Names that a user may have meant: the nearest one by edit distance.

/// The candidate that is most like `value`, when it is like it at all: at most one change per three characters, three at
/// most, swapped neighbours and another case counting as one. The first of several in the order of candidates.
pub(crate) fn nearest<'a>(value: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (value.chars().count() / 3).clamp(1, 3);
    let wanted: Vec<char> = value.chars().collect();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.filter(|candidate| *candidate != value) {
        // Only a nearer one replaces it, so of equals the first stays, and far candidates are given up early.
        let limit = best.map_or(limit, |(distance, _)| distance.saturating_sub(1));
        if let Some(distance) = within(&wanted, candidate, limit) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `; did you mean "x"?` for the nearest candidate, else nothing.
pub(crate) fn hint<'a>(value: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    nearest(value, candidates).map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default()
}

/// The edit distance, unless it is above `limit`.
fn within(left: &[char], right: &str, limit: usize) -> Option<usize> {
    let right: Vec<char> = right.chars().collect();
    // Each missing letter is a change, so this needs no table.
    if left.len().abs_diff(right.len()) > limit {
        return None;
    }
    let same = |a: char, b: char| a.eq_ignore_ascii_case(&b);
    let distance = if left.len() == right.len() && left.iter().zip(&right).all(|(a, b)| same(*a, *b)) {
        1
    } else {
        distance(left, &right)
    };
    (distance <= limit).then_some(distance)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one into the other.
fn distance(left: &[char], right: &[char]) -> usize {
    let width = right.len() + 1;
    let mut before = vec![0; width];
    let mut above: Vec<usize> = (0..width).collect();
    for row in 1..=left.len() {
        let mut current = vec![row; width];
        for column in 1..width {
            let differ = usize::from(left[row - 1] != right[column - 1]);
            let cheapest = (above[column] + 1).min(current[column - 1] + 1).min(above[column - 1] + differ);
            // Two neighbours in the wrong order are one slip of a hand, not two changes.
            let swapped =
                row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1];
            current[column] = if swapped { cheapest.min(before[column - 2] + 1) } else { cheapest };
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_distant_one_is_not() {
        let names = ["shop", "default", "payments"];

        assert_eq!(nearest("shpo", names.into_iter()), Some("shop"));
        assert_eq!(nearest("SHOP", names.into_iter()), Some("shop"));
        assert_eq!(nearest("defualt", names.into_iter()), Some("default"));
        assert_eq!(nearest("payment", names.into_iter()), Some("payments"));
        assert_eq!(nearest("billing", names.into_iter()), None);
        assert_eq!(nearest("a", ["b", "xy"].into_iter()), Some("b"));
        assert_eq!(nearest("shop", names.into_iter()), None, "the same name is no other one");
    }

    #[test]
    fn the_nearest_of_several_wins() {
        assert_eq!(nearest("web-front", ["web-fronts", "web-frnot", "web-frontal"].into_iter()), Some("web-fronts"));
    }
}
