//! HTTPRoutes to routes.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use kube_types::gateway::{
    HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, NamedMatch, PathMatchType, TextMatchType,
};
use route::retry::{RetryOn, RetryPolicy};
use route::{
    Action, Conditions, Forward, HeaderMatch, Origin, PathMatch, PathRewrite, QueryMatch, Regex, Route, Rule, Target,
    TextMatch, ValueMatch, Weighted,
};

use super::backends::{Reference, complete};
use super::filters::{self, Filters};
use super::precedence::{Key, sort};
use super::{hostnames, refused, with_origins};
use crate::finding::{Findings, Reason};
use crate::http_policy::time;
use crate::world::{Place, World, origin};

pub(super) const KIND: &str = "HTTPRoute";

pub(super) fn routes(world: &World, place: Place<'_>, of: &[&HttpRoute], findings: &mut Findings) -> Vec<Route> {
    let everything = HttpRouteMatch::default();
    let mut routes = Vec::new();
    for object in of {
        let at = origin(KIND, &object.metadata);
        hostnames(&object.spec.hostnames, &at, findings);
        for (index, of) in object.spec.rules.iter().enumerate() {
            let at = at.at(format!("spec.rules[{index}]"));
            let rule = Arc::new(rule(world, place, of, &at, findings));
            for (position, (at, of)) in with_origins(&of.matches, &everything, &at).into_iter().enumerate() {
                let Some(conditions) = conditions(of, &at, findings) else { continue };
                let route = Route { origin: at, name: rule.name.clone(), conditions, rule: Arc::clone(&rule) };
                routes.push((Key::http(&route, &object.metadata, index, position), route));
            }
        }
    }
    sort(routes)
}

/// Conditions of a match; `None`, with a finding, if it never matches.
fn conditions(of: &HttpRouteMatch, at: &Origin, findings: &mut Findings) -> Option<Conditions> {
    let path = of.path.as_ref().map_or(Ok(PathMatch::Any), path_match);
    let path = never(path, at, "path", findings);
    let headers = headers(&of.headers, at, findings);
    let mut query: Option<Vec<QueryMatch>> = Some(Vec::new());
    for (index, of) in of.query_params.iter().enumerate() {
        let value = never(value(of), at, &format!("queryParams[{index}]"), findings);
        let earlier = query.as_ref().is_some_and(|query| query.iter().any(|earlier| earlier.name == of.name));
        query = match (query, value) {
            // The first of a name counts.
            (Some(query), Some(_)) if earlier => Some(query),
            (Some(mut query), Some(value)) => {
                query.push(QueryMatch { name: of.name.clone(), value });
                Some(query)
            }
            _ => None,
        };
    }
    let method = of.method.as_deref().map(TextMatch::exact);
    Some(Conditions { path: path?, method, headers: headers?, query: query?, ..Conditions::default() })
}

fn path_match(of: &HttpPathMatch) -> Result<PathMatch, String> {
    let value = of.value.as_deref().unwrap_or("/");
    let kind = of.r#type.unwrap_or_default();
    if kind != PathMatchType::RegularExpression && !value.starts_with('/') {
        return Err(format!("path {value:?} does not begin with a slash"));
    }
    Ok(match kind {
        PathMatchType::Exact => PathMatch::Exact(value.to_owned()),
        PathMatchType::PathPrefix => PathMatch::elements(value),
        PathMatchType::RegularExpression => PathMatch::Regex(Regex::new(value).map_err(|error| error.to_string())?),
    })
}

/// Conditions on headers, of which the first of a name counts; `None`, with a finding, if they never match.
pub(super) fn headers(of: &[NamedMatch], at: &Origin, findings: &mut Findings) -> Option<Vec<HeaderMatch>> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    let mut is_valid = true;
    for (index, of) in of.iter().enumerate() {
        let name = HeaderName::from_bytes(of.name.as_bytes()).map_err(|_| "invalid header name".to_owned());
        let header = name.and_then(|name| Ok(HeaderMatch { name, value: value(of)?, invert: false }));
        match never(header, at, &format!("headers[{index}]"), findings) {
            Some(header) if headers.iter().any(|earlier| earlier.name == header.name) => {}
            Some(header) => headers.push(header),
            None => is_valid = false,
        }
    }
    is_valid.then_some(headers)
}

fn value(of: &NamedMatch) -> Result<ValueMatch, String> {
    Ok(ValueMatch::Text(match of.r#type.unwrap_or_default() {
        TextMatchType::Exact => TextMatch::exact(&of.value),
        TextMatchType::RegularExpression => TextMatch::Regex(Regex::new(&of.value).map_err(|error| error.to_string())?),
    }))
}

pub(super) fn never<T>(compiled: Result<T, String>, at: &Origin, field: &str, findings: &mut Findings) -> Option<T> {
    let report = |error: String| findings.add(Reason::Invalid, at, field, format!("{error}: the match never matches"));
    compiled.map_err(report).ok()
}

