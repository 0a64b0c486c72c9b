//! Retries, faults, cross-origin rules and percentages of a VirtualService's HTTP rule.

use std::time::Duration;

use http::HeaderValue;
use kube_types::istio::{CorsPolicy, HttpFaultInjection, HttpRetry, Percentage, StringMatch, UnmatchedPreflights};
use route::retry::{Condition, RetryOn, RetryPolicy};
use route::{Abort, AbortStatus, Cors, Delay, Fault, Origin, OriginMatch, Percent, Regex, TextMatch, grpc};

use crate::duration;
use crate::finding::{Findings, Reason};

/// Reads a duration; `None` with a finding that says what happens `instead` if it is not one.
pub(crate) fn time(text: &str, at: &Origin, field: &str, instead: &str, findings: &mut Findings) -> Option<Duration> {
    let parsed = duration::parse(text);
    if parsed.is_none() {
        let message = format!("invalid duration {text:?}, expected a number and h, m, s or ms: {instead}");
        findings.add(Reason::Invalid, at, field, message);
    }
    parsed
}

/// Retries of a rule. Without `retries` there are the default ones; `attempts` of 0 switches them off.
pub(crate) fn retry(
    retries: Option<&HttpRetry>,
    default: RetryPolicy,
    at: &Origin,
    findings: &mut Findings,
) -> Option<RetryPolicy> {
    let Some(retries) = retries else { return Some(default) };
    let attempts = u32::try_from(retries.attempts).ok().filter(|attempts| *attempts > 0)?;
    let on = if retries.retry_on.is_empty() { default.on } else { retry_on(&retries.retry_on, at, findings) };
    let mut time = |text: &Option<String>, field: &str, instead: &str| {
        let time = text.as_deref().and_then(|text| time(text, at, field, instead, findings));
        time.filter(|time| !time.is_zero())
    };
    Some(RetryPolicy {
        attempts,
        on,
        per_try_timeout: time(&retries.per_try_timeout, "retries.perTryTimeout", "a try has no time limit of its own"),
        base_pause: time(&retries.backoff, "retries.backoff", "25ms are used").unwrap_or(default.base_pause),
        avoid_previous_hosts: retries.retry_ignore_previous_hosts.unwrap_or(default.avoid_previous_hosts),
        other_localities: retries.retry_remote_localities.unwrap_or(default.other_localities),
    })
}

fn retry_on(list: &str, at: &Origin, findings: &mut Findings) -> RetryOn {
    let (on, unknown) = RetryOn::parse(list);
    for item in unknown {
        let message = format!("unknown condition {item:?}: it retries nothing");
        findings.add(Reason::Invalid, at, "retries.retryOn", message);
    }
    for (condition, why) in [
        (Condition::RetriableHeaders, "no field can list headers"),
        (Condition::Http3PostConnectFailure, "there is no HTTP/3 to endpoints"),
    ] {
        if on.conditions().contains(&condition) {
            let message = format!("{} retries nothing: {why}", condition.name());
            findings.add(Reason::Ignored, at, "retries.retryOn", message);
        }
    }
    on
}

/// Share of requests; `absent` without a percentage.
pub(crate) fn share(
    percentage: Option<&Percentage>,
    former: Option<f64>,
    absent: Percent,
    at: &Origin,
    field: &str,
    findings: &mut Findings,
) -> Percent {
    let Some(value) = percentage.map(|percentage| percentage.value.0).or(former) else { return absent };
    Percent::new(value).unwrap_or_else(|| {
        let message = format!("invalid percentage {value}, expected 0 to 100: no request is affected");
        findings.add(Reason::Invalid, at, field, message);
        Percent::NONE
    })
}

/// Faults of a rule. Without a percentage they affect no request.
pub(crate) fn fault(fault: &HttpFaultInjection, at: &Origin, findings: &mut Findings) -> Option<Fault> {
    let compiled = Fault { delay: delay(fault, at, findings), abort: abort(fault, at, findings) };
    (compiled != Fault::default()).then_some(compiled)
}

