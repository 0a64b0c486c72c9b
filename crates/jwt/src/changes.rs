//! Changes of a request once its tokens are verified: tokens that the destination does not get, and headers with what they
//! say. Headers of these names that the client sent are removed from every request, or it could forge them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::JwtRule;
use crate::location::Location;
use crate::token::Token;

/// Changes of a request. Removals come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestChanges {
    /// Headers to remove, every line of them.
    pub remove_headers: Vec<HeaderName>,
    /// Query parameters to remove; see [`without_params`].
    pub remove_params: Vec<String>,
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
}

impl RequestChanges {
    /// Removal of all headers that the rules set.
    pub(crate) fn stripped<'a>(rules: impl Iterator<Item = &'a JwtRule>) -> Self {
        let mut remove_headers: Vec<HeaderName> = Vec::new();
        for rule in rules {
            let claims = rule.output_claims.iter().map(|claim| &claim.header);
            for name in rule.output_payload_header.iter().chain(claims) {
                if !remove_headers.contains(name) {
                    remove_headers.push(name.clone());
                }
            }
        }
        Self { remove_headers, ..Self::default() }
    }

    /// Adds what a rule does about its token.
    pub(crate) fn accept(&mut self, rule: &JwtRule, token: &Token<'_>) {
        let payload = rule.output_payload_header.iter().map(|name| (name, token.payload.to_owned()));
        let claims = rule.output_claims.iter().filter_map(|output| {
            let claim = output.claim.iter().try_fold(&token.claims, |claim, name| claim.get(name))?;
            Some((&output.header, claim_text(claim)?))
        });
        for (name, text) in payload.chain(claims) {
            // A claim with a line break is no header value: it would begin another header.
            if let Ok(value) = HeaderValue::from_str(&text) {
                self.set_headers.push((name.clone(), value));
            }
        }
    }

    /// Adds the removal of a rule's token. A cookie stays, as with Envoy.
    pub(crate) fn remove_token(&mut self, location: Location<'_>) {
        match location {
            Location::Header { name, .. } if !self.remove_headers.contains(name) => {
                self.remove_headers.push(name.clone());
            }
            Location::Param(name) if !self.remove_params.iter().any(|of| of == name) => {
                self.remove_params.push(name.to_owned());
            }
            Location::Header { .. } | Location::Param(_) | Location::Cookie(_) => {}
        }
    }

    /// Applies the changes of headers. A map that is full (32,768 lines) keeps what it has.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove_headers {
            headers.remove(name);
        }
        for (name, value) in &self.set_headers {
            // An error means that the map is full.
            let _ = headers.try_insert(name.clone(), value.clone());
        }
    }
}

/// Path and query without the parameters of these names. `None`: nothing changes.
#[must_use]
pub fn without_params(target: &str, names: &[String]) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    let is_kept = |pair: &&str| {
        let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name).unwrap_or_default();
        !names.iter().any(|of| *of == name)
    };
    let kept: Vec<_> = query.split('&').filter(is_kept).collect();
    if kept.len() == query.split('&').count() {
        return None;
    }
    Some(if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) })
}

/// Text of a claim in a header, as Envoy 1.40 writes it (measured): lists and objects as JSON in base64 with padding. `None`
/// for null and for an empty text.
fn claim_text(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) if value.is_f64() => Some(format!("{:.6}", value.as_f64().unwrap_or_default())),
        Value::Number(value) => Some(value.to_string()),
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Array(_) | Value::Object(_) => Some(STANDARD.encode(claim.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_the_names_are_removed() {
        let names = ["access_token".to_owned()];
        for (target, expected) in [
            ("/a?access_token=x", Some("/a")),
            ("/a?b=1&access_token=x&c=%20", Some("/a?b=1&c=%20")),
            ("/a?access%5Ftoken=x&b", Some("/a?b")),
            ("/a?access_token=x&access_token=y", Some("/a")),
            ("/a?access_tokens=x", None),
            ("/a", None),
            ("/a?", None),
        ] {
            assert_eq!(without_params(target, &names).as_deref(), expected, "{target}");
        }
    }
}
