//! Conditions of a route on a request, joined by AND. It does not order routes; see `table`.

use http::HeaderName;
use serde::Serialize;
use serde_json::Value;

use crate::request::{Labels, Request};
use crate::text::{TextMatch, ValueMatch};
use crate::{PathMatch, serialise};

/// Condition on a header. Each line of the header is one value: `a: 1` twice is two, `a: 1,2` is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeaderMatch {
    #[serde(serialize_with = "serialise::name")]
    pub name: HeaderName,
    pub value: ValueMatch,
    /// True if no line may match; a request without the header then meets the condition.
    pub invert: bool,
}

impl HeaderMatch {
    fn is_met(&self, request: &Request<'_>) -> bool {
        request.header_lines(&self.name).any(|line| self.value.is_match(line)) != self.invert
    }
}

/// Condition on the first value of a query parameter, as it was sent. A request without the parameter does not meet it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueryMatch {
    pub name: String,
    pub value: ValueMatch,
}

impl QueryMatch {
    fn is_met(&self, request: &Request<'_>) -> bool {
        request.query_value(&self.name).is_some_and(|value| self.value.is_match(value.as_bytes()))
    }
}

/// Condition on a claim of the request's verified JWT: a string, or a list of which one element matches. Numbers, booleans
/// and a request without token do not meet it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimMatch {
    /// Names from the outermost claim to the innermost.
    pub path: Vec<String>,
    pub value: ValueMatch,
    /// True if the claim must not match.
    pub invert: bool,
}

impl ClaimMatch {
    fn is_met(&self, request: &Request<'_>) -> bool {
        let claim = request.claims.and_then(|claims| self.path.iter().try_fold(claims, |claim, name| claim.get(name)));
        let is_text = |value: &Value| value.as_str().is_some_and(|text| self.value.is_match(text.as_bytes()));
        let is_match = match claim {
            Some(Value::Array(items)) => items.iter().any(is_text),
            Some(value) => is_text(value),
            None => false,
        };
        is_match != self.invert
    }
}

/// Conditions of one route. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conditions {
    pub path: PathMatch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<TextMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<TextMatch>,
    /// On the authority with its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<TextMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QueryMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimMatch>,
    /// Labels that the client's pod has to have.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub source_labels: Labels,
    /// Namespace of the client's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<String>,
}

/// Condition that a request does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet<'a> {
    Path,
    Method,
    Scheme,
    Authority,
    SourceNamespace,
    SourceLabels,
    Header(&'a HeaderName),
    Query(&'a str),
    Claim(&'a [String]),
}

impl Conditions {
    /// Returns true if the request meets all conditions.
    pub fn is_met(&self, request: &Request<'_>) -> bool {
        self.unmet(request).is_none()
    }

    /// First condition that the request does not meet, the cheapest being tried first.
    pub fn unmet(&self, request: &Request<'_>) -> Option<Unmet<'_>> {
        let differs = |pattern: &Option<TextMatch>, value: &str| {
            pattern.as_ref().is_some_and(|pattern| !pattern.is_match(value.as_bytes()))
        };
        if differs(&self.method, request.method) {
            return Some(Unmet::Method);
        }
        if differs(&self.scheme, request.scheme) {
            return Some(Unmet::Scheme);
        }
        if differs(&self.authority, request.authority) {
            return Some(Unmet::Authority);
        }
        if self.source_namespace.as_deref().is_some_and(|namespace| request.source.namespace != Some(namespace)) {
            return Some(Unmet::SourceNamespace);
        }
        if !self.has_source_labels(request.source.labels) {
            return Some(Unmet::SourceLabels);
        }
        if !self.path.is_match(request.path()) {
            return Some(Unmet::Path);
        }
        if let Some(header) = self.headers.iter().find(|header| !header.is_met(request)) {
            return Some(Unmet::Header(&header.name));
        }
        if let Some(query) = self.query.iter().find(|query| !query.is_met(request)) {
            return Some(Unmet::Query(&query.name));
        }
        self.claims.iter().find(|claim| !claim.is_met(request)).map(|claim| Unmet::Claim(&claim.path))
    }

    fn has_source_labels(&self, labels: Option<&Labels>) -> bool {
        self.source_labels.is_empty()
            || labels.is_some_and(|labels| self.source_labels.iter().all(|(key, value)| labels.get(key) == Some(value)))
    }
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
