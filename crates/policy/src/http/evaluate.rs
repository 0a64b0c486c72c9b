//! Does a rule hold for a request? Nothing else: what that means is in `decide`.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{ServiceAccountMatch, StringMatch};
use serde_json::Value;

use super::{
    Action, Authentication, Condition, Http, HttpPolicy, Operation, Request, Rule, Source, Token, Truth, Values,
};

/// A field of a rule, compared with a request.
pub(super) struct Field<'a> {
    pub(super) name: &'static str,
    pub(super) truth: Truth,
    /// Values of the field.
    pub(super) wanted: &'a dyn fmt::Display,
}

/// First rule that holds, by its place in the policy, and whether it is certain that it does: a rule that holds is preferred
/// to one that cannot be evaluated. ALLOW policies are matched by certain ones only.
pub(super) fn matching_rule(policy: &HttpPolicy, request: &Request<'_>) -> Option<(usize, bool)> {
    let is_allow = policy.action == Action::Allow;
    let mut unknown = None;
    for (index, rule) in policy.rules.iter().enumerate() {
        match rule_holds(rule, is_allow, request) {
            Truth::Yes => return Some((index, true)),
            Truth::Unknown if !is_allow && unknown.is_none() => unknown = Some((index, false)),
            Truth::Unknown | Truth::No => {}
        }
    }
    unknown
}

/// Evaluates a rule.
///
/// On a TCP connection, attributes of requests are unknown; an ALLOW rule that has one anywhere never holds there, as in
/// Istio.
pub(super) fn rule_holds(rule: &Rule, is_allow: bool, request: &Request<'_>) -> Truth {
    if is_allow && request.http.is_none() && rule.asks_for_http() {
        return Truth::Unknown;
    }
    let from = Truth::any_or_empty(&rule.from, |source| source_holds(source, request));
    if from == Truth::No {
        return Truth::No;
    }
    let to = Truth::any_or_empty(&rule.to, |operation| operation_holds(operation, request));
    Truth::all([from, to].into_iter().chain(rule.when.iter().map(|condition| condition_holds(condition, request))))
}

fn source_holds(source: &Source, request: &Request<'_>) -> Truth {
    // A source without fields says nothing about anybody: it is invalid.
    if *source == Source::default() {
        return Truth::Unknown;
    }
    Truth::all(source_fields(source, request).into_iter().map(|field| field.truth))
}

fn operation_holds(operation: &Operation, request: &Request<'_>) -> Truth {
    if *operation == Operation::default() {
        return Truth::Unknown;
    }
    Truth::all(operation_fields(operation, request).into_iter().map(|field| field.truth))
}

pub(super) fn source_fields<'a>(source: &'a Source, request: &Request<'_>) -> [Field<'a>; 7] {
    let field = |name, truth, wanted| Field { name, truth, wanted };
    [
        field("principals", principal(&source.principals, request), &source.principals),
        field(
            "requestPrincipals",
            with_token(&source.request_principals, request, principal_of_token),
            &source.request_principals,
        ),
        field("namespaces", namespace(&source.namespaces, request), &source.namespaces),
        field("serviceAccounts", service_account(&source.service_accounts, request), &source.service_accounts),
        field("trustDomains", trust_domain(&source.trust_domains, request), &source.trust_domains),
        field("ipBlocks", address(&source.ip_blocks, request.source), &source.ip_blocks),
        field("remoteIpBlocks", address(&source.remote_ip_blocks, request.remote), &source.remote_ip_blocks),
    ]
}

pub(super) fn operation_fields<'a>(operation: &'a Operation, request: &Request<'_>) -> [Field<'a>; 4] {
    let field = |name, truth, wanted| Field { name, truth, wanted };
    let Operation { hosts, ports, methods, paths } = operation;
    let port = request.destination.port();
    [
        field("hosts", with_http(hosts, request, |host, http| matches_any_case(host, http.authority)), hosts),
        field("ports", ports.test(|wanted| *wanted == port), ports),
        field("methods", with_http(methods, request, |method, http| method.matches(http.method)), methods),
        field("paths", with_http(paths, request, |path, http| path.is_match(http.path)), paths),
    ]
}

pub(super) fn condition_holds(condition: &Condition, request: &Request<'_>) -> Truth {
    // As a source without fields: no value is asked for.
    if condition.is_empty() {
        return Truth::Unknown;
    }
    match condition {
        Condition::SourceIp(values) => address(values, request.source),
        Condition::RemoteIp(values) => address(values, request.remote),
        Condition::SourceNamespace(values) => namespace(values, request),
        Condition::SourcePrincipal(values) => principal(values, request),
        Condition::SourceServiceAccount(values) => service_account(values, request),
        Condition::SourceTrustDomain(values) => trust_domain(values, request),
        Condition::DestinationIp(values) => address(values, request.destination.ip()),
        Condition::DestinationPort(values) => values.test(|port| *port == request.destination.port()),
        Condition::ConnectionSni(values) => values.test(|name| name.matches(request.sni.unwrap_or_default())),
        Condition::RequestPrincipal(values) => with_token(values, request, principal_of_token),
        Condition::RequestAudiences(values) => {
            with_token(values, request, |wanted, token| token.audiences.iter().any(|audience| wanted.matches(audience)))
        }
        Condition::RequestPresenter(values) => {
            with_token(values, request, |wanted, token| token.presenter.is_some_and(|found| wanted.matches(found)))
        }
        Condition::RequestHeader { name, values } => with_http(values, request, |wanted, http| {
            http.headers.get_all(name).iter().any(|line| matches_bytes(wanted, line.as_bytes()))
        }),
        Condition::RequestClaim { path, values } => {
            with_token(values, request, |wanted, token| claim_matches(wanted, path, token.claims))
        }
        Condition::Unsupported { .. } => Truth::Unknown,
    }
}

