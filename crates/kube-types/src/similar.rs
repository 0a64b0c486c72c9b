//! Names that a user may have meant: the nearest one by edit distance.

/// The candidate that is most like `value`, when it is like it at all: at most one change per three characters, three at
/// most. A change adds, removes or replaces a character or swaps two neighbours; upper and lower case are alike. The first
/// of several in the order of candidates, and never `value` itself.
pub fn nearest<'a>(value: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = value.to_ascii_lowercase();
    let length = wanted.chars().count();
    let mut limit = (length / 3).clamp(1, 3);
    let mut best = None;
    for candidate in candidates.into_iter().filter(|candidate| *candidate != value) {
        // Each character that one has more than the other is a change, so most candidates need no table.
        if length.abs_diff(candidate.chars().count()) > limit {
            continue;
        }
        let distance = strsim::osa_distance(&wanted, &candidate.to_ascii_lowercase());
        // Names of one or two letters are like everything.
        if distance > limit || (distance > 0 && length <= 2) {
            continue;
        }
        best = Some(candidate);
        // Only a nearer one replaces it.
        match distance.checked_sub(1) {
            Some(nearer) => limit = nearer,
            None => break,
        }
    }
    best
}

/// `; did you mean "x"?` for the nearest candidate, else nothing.
pub fn hint<'a>(value: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(value, candidates).map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_recognised_and_another_word_is_not() {
        let known = [
            "rules",
            "selector",
            "action",
            "targetPort",
            "port",
            "principals",
            "labels",
            "shop",
            "default",
            "payments",
        ];

        for (typed, meant) in [
            ("rule", Some("rules")),
            ("targetport", Some("targetPort")),
            ("target_port", Some("targetPort")),
            ("principal", Some("principals")),
            ("lables", Some("labels")),
            ("actoin", Some("action")),
            ("shpo", Some("shop")),
            ("SHOP", Some("shop")),
            ("defualt", Some("default")),
            ("payment", Some("payments")),
            ("billing", None),
            ("speed", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }

    #[test]
    fn the_nearest_of_several_wins_and_the_same_name_is_no_other_one() {
        assert_eq!(nearest("web-front", ["web-fronts", "web-frnot", "web-frontal"]), Some("web-fronts"));
        assert_eq!(nearest("web-front", ["web-frontal", "web-fronts"]), Some("web-fronts"));
        assert_eq!(nearest("shop", ["shop", "store"]), None);
        assert_eq!(hint("shpo", ["shop"]), "; did you mean \"shop\"?");
        assert_eq!(hint("billing", ["shop"]), "");
    }
}
