//! The exporter's text as OpenMetrics or as Prometheus' text format: families sorted, no empty lines. In OpenMetrics a
//! counter's family is named without `_total`, and `# EOF` ends the document; in the text format neither is so.

/// OpenMetrics 1.0. `exported` is what the exporter wrote.
pub(super) fn open_metrics(exported: &str) -> String {
    let mut families = families(exported);
    // Before sorting: without `_total` a name may sort elsewhere.
    families.iter_mut().for_each(|family| name_counter(family));
    families.sort_unstable_by(|a, b| name_of(a).cmp(name_of(b)));
    let mut text = joined(&families, exported.len());
    text.push_str("# EOF\n");
    text
}

/// Prometheus' text format 0.0.4. `exported` is what the exporter wrote.
pub(super) fn text(exported: &str) -> String {
    let mut families = families(exported);
    families.sort_unstable_by(|a, b| name_of(a).cmp(name_of(b)));
    joined(&families, exported.len())
}

/// Lines of each family: HELP and TYPE, then its samples in order of their labels. Buckets keep the order of their bounds.
fn families(exported: &str) -> Vec<Vec<String>> {
    let mut families: Vec<Vec<String>> = Vec::new();
    for line in exported.lines().filter(|line| !line.is_empty()) {
        // A family begins with its HELP line, or with its TYPE line when it has no help.
        let starts = line.starts_with("# HELP ") || (line.starts_with("# TYPE ") && !continues(families.last()));
        if starts || families.is_empty() {
            families.push(Vec::new());
        }
        if let Some(family) = families.last_mut() {
            family.push(line.to_owned());
        }
    }
    for family in &mut families {
        let head = family.iter().take_while(|line| line.starts_with('#')).count();
        // As text, `le="10"` would sort before `le="5"`.
        if let Some(samples) = family.get_mut(head..).filter(|samples| !samples.iter().any(|s| s.contains("_bucket{")))
        {
            samples.sort_unstable();
        }
    }
    families
}

fn joined(families: &[Vec<String>], capacity: usize) -> String {
    let mut text = String::with_capacity(capacity);
    for line in families.iter().flatten() {
        text.push_str(line);
        text.push('\n');
    }
    text
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
        // The fourth word is the rest of the line: help texts contain spaces.
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
    fn the_text_format_names_a_counter_as_its_samples_and_has_no_end_marker() {
        let exported = "# HELP b_total Of b.\n# TYPE b_total counter\nb_total 1\n\n# TYPE a gauge\na 1\n\n";

        let expected = "# TYPE a gauge\na 1\n# HELP b_total Of b.\n# TYPE b_total counter\nb_total 1\n";
        assert_eq!(text(exported), expected);
    }

    #[test]
    fn nothing_recorded_is_still_a_document() {
        assert_eq!(open_metrics(""), "# EOF\n");
    }
}
