//! Names and values of headers, checked, and changes of headers.

use http::{HeaderName, HeaderValue};
use kube_types::StringMap;
use kube_types::istio::{HeaderOperations, Headers};
use route::{HeaderChanges, Origin};

use crate::finding::{Findings, Reason};

/// Changes of requests and of answers, and the authority that requests get.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) request: HeaderChanges,
    pub(crate) response: HeaderChanges,
    pub(crate) authority: Option<String>,
}

/// Compiles the changes of a VirtualService's rule or destination; `at` is their field.
pub(crate) fn changes(headers: &Headers, at: &Origin, findings: &mut Findings) -> Changes {
    let mut changes = Changes::default();
    for (operations, field, is_request) in [(&headers.request, "request", true), (&headers.response, "response", false)]
    {
        let Some(operations) = operations else { continue };
        let at = at.at(format!("{}.{field}", at.field));
        let compiled = operation_lists(operations, is_request, &at, &mut changes.authority, findings);
        if is_request {
            changes.request = compiled;
        } else {
            changes.response = compiled;
        }
    }
    changes
}

fn operation_lists(
    operations: &HeaderOperations,
    is_request: bool,
    at: &Origin,
    authority: &mut Option<String>,
    findings: &mut Findings,
) -> HeaderChanges {
    let mut compiled = HeaderChanges { remove: removals(&operations.remove, at, findings), ..HeaderChanges::default() };
    let mut lines = |map: &StringMap, field: &str, findings: &mut Findings| {
        let mut lines = Vec::new();
        for (name, value) in map {
            let path = format!("{field}[{name:?}]");
            if is_request && is_authority(name) {
                if authority.replace(value.clone()).is_some() {
                    findings.add(Reason::Invalid, at, &path, "the authority is set twice: this value is used");
                }
            } else {
                lines.extend(line(name, &unescape(value, at, &path, findings), at, &path, findings));
            }
        }
        lines
    };
    compiled.set = lines(&operations.set, "set", findings);
    compiled.add = lines(&operations.add, "add", findings);
    compiled
}

/// Headers that are removed. The authority and other pseudo-headers cannot be.
pub(crate) fn removals(names: &[String], at: &Origin, findings: &mut Findings) -> Vec<HeaderName> {
    let mut removed = Vec::new();
    for (index, text) in names.iter().enumerate() {
        let path = format!("remove[{index}]");
        if is_authority(text) || text.starts_with(':') {
            findings.add(Reason::Ignored, at, &path, format!("{text:?} cannot be removed: it stays"));
        } else {
            removed.extend(name(text, at, &path, findings));
        }
    }
    removed
}

/// A header line; `None` with a finding if name or value cannot be sent.
pub(crate) fn line(
    text: &str,
    value: &str,
    at: &Origin,
    path: &str,
    findings: &mut Findings,
) -> Option<(HeaderName, HeaderValue)> {
    let name = name(text, at, path, findings)?;
    match HeaderValue::from_str(value) {
        Ok(value) => Some((name, value)),
        Err(_) => {
            findings.add(Reason::Invalid, at, path, "invalid header value: the header is not changed");
            None
        }
    }
}

fn name(text: &str, at: &Origin, path: &str, findings: &mut Findings) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        findings.add(Reason::Invalid, at, path, format!("invalid header name {text:?}: the header is not changed"));
    }
    name
}

/// Returns true for the two names of the authority, which is rewritten and not a header.
pub(crate) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}

/// Envoy replaces commands as `%DOWNSTREAM_REMOTE_ADDRESS%` in values, and `%%` by one.
fn unescape(value: &str, at: &Origin, path: &str, findings: &mut Findings) -> String {
    let plain = value.replace("%%", "\0");
    let is_command = plain.split('%').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
    if is_command {
        let message = "Envoy's commands are not replaced: the value is sent as it is written";
        findings.add(Reason::Unsupported, at, path, message);
    }
    plain.replace('\0', "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(headers: serde_json::Value) -> (Changes, Vec<String>) {
        let mut findings = Findings::default();
        let at = Origin { kind: "VirtualService", namespace: "n".into(), name: "v".into(), field: "headers".into() };
        let changes = changes(&serde_json::from_value(headers).unwrap(), &at, &mut findings);
        (
            changes,
            findings
                .into_sorted()
                .iter()
                .map(|finding| format!("{} {}", finding.origin.field, finding.reason.code()))
                .collect(),
        )
    }

    #[test]
    fn the_authority_is_no_header() {
        let (changes, findings) = compile(serde_json::json!({
            "request": {"set": {"Host": "other", "x-a": "1"}, "add": {"x-b": "2"}, "remove": ["x-c"]},
            "response": {"set": {"host": "kept"}}
        }));
        assert_eq!(changes.authority.as_deref(), Some("other"));
        assert_eq!((changes.request.set.len(), changes.request.add.len(), changes.request.remove.len()), (1, 1, 1));
        assert_eq!(changes.response.set.len(), 1, "an answer has no authority");
        assert!(findings.is_empty(), "{findings:?}");
    }

    #[test]
    fn a_change_that_cannot_be_made_is_reported() {
        let (changes, findings) = compile(serde_json::json!({
            "request": {
                "set": {"bad name": "1", "x-ip": "%DOWNSTREAM_REMOTE_ADDRESS%", "x-share": "100%%", "host": "a"},
                "add": {":authority": "b", "x-nl": "a\nb"},
                "remove": ["host", ":path", "no good"]
            }
        }));
        assert_eq!(changes.authority.as_deref(), Some("b"));
        let set: Vec<_> = changes.request.set.iter().map(|(_, value)| value.to_str().unwrap()).collect();
        assert_eq!(set, ["%DOWNSTREAM_REMOTE_ADDRESS%", "100%"]);
        assert_eq!(
            findings,
            [
                "headers.request.add[\":authority\"] invalid_value",
                "headers.request.add[\"x-nl\"] invalid_value",
                "headers.request.remove[0] ignored",
                "headers.request.remove[1] ignored",
                "headers.request.remove[2] invalid_value",
                "headers.request.set[\"bad name\"] invalid_value",
                "headers.request.set[\"x-ip\"] unsupported",
            ]
        );
    }
}
