//! Parsers of single values: durations, numbers, quantities, headers, addresses.

use std::{str::FromStr, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use serde::Serializer;

use super::source::Reader;

/// Form of a duration, for messages.
pub const DURATION: &str = "a duration such as 30s, 5m or 1h30m";

/// `1h30m`, `500ms`: numbers with units, added up.
pub fn duration(value: &str) -> Option<Duration> {
    let mut rest = value.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let seconds = match unit.trim() {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = next;
    }
    Some(total)
}

/// A number of any type.
pub fn number<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

/// A Kubernetes quantity of processors, rounded up: `500m`, `1.5`, `2`.
pub fn processors(value: &str) -> Option<usize> {
    let (number, scale) = match value.strip_suffix('m') {
        Some(milli) => (milli, 1000.0),
        None => (value, 1.0),
    };
    let cores = (number.parse::<f64>().ok()? / scale).ceil();
    // Exact after the check; no machine has more.
    (cores.is_finite() && (0.0..=65_536.0).contains(&cores)).then_some(cores as usize)
}

/// An address of the control plane; without scheme it is https.
pub fn uri(value: &str) -> Option<Uri> {
    let full = if value.contains("://") { value.to_owned() } else { format!("https://{value}") };
    let uri: Uri = full.parse().ok()?;
    let scheme_known = matches!(uri.scheme_str(), Some("https" | "http"));
    (scheme_known && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// `XDS_HEADER_*`, `CA_HEADER_*`: the rest of the name is the header.
pub fn headers(reader: &mut Reader<'_>, prefix: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    let found: Vec<_> = reader.with_prefix(prefix).collect();
    for (name, value) in found {
        match (HeaderName::from_str(&name.to_ascii_lowercase()), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => headers.push((name, value)),
            _ => {
                reader.problems.push(format!("{prefix}{name}"), value, "a name and a value that HTTP headers may have")
            }
        }
    }
    headers
}

/// As `90s` or `1500ms`.
pub fn serialize_duration<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(*value))
}

pub fn shown(value: Duration) -> String {
    if value.subsec_millis() == 0 { format!("{}s", value.as_secs()) } else { format!("{}ms", value.as_millis()) }
}

/// Through `Display`; none as null.
pub fn serialize_option<T: std::fmt::Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// Names of headers; their values may be secret.
pub fn serialize_header_names<S: Serializer>(
    headers: &[(HeaderName, HeaderValue)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.iter().map(|(name, _)| name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for wrong in ["", "5", "s", "-1s", "1x", "1h 30", "soon"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn processors_are_rounded_up() {
        assert_eq!(processors("500m"), Some(1));
        assert_eq!(processors("2500m"), Some(3));
        assert_eq!(processors("2"), Some(2));
        assert_eq!(processors("1.1"), Some(2));
        assert_eq!(processors("-1"), None);
        assert_eq!(processors("many"), None);
    }

    #[test]
    fn an_address_without_scheme_is_https() {
        assert_eq!(uri("istiod.istio-system.svc:15012").unwrap().to_string(), "https://istiod.istio-system.svc:15012/");
        assert_eq!(uri("http://localhost:1").unwrap().scheme_str(), Some("http"));
        assert!(uri("ftp://x").is_none());
        assert!(uri("https://").is_none());
    }
}