impl Rule {
    /// Returns true if the rule has an attribute that only requests have.
    pub(super) fn asks_for_http(&self) -> bool {
        self.from.iter().any(|source| !source.request_principals.is_empty())
            || self.to.iter().any(|to| !(to.hosts.is_empty() && to.methods.is_empty() && to.paths.is_empty()))
            || self.when.iter().any(Condition::asks_for_http)
    }
}

impl Condition {
    const fn asks_for_http(&self) -> bool {
        match self {
            Self::RequestPrincipal(_)
            | Self::RequestAudiences(_)
            | Self::RequestPresenter(_)
            | Self::RequestHeader { .. }
            | Self::RequestClaim { .. }
            | Self::Unsupported { .. } => true,
            Self::SourceIp(_)
            | Self::RemoteIp(_)
            | Self::SourceNamespace(_)
            | Self::SourcePrincipal(_)
            | Self::SourceServiceAccount(_)
            | Self::SourceTrustDomain(_)
            | Self::DestinationIp(_)
            | Self::DestinationPort(_)
            | Self::ConnectionSni(_) => false,
        }
    }
}

fn with_http<T>(values: &Values<T>, request: &Request<'_>, is_match: impl Fn(&T, &Http<'_>) -> bool) -> Truth {
    match &request.http {
        Some(http) => values.test(|value| is_match(value, http)),
        None => values.test_unknown(),
    }
}

fn with_token<T>(values: &Values<T>, request: &Request<'_>, is_match: impl Fn(&T, &Token<'_>) -> bool) -> Truth {
    match request.http.map(|http| http.authentication) {
        Some(Authentication::Token(token)) => values.test(|value| is_match(value, &token)),
        Some(Authentication::NoToken) => values.test(|_| false),
        Some(Authentication::Pending) | None => values.test_unknown(),
    }
}

fn principal_of_token(wanted: &StringMatch, token: &Token<'_>) -> bool {
    token.principal.is_some_and(|found| wanted.matches(found))
}

fn principal(values: &Values<StringMatch>, request: &Request<'_>) -> Truth {
    let found = request.identity.map_or("", |identity| identity.principal());
    values.test(|wanted| wanted.matches(found))
}

fn namespace(values: &Values<StringMatch>, request: &Request<'_>) -> Truth {
    let found = request.identity.map_or("", |identity| identity.namespace());
    values.test(|wanted| wanted.matches(found))
}

fn trust_domain(values: &Values<StringMatch>, request: &Request<'_>) -> Truth {
    let found = request.identity.map_or("", |identity| identity.trust_domain());
    values.test(|wanted| wanted.matches(found))
}

fn service_account(values: &Values<ServiceAccountMatch>, request: &Request<'_>) -> Truth {
    values.test(|wanted| {
        request.identity.is_some_and(|found| {
            wanted.namespace == found.namespace() && wanted.service_account == found.service_account()
        })
    })
}

fn address(values: &Values<IpNet>, found: IpAddr) -> Truth {
    // A socket of both families has IPv4 clients as mapped addresses, which no block of a policy is written in.
    let found = found.to_canonical();
    values.test(|block| block.contains(&found))
}

/// Compares without regard to the case of ASCII letters.
pub(super) fn matches_any_case(wanted: &StringMatch, found: &str) -> bool {
    let (found, same) = (found.as_bytes(), |a: &[u8], b: &str| a.eq_ignore_ascii_case(b.as_bytes()));
    match wanted {
        StringMatch::Exact(text) => same(found, text),
        StringMatch::Prefix(text) => found.get(..text.len()).is_some_and(|begin| same(begin, text)),
        StringMatch::Suffix(text) => found.len().checked_sub(text.len()).is_some_and(|at| same(&found[at..], text)),
        StringMatch::Presence() => !found.is_empty(),
    }
}

/// Compares a line of a header, which need not be UTF-8. A line is present also when it is empty, as Envoy has it.
fn matches_bytes(wanted: &StringMatch, found: &[u8]) -> bool {
    match wanted {
        StringMatch::Exact(text) => found == text.as_bytes(),
        StringMatch::Prefix(text) => found.starts_with(text.as_bytes()),
        StringMatch::Suffix(text) => found.ends_with(text.as_bytes()),
        StringMatch::Presence() => true,
    }
}

fn claim_matches(wanted: &StringMatch, path: &[String], claims: &Value) -> bool {
    let claim = path.iter().try_fold(claims, |claim, name| claim.get(name));
    let is_text = |value: &Value| value.as_str().is_some_and(|text| wanted.matches(text));
    match claim {
        Some(Value::Array(items)) => items.iter().any(is_text),
        Some(value) => is_text(value),
        None => false,
    }
}
