use serde_json::{Value, json};

use super::*;

fn lines(findings: Findings) -> Vec<String> {
    let line = |finding: &crate::Finding| format!("{} {}", finding.origin.field, finding.reason.code());
    findings.into_sorted().iter().map(line).collect()
}

fn retry_of(retries: Value) -> (Option<RetryPolicy>, Vec<String>) {
    let mut findings = Findings::default();
    let retries: Option<HttpRetry> = serde_json::from_value(retries).unwrap();
    (retry(retries.as_ref(), RetryPolicy::default(), &Origin::default(), &mut findings), lines(findings))
}

fn fault_of(of: Value) -> (Option<Fault>, Vec<String>) {
    let mut findings = Findings::default();
    let compiled = fault(&serde_json::from_value(of).unwrap(), &Origin::default(), &mut findings);
    (compiled, lines(findings))
}

#[test]
fn without_retries_there_are_those_of_istio() {
    assert_eq!(retry_of(Value::Null), (Some(RetryPolicy::default()), vec![]));
    assert_eq!(retry_of(json!({"attempts": 0})), (None, vec![]));
    assert_eq!(retry_of(json!({"attempts": -1})), (None, vec![]));
    let (three, _) = retry_of(json!({"attempts": 3}));
    assert_eq!(three, Some(RetryPolicy { attempts: 3, ..RetryPolicy::default() }));
}

#[test]
fn every_field_of_retries_is_compiled() {
    let (policy, findings) = retry_of(json!({
        "attempts": 1, "perTryTimeout": "2s", "retryOn": "gateway-error,503", "retryRemoteLocalities": true,
        "retryIgnorePreviousHosts": false, "backoff": "10ms"
    }));
    let expected = RetryPolicy {
        attempts: 1,
        on: RetryOn::new(&[Condition::GatewayError], &[503]),
        per_try_timeout: Some(Duration::from_secs(2)),
        base_pause: Duration::from_millis(10),
        avoid_previous_hosts: false,
        other_localities: true,
    };
    assert_eq!((policy, findings), (Some(expected), vec![]));
}

#[test]
fn retries_without_effect_are_reported() {
    let (policy, findings) =
        retry_of(json!({"attempts": 1, "retryOn": "retriable-headers,5XX", "perTryTimeout": "2", "backoff": "x"}));
    assert_eq!(policy.unwrap().per_try_timeout, None);
    assert_eq!(
        findings,
        [
            "retries.backoff invalid_value",
            "retries.perTryTimeout invalid_value",
            "retries.retryOn invalid_value",
            "retries.retryOn ignored"
        ]
    );
}

#[test]
fn a_fault_needs_a_percentage() {
    for (of, expected, field) in [
        (json!({"delay": {"fixedDelay": "7s", "percentage": {"value": 0.1}}}), true, None),
        (json!({"delay": {"fixedDelay": "7s", "percent": 10}}), true, None),
        (json!({"delay": {"fixedDelay": "7s"}}), false, Some("fault.delay ignored")),
        (json!({"delay": {"exponentialDelay": "7s"}}), false, Some("fault.delay unsupported")),
        (json!({"delay": {"fixedDelay": "7"}}), false, Some("fault.delay.fixedDelay invalid_value")),
        (json!({"abort": {"httpStatus": 400, "percentage": {"value": 100}}}), true, None),
        (json!({"abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 100}}}), true, None),
        (json!({"abort": {"httpStatus": 400}}), false, Some("fault.abort ignored")),
        (json!({"abort": {"httpStatus": 99, "percentage": {"value": 1}}}), false, Some("fault.abort invalid_value")),
        (json!({"abort": {"http2Error": "x", "percentage": {"value": 1}}}), false, Some("fault.abort invalid_value")),
        (
            json!({"abort": {"grpcStatus": "Nope", "percentage": {"value": 1}}}),
            false,
            Some("fault.abort invalid_value"),
        ),
    ] {
        let (fault, findings) = fault_of(of.clone());
        assert_eq!((fault.is_some(), findings), (expected, field.into_iter().map(str::to_owned).collect()), "{of}");
    }
    let (fault, _) = fault_of(json!({"delay": {"fixedDelay": "7s", "percentage": {"value": 0.1}}}));
    let delay = Delay { duration: Duration::from_secs(7), share: Percent::of(1, 1000).unwrap() };
    assert_eq!(fault, Some(Fault { delay: Some(delay), abort: None }));
}

#[test]
fn cross_origin_rules_are_compiled() {
    let policy = serde_json::from_value(json!({
        "allowOrigin": ["https://former"],
        "allowOrigins": [{"exact": "*"}, {"prefix": "https://a"}, {"regex": "https://[a-z]+"}, {"regex": "("}, {}],
        "allowMethods": ["GET", "PUT"], "maxAge": "24h", "allowCredentials": true, "unmatchedPreflights": "IGNORE",
        "exposeHeaders": ["a\nb"]
    }));
    let mut findings = Findings::default();

    let cors = cors(&policy.unwrap(), &Origin::default(), &mut findings);

    let expected = [
        OriginMatch::Any,
        OriginMatch::Text(TextMatch::prefix("https://a")),
        OriginMatch::Text(TextMatch::Regex(Regex::new("https://[a-z]+").unwrap())),
        OriginMatch::Text(TextMatch::exact("https://former")),
    ];
    assert_eq!(cors.origins, expected);
    assert_eq!(cors.allow_methods, Some(HeaderValue::from_static("GET,PUT")));
    assert_eq!((cors.allow_headers, cors.expose_headers, cors.max_age), (None, None, Some(86_400)));
    assert!(cors.allow_credentials && cors.ignore_unmatched_preflights);
    let expected = [
        "corsPolicy.allowOrigins[3] invalid_value",
        "corsPolicy.allowOrigins[4] invalid_value",
        "corsPolicy.exposeHeaders invalid_value",
    ];
    assert_eq!(lines(findings), expected);
}
