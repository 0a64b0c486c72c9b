//! gRPC as far as a proxy answers or reads it: content type, `grpc-status`, `grpc-timeout`.

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Names of status codes, each at its number.
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Returns true if the content type is `application/grpc` or `application/grpc+...`. Parameters and other letter case are
/// not gRPC to Envoy 1.40 (measured).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    content_type.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

/// Status code of a proxy's own answer, by the HTTP status that it would have had (measured on Envoy 1.40).
pub const fn status_of(http: u16) -> u8 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Number of a status code by its name, as `UNAVAILABLE`.
pub fn status_by_name(name: &str) -> Option<u8> {
    let at = STATUSES.iter().position(|known| *known == name)?;
    u8::try_from(at).ok()
}

/// Status code in an answer's headers: that of one without messages.
pub fn status_in(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.trim().parse().ok()
}

/// Reads `grpc-timeout`: at most 8 digits and a unit (gRPC over HTTP/2). `None` without one that is valid.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = is_number.then(|| digits.parse().ok()).flatten()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::headers;

    #[test]
    fn the_content_type_decides() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=1", false),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("Application/grpc", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", value)])), expected, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn own_answers_have_the_status_measured_on_envoy() {
        for (http, grpc) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (405, 2),
            (408, 2),
            (418, 2),
            (429, 14),
            (431, 2),
            (500, 2),
            (501, 2),
            (502, 14),
            (503, 14),
            (504, 14),
            (555, 2),
        ] {
            assert_eq!(status_of(http), grpc, "{http}");
        }
    }

    #[test]
    fn statuses_have_names_and_numbers() {
        assert_eq!(status_by_name("OK"), Some(0));
        assert_eq!(status_by_name("UNAVAILABLE"), Some(14));
        assert_eq!(status_by_name("UNAUTHENTICATED"), Some(16));
        assert_eq!(status_by_name("unavailable"), None);
        assert_eq!(status_in(&headers(&[("grpc-status", "14")])), Some(14));
        assert_eq!(status_in(&headers(&[("grpc-status", "x")])), None);
        assert_eq!(status_in(&HeaderMap::new()), None);
    }

    #[test]
    fn a_timeout_has_eight_digits_and_a_unit() {
        for (value, expected) in [
            ("200m", Some(Duration::from_millis(200))),
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4u", Some(Duration::from_micros(4))),
            ("5n", Some(Duration::from_nanos(5))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000n", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
        ] {
            assert_eq!(timeout(&headers(&[("grpc-timeout", value)])), expected, "{value}");
        }
    }
}