fn rule(world: &World, place: Place<'_>, of: &HttpRouteRule, at: &Origin, findings: &mut Findings) -> Rule {
    let mut filters = filters::http(world, place, &of.filters, at, findings);
    if of.session_persistence.is_some() {
        let message = "sessions are not kept: each request goes to any endpoint";
        findings.add(Reason::Unsupported, at, "sessionPersistence", message);
    }
    if needs_prefix(&filters) && !matches_prefix(of) {
        let message = "ReplacePrefixMatch needs a match of type PathPrefix: requests that match are answered with 500";
        findings.add(Reason::Invalid, at, "filters", message);
        filters.is_refused = true;
    }
    let action = match (filters.is_refused, filters.redirect.take()) {
        (true, _) => refused(),
        (false, Some(redirect)) => Action::Redirect(redirect),
        (false, None) => Action::Forward(forward(world, place, of, &mut filters, at, findings)),
    };
    Rule {
        origin: at.clone(),
        name: of.name.clone().unwrap_or_default(),
        fault: None,
        cors: filters.cors,
        action,
        request_headers: filters.request,
        response_headers: filters.response,
    }
}

fn needs_prefix(filters: &Filters) -> bool {
    let redirect = filters.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
    let is_elements = |rewrite: &PathRewrite| matches!(rewrite, PathRewrite::Elements(_));
    filters.path.as_ref().is_some_and(is_elements)
        || matches!(redirect, Some(route::RedirectPath::Rewrite(rewrite)) if is_elements(rewrite))
}

fn matches_prefix(of: &HttpRouteRule) -> bool {
    let is_prefix = |of: &HttpRouteMatch| {
        of.path.as_ref().is_none_or(|path| path.r#type.unwrap_or_default() == PathMatchType::PathPrefix)
    };
    of.matches.iter().all(is_prefix)
}

fn forward(
    world: &World,
    place: Place<'_>,
    of: &HttpRouteRule,
    filters: &mut Filters,
    at: &Origin,
    findings: &mut Findings,
) -> Forward {
    let mut destinations = Vec::new();
    for (index, of) in of.backend_refs.iter().enumerate() {
        let at = at.at(format!("{}.backendRefs[{index}]", at.field));
        let weighted = Reference::from(of).weighted(world, &at, findings);
        let filters = filters::http(world, place, &of.filters, &at, findings);
        destinations.push(with_filters(weighted, filters, &at, findings));
    }
    let destinations = complete(destinations);
    let default = world.default_retry(place, &destinations);
    let (timeout, retry) = times(of, default, at, findings);
    Forward {
        destinations,
        path: filters.path.take(),
        authority: filters.authority.take(),
        timeout,
        retry: Some(retry),
        mirrors: std::mem::take(&mut filters.mirrors),
    }
}

/// Applies filters of a backend: header changes and a host name; others hold for whole rules only.
pub(super) fn with_filters(weighted: Weighted, filters: Filters, at: &Origin, findings: &mut Findings) -> Weighted {
    let is_rule_filter =
        filters.redirect.is_some() || filters.path.is_some() || filters.cors.is_some() || !filters.mirrors.is_empty();
    if is_rule_filter {
        let message = "only header modifiers are supported for a single backend: its share is answered with 500";
        findings.add(Reason::Unsupported, at, "filters", message);
    }
    let target = if filters.is_refused || is_rule_filter { Target::Invalid } else { weighted.target };
    Weighted {
        target,
        weight: weighted.weight,
        request_headers: filters.request,
        response_headers: filters.response,
        authority: filters.authority,
    }
}

/// Time for the whole request, and retries. `backendRequest` limits each try; where a rule has no `retry` it limits the
/// request, as in Istio.
fn times(
    of: &HttpRouteRule,
    default: RetryPolicy,
    at: &Origin,
    findings: &mut Findings,
) -> (Option<Duration>, RetryPolicy) {
    let timeouts = of.timeouts.clone().unwrap_or_default();
    let mut read = |text: Option<&str>, field: &str, instead: &str| {
        text.and_then(|text| time(text, at, field, instead, findings)).filter(|time| !time.is_zero())
    };
    let request = read(timeouts.request.as_deref(), "timeouts.request", "there is no time limit");
    let backend = read(timeouts.backend_request.as_deref(), "timeouts.backendRequest", "attempts have no time limit");
    let Some(retry) = &of.retry else { return (backend.or(request), default) };
    let base = read(retry.backoff.as_deref(), "retry.backoff", "25ms are used");
    (request, retry_policy(retry, default, backend, base))
}

fn retry_policy(
    of: &HttpRouteRetry,
    default: RetryPolicy,
    per_try_timeout: Option<Duration>,
    base: Option<Duration>,
) -> RetryPolicy {
    let on = RetryOn::new(default.on.conditions(), &of.codes);
    let attempts = of.attempts.map_or(default.attempts, |attempts| u32::try_from(attempts).unwrap_or_default());
    RetryPolicy { attempts, on, per_try_timeout, base_pause: base.unwrap_or(default.base_pause), ..default }
}
