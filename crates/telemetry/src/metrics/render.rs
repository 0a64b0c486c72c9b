//! Prometheus text to OpenMetrics text: no empty lines, a counter's family named without `_total`, families sorted, `# EOF`.

/// `text` is what the exporter wrote.
pub(super) fn open_metrics(text: &str) -> String {
    let mut families: Vec<Vec<String>> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let starts = line.starts_with("# HELP ") || (line.starts_with("# TYPE ") && !continues(families.last()));
        if starts || families.is_empty() {
            families.push(Vec::new());
        }
        if let Some(family) = families.last_mut() {
            family.push(line.to_owned());
        }
    }
    for family in &mut families {
        name_counter(family);
        let head = family.iter().take_while(|line| line.starts_with('#')).count();
        if let Some(samples) = family.get_mut(head..).filter(|samples| !samples.iter().any(|s| s.contains("_bucket{")))
        {
            samples.sort_unstable();
        }
    }
    families.sort_unstable_by(|a, b| name_of(a).cmp(name_of(b)));
    let mut open = String::with_capacity(text.len());
    for line in families.iter().flatten() {
        open.push_str(line);
        open.push('\n');
    }
    open.push_str("# EOF\n");
    open
}

/// Is only the HELP line of a family there, so that its TYPE line follows?
fn continues(family: Option<&Vec<String>>) -> bool {
    family.is_some_and(|lines| lines.len() == 1 && lines.iter().all(|l| l.starts_with("# HELP ")))
}

fn name_of(family: &[String]) -> &str {
    family.first().and_then(|line| line.split(' ').nth(2)).unwrap_or_default()
}

/// A counter `x_total` belongs to the family `x`.
fn name_counter(family: &mut [String]) {
    if !family.iter().any(|line| line.starts_with("# TYPE ") && line.ends_with(" counter")) {
        return;
    }
    for line in family.iter_mut().filter(|line| line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        if let (Some(hash), Some(kind), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        {
            *line = format!("{hash} {kind} {} {rest}", name.strip_suffix("_total").unwrap_or(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_sorted_and_counters_named_without_their_suffix() {
        let text = "# HELP b_total Of b.\n# TYPE b_total counter\nb_total{x=\"2\"} 1\nb_total{x=\"1\"} 3\n\n\
                    # TYPE a gauge\na 1\n\n";

        let expected =
            "# TYPE a gauge\na 1\n# HELP b Of b.\n# TYPE b counter\nb_total{x=\"1\"} 3\nb_total{x=\"2\"} 1\n# EOF\n";
        assert_eq!(open_metrics(text), expected);
    }

    #[test]
    fn nothing_recorded_is_still_a_document() {
        assert_eq!(open_metrics(""), "# EOF\n");
    }
}