fn delay(fault: &HttpFaultInjection, at: &Origin, findings: &mut Findings) -> Option<Delay> {
    let delay = fault.delay.as_ref()?;
    let Some(fixed) = &delay.fixed_delay else {
        let message = "only fixedDelay is supported: no request is delayed";
        findings.add(Reason::Unsupported, at, "fault.delay", message);
        return None;
    };
    let duration = time(fixed, at, "fault.delay.fixedDelay", "no request is delayed", findings)?;
    let former = delay.percent.map(f64::from);
    if delay.percentage.is_none() && former.is_none() {
        findings.add(Reason::Ignored, at, "fault.delay", "there is no percentage: no request is delayed");
        return None;
    }
    let share = share(delay.percentage.as_ref(), former, Percent::NONE, at, "fault.delay.percentage", findings);
    Some(Delay { duration, share })
}

fn abort(fault: &HttpFaultInjection, at: &Origin, findings: &mut Findings) -> Option<Abort> {
    let abort = fault.abort.as_ref()?;
    let status = match (abort.http_status, &abort.grpc_status, &abort.http2_error) {
        (Some(status), None, None) => {
            u16::try_from(status).ok().filter(|status| (200..=599).contains(status)).map(AbortStatus::Http)
        }
        (None, Some(name), None) => grpc::status_by_name(name).map(AbortStatus::Grpc),
        _ => None,
    };
    let Some(status) = status else {
        let message =
            "expected either httpStatus from 200 to 599 or grpcStatus with the name of a status: no request is aborted";
        findings.add(Reason::Invalid, at, "fault.abort", message);
        return None;
    };
    if abort.percentage.is_none() {
        findings.add(Reason::Ignored, at, "fault.abort", "there is no percentage: no request is aborted");
        return None;
    }
    let share = share(abort.percentage.as_ref(), None, Percent::NONE, at, "fault.abort.percentage", findings);
    Some(Abort { status, share })
}

/// Rules for cross-origin requests.
pub(crate) fn cors(policy: &CorsPolicy, at: &Origin, findings: &mut Findings) -> Cors {
    let former =
        policy.allow_origin.iter().map(|origin| StringMatch { exact: Some(origin.clone()), ..StringMatch::default() });
    let patterns = policy.allow_origins.iter().cloned().chain(former).enumerate();
    let mut origins = Vec::new();
    for (index, pattern) in patterns {
        origins.extend(origin(&pattern, at, &format!("corsPolicy.allowOrigins[{index}]"), findings));
    }
    let max_age = policy.max_age.as_deref();
    let max_age = max_age.and_then(|text| time(text, at, "corsPolicy.maxAge", "no maximum age is sent", findings));
    Cors {
        origins,
        allow_methods: list(&policy.allow_methods, at, "corsPolicy.allowMethods", findings),
        allow_headers: list(&policy.allow_headers, at, "corsPolicy.allowHeaders", findings),
        expose_headers: list(&policy.expose_headers, at, "corsPolicy.exposeHeaders", findings),
        max_age: max_age.map(|age| age.as_secs()),
        allow_credentials: policy.allow_credentials.unwrap_or_default(),
        ignore_unmatched_preflights: match policy.unmatched_preflights {
            UnmatchedPreflights::Unspecified | UnmatchedPreflights::Forward => false,
            UnmatchedPreflights::Ignore => true,
        },
    }
}

fn origin(pattern: &StringMatch, at: &Origin, field: &str, findings: &mut Findings) -> Option<OriginMatch> {
    let text = match (pattern.exact.as_deref(), pattern.prefix.as_deref(), pattern.regex.as_deref()) {
        (Some("*"), None, None) => return Some(OriginMatch::Any),
        (Some(text), None, None) => Ok(TextMatch::exact(text)),
        (None, Some(text), None) => Ok(TextMatch::prefix(text)),
        (None, None, Some(pattern)) => Regex::new(pattern).map(TextMatch::Regex).map_err(|error| error.to_string()),
        _ => Err("expected one of exact, prefix and regex".to_owned()),
    };
    match text {
        Ok(text) => Some(OriginMatch::Text(text)),
        Err(error) => {
            findings.add(Reason::Invalid, at, field, format!("{error}: no origin is allowed by it"));
            None
        }
    }
}

/// A header value of items with commas between them; `None` for no items.
pub(crate) fn list(items: &[String], at: &Origin, field: &str, findings: &mut Findings) -> Option<HeaderValue> {
    if items.is_empty() {
        return None;
    }
    let value = HeaderValue::from_str(&items.join(",")).ok();
    if value.is_none() {
        findings.add(Reason::Invalid, at, field, "invalid header value: the header is not sent");
    }
    value
}

#[cfg(test)]
#[path = "http_policy_tests.rs"]
mod tests;
