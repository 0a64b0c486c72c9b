use super::*;
use crate::testing::headers;

/// End of a try that needs no headers.
fn ends() -> [(&'static str, TryEnd<'static>); 6] {
    [
        ("connect failure", TryEnd::ConnectFailure),
        ("refused stream", TryEnd::RefusedStream),
        ("reset before", TryEnd::Reset { sent: false }),
        ("reset", TryEnd::Reset { sent: true }),
        ("try timeout", TryEnd::TryTimeout),
        ("overflow", TryEnd::Overflow),
    ]
}

/// Measured on Envoy 1.40 but for a refused stream and a reset before the request, which follow its documentation.
#[test]
fn each_condition_retries_the_failures_that_envoy_retries() {
    let all = ["connect failure", "refused stream", "reset before", "reset", "try timeout"];
    for (list, expected) in [
        ("5xx", &all[..]),
        ("gateway-error", &all),
        ("reset", &all),
        ("reset-before-request", &["connect failure", "reset before"]),
        ("connect-failure", &["connect failure"]),
        ("refused-stream", &["refused stream"]),
        ("connect-failure,refused-stream,unavailable,cancelled,503", &["connect failure", "refused stream"]),
        ("retriable-4xx,retriable-headers,envoy-ratelimited,http3-post-connect-failure", &[]),
        ("", &[]),
    ] {
        let on = RetryOn::parse(list).0;
        let retried: Vec<_> = ends().into_iter().filter(|(_, end)| on.includes(*end)).map(|(name, _)| name).collect();
        assert_eq!(retried, expected, "{list}");
    }
}

#[test]
fn each_condition_retries_the_statuses_that_envoy_retries() {
    let statuses = [200, 404, 409, 429, 500, 501, 502, 503, 504, 599];
    for (list, expected) in [
        ("5xx", &[500, 501, 502, 503, 504, 599][..]),
        ("gateway-error", &[502, 503, 504]),
        ("retriable-4xx", &[409]),
        ("429,500", &[429, 500]),
        ("retriable-status-codes", &[]),
        ("reset,connect-failure,refused-stream,reset-before-request,retriable-headers,unavailable", &[]),
    ] {
        let on = RetryOn::parse(list).0;
        let headers = HeaderMap::new();
        let is_retried = |status: &u16| on.includes(TryEnd::Answer { status: *status, headers: &headers });
        let retried: Vec<_> = statuses.into_iter().filter(is_retried).collect();
        assert_eq!(retried, expected, "{list}");
    }
}

#[test]
fn a_grpc_status_counts_when_it_is_in_the_head() {
    for (name, status) in
        [("cancelled", 1), ("deadline-exceeded", 4), ("resource-exhausted", 8), ("internal", 13), ("unavailable", 14)]
    {
        let on = RetryOn::parse(name).0;
        for code in 0..17 {
            let headers = headers(&[("grpc-status", &code.to_string())]);
            assert_eq!(on.includes(TryEnd::Answer { status: 200, headers: &headers }), code == status, "{name} {code}");
        }
        assert!(!on.includes(TryEnd::Answer { status: 200, headers: &HeaderMap::new() }), "{name}: in trailers");
    }
}

#[test]
fn an_answer_of_a_rate_limit_is_retried_only_on_request() {
    let limited = headers(&[("x-envoy-ratelimited", "true"), ("grpc-status", "14")]);
    let end = TryEnd::Answer { status: 503, headers: &limited };
    assert!(!RetryOn::parse("5xx,503,unavailable").0.includes(end));
    assert!(RetryOn::parse("envoy-ratelimited").0.includes(end));
}

#[test]
fn attempts_are_retries_and_what_ends_them_is_told_apart() {
    let policy = RetryPolicy { on: RetryOn::parse("5xx").0, ..RetryPolicy::default() };
    let headers = HeaderMap::new();
    let unavailable = TryEnd::Answer { status: 503, headers: &headers };

    assert_eq!(policy.verdict(0, unavailable, 0), Verdict::Retry { pause: Duration::ZERO });
    assert_eq!(policy.verdict(1, unavailable, 0), Verdict::Retry { pause: Duration::ZERO });
    assert_eq!(policy.verdict(2, unavailable, 0), Verdict::Exhausted, "three requests in all");
    assert_eq!(policy.verdict(2, TryEnd::Answer { status: 200, headers: &headers }, 0), Verdict::Done);
    assert_eq!(policy.verdict(0, TryEnd::Overflow, 0), Verdict::Done);
    let never = RetryPolicy { attempts: 0, ..policy };
    assert_eq!(never.verdict(0, unavailable, 0), Verdict::Done);
}

#[test]
fn a_try_that_took_too_long_is_not_retried_by_default() {
    assert_eq!(RetryPolicy::default().verdict(0, TryEnd::TryTimeout, 0), Verdict::Done);
}

#[test]
fn pauses_grow_to_ten_times_the_base() {
    let policy = RetryPolicy { attempts: 100, ..RetryPolicy::default() };
    let longest = |retries: u32, bound_millis: u64| {
        let bound = Duration::from_millis(bound_millis);
        let pause = |random| policy.verdict(retries, TryEnd::ConnectFailure, random);
        let nanos = u64::try_from(bound.as_nanos()).unwrap();
        pause(nanos - 1) == Verdict::Retry { pause: bound - Duration::from_nanos(1) }
            && pause(nanos) == Verdict::Retry { pause: Duration::ZERO }
    };
    for (retries, bound) in [(0, 25), (1, 75), (2, 175), (3, 250), (4, 250), (99, 250)] {
        assert!(longest(retries, bound), "{retries}");
    }
    let no_pause = RetryPolicy { base_pause: Duration::ZERO, ..policy };
    assert_eq!(no_pause.verdict(0, TryEnd::ConnectFailure, 7), Verdict::Retry { pause: Duration::ZERO });
}
