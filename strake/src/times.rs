//! Times and durations for people.

use std::time::{Duration, SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A time in RFC 3339.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

/// The time left until `end`: `23h`, or `ended 5m ago`.
pub(crate) fn until(end: SystemTime, now: SystemTime) -> String {
    match end.duration_since(now) {
        Ok(left) => rounded(left),
        Err(over) => format!("ended {} ago", rounded(over.duration())),
    }
}

/// A duration in its largest unit, rounded down, as kubectl shows ages.
pub(crate) fn rounded(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_left_has_one_unit() {
        let now = parse("2026-01-01T00:00:00Z").unwrap();

        assert_eq!(until(now + Duration::from_secs(86_399), now), "23h");
        assert_eq!(until(now - Duration::from_secs(300), now), "ended 5m ago");
        assert_eq!(rounded(Duration::from_secs(90)), "90s");
        assert_eq!(rounded(Duration::from_secs(200_000)), "2d");
        assert_eq!(parse("soon"), None);
    }
}
