//! Finds things in what programs print: lines of logs, samples of metrics. It fetches nothing.

/// The first line that holds every one of `parts`.
#[must_use]
pub fn line_with<'a>(text: &'a str, parts: &[&str]) -> Option<&'a str> {
    text.lines().find(|line| parts.iter().all(|part| line.contains(part)))
}

/// Sum of the samples called `name` that have all of `labels`, in the text format of Prometheus; `None` when
/// there is no such sample.
#[must_use]
pub fn metric(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (set, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        // a label's name begins the set or follows a comma: `app` is not the end of `source_app`
        let has = |label: &String| set.starts_with(label.as_str()) || set.contains(&format!(",{label}"));
        wanted.iter().all(has).then(|| value.split_whitespace().next()?.parse::<f64>().ok())?
    };
    let values: Vec<f64> = text.lines().filter_map(value).collect();
    // No sample and a sum of 0 are two answers: a test that waits for a counter to stay at 0 must not pass because the
    // metric has another name.
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE opened counter\n\
        opened_total{reporter=\"source\",source_app=\"cart\"} 3\n\
        opened_total{reporter=\"source\",source_app=\"web\"} 4 1700000000\n\
        opened_total{reporter=\"destination\",source_app=\"cart\"} 5\n\
        up 1\n# EOF\n";

    #[test]
    fn samples_are_added_up_by_their_labels() {
        assert_eq!(metric(METRICS, "opened_total", &[]), Some(12.0));
        assert_eq!(metric(METRICS, "opened_total", &[("reporter", "source")]), Some(7.0));
        assert_eq!(metric(METRICS, "opened_total", &[("source_app", "cart"), ("reporter", "destination")]), Some(5.0));
        assert_eq!(metric(METRICS, "up", &[]), Some(1.0));
    }

    #[test]
    fn what_is_not_there_is_none() {
        assert_eq!(metric(METRICS, "opened", &[]), None);
        assert_eq!(metric(METRICS, "opened_total", &[("app", "cart")]), None);
    }

    #[test]
    fn a_line_must_hold_every_part() {
        assert_eq!(line_with("a b\nb c\n", &["b", "c"]), Some("b c"));
        assert_eq!(line_with("a b\nb c\n", &["a", "c"]), None);
    }
}
