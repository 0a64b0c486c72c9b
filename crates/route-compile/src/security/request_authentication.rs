//! RequestAuthentication to the rules by which a waypoint verifies tokens.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Uri};
use jwt::{ClaimHeader, HeaderLocation, JwtRule, KeyError, KeySource};
use kube_types::istio::{JwtRule as Declared, RequestAuthentication};
use route::Origin;

use super::target::References;
use super::{Attached, Settings, Target};
use crate::duration;
use crate::finding::{Findings, Reason};
use crate::world::origin;

/// Longest wait for keys where the rule names none, as in Istio.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers that say how a request is framed or routed: a claim must not write them.
const FRAMING: [HeaderName; 7] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, TRAILER, UPGRADE];

/// Consequence of a rule without keys.
const REFUSES: &str = "every token of the rule is refused";

/// Compiles a RequestAuthentication.
#[must_use]
pub fn request_authentication(settings: &Settings, object: &RequestAuthentication) -> Attached<Vec<JwtRule>> {
    let (meta, spec) = (&object.metadata, &object.spec);
    let at = origin("RequestAuthentication", meta);
    let mut findings = Findings::default();
    let references = References {
        selector: spec.selector.as_ref(),
        target_ref: spec.target_ref.as_ref(),
        target_refs: &spec.target_refs,
    };
    let targets = references.targets(settings, meta, &at, &mut findings);
    if targets.iter().any(|target| matches!(target, Target::Workloads { .. })) {
        let message = "node proxies verify no tokens: name a Service or a waypoint in targetRefs";
        findings.add(Reason::Ignored, &at, "spec", message);
    }
    let rules = spec.jwt_rules.iter().enumerate();
    let value = rules
        .map(|(index, rule)| {
            let at = at.at(format!("spec.jwtRules[{index}]"));
            let name = format!("{}/{} jwtRules[{index}]", meta.namespace, meta.name);
            Compiler { rule, at, findings: &mut findings }.compile(name)
        })
        .collect();
    Attached { value, targets, findings: findings.into_sorted() }
}

struct Compiler<'a> {
    rule: &'a Declared,
    at: Origin,
    findings: &'a mut Findings,
}

impl Compiler<'_> {
    fn compile(mut self, name: String) -> JwtRule {
        let rule = self.rule;
        let keys = self.keys();
        let (from_headers, has_places) = self.places();
        let keys = if has_places { keys } else { KeySource::Unusable { reason: "no place for tokens".to_owned() } };
        if !rule.from_cookies.is_empty() && !rule.forward_original_token {
            let message = "the destination gets the cookie with the token, as from Istio's proxies";
            self.add(Reason::Ignored, "forwardOriginalToken", message);
        }
        if rule.issuer == "*" {
            let message = "* is not a pattern: only tokens whose issuer is this text are accepted";
            self.add(Reason::Unsupported, "issuer", message);
        }
        JwtRule {
            origin: name,
            issuer: (!rule.issuer.is_empty()).then(|| rule.issuer.clone()),
            audiences: rule.audiences.clone(),
            keys,
            from_headers,
            from_params: rule.from_params.clone(),
            from_cookies: rule.from_cookies.clone(),
            forward_original_token: rule.forward_original_token,
            output_payload_header: self.payload_header(),
            output_claims: self.output_claims(),
            space_delimited_claims: rule.space_delimited_claims.clone(),
        }
    }

    fn add(&mut self, reason: Reason, field: &str, message: impl Into<String>) {
        self.findings.add(reason, &self.at, field, message);
    }

    fn keys(&mut self) -> KeySource {
        let Declared { jwks, jwks_uri, issuer, .. } = self.rule;
        let timeout = self.timeout();
        if !jwks.is_empty() {
            if !jwks_uri.is_empty() {
                self.add(Reason::Ignored, "jwksUri", "jwks is given: it is used instead");
            }
            return self.inline(jwks);
        }
        if !jwks_uri.is_empty() {
            return match web_address(jwks_uri) {
                Ok(()) => KeySource::Uri { uri: jwks_uri.clone(), timeout },
                Err(expected) => self.unusable("jwksUri", &format!("invalid address {jwks_uri:?}: {expected}")),
            };
        }
        if issuer.is_empty() {
            return self.unusable("issuer", "expected an issuer, jwks or jwksUri");
        }
        match web_address(issuer) {
            Ok(()) => KeySource::Discovery { issuer: issuer.clone(), timeout },
            Err(expected) => {
                let message =
                    format!("without jwks and jwksUri the issuer names its keys, and {issuer:?} cannot: {expected}");
                self.unusable("issuer", &message)
            }
        }
    }

    fn inline(&mut self, jwks: &str) -> KeySource {
        match jwt::public_part(jwks.as_bytes()) {
            Ok((jwks, refused)) => {
                for (index, error) in refused {
                    let reason = key_reason(&error);
                    self.add(reason, "jwks", format!("keys[{index}]: {error}; the key is not used"));
                }
                KeySource::Inline { jwks }
            }
            Err(error) => self.unusable("jwks", &error.to_string()),
        }
    }

    fn unusable(&mut self, field: &str, message: &str) -> KeySource {
        self.add(Reason::Invalid, field, format!("{message}; {REFUSES}"));
        KeySource::Unusable { reason: message.to_owned() }
    }

    fn timeout(&mut self) -> Duration {
        let Some(text) = &self.rule.timeout else { return DEFAULT_TIMEOUT };
        match duration::parse(text).filter(|timeout| !timeout.is_zero()) {
            Some(timeout) => timeout,
            None => {
                let message = format!("invalid duration {text:?}: expected one as 5s; {DEFAULT_TIMEOUT:?} is used");
                self.add(Reason::Invalid, "timeout", message);
                DEFAULT_TIMEOUT
            }
        }
    }

    /// Headers that tokens may be in, and whether there is any place at all: a rule of invalid headers only must not fall
    /// back to the default places.
    fn places(&mut self) -> (Vec<HeaderLocation>, bool) {
        let rule = self.rule;
        let mut headers = Vec::new();
        for (index, header) in rule.from_headers.iter().enumerate() {
            match header.name.parse() {
                Ok(name) => headers.push(HeaderLocation { name, prefix: header.prefix.clone() }),
                Err(_) => {
                    let message = format!("invalid header name {:?}: no token is looked for there", header.name);
                    self.add(Reason::Invalid, &format!("fromHeaders[{index}].name"), message);
                }
            }
        }
        let has_others = !rule.from_params.is_empty() || !rule.from_cookies.is_empty();
        let has_places = rule.from_headers.is_empty() || !headers.is_empty() || has_others;
        (headers, has_places)
    }

    fn payload_header(&mut self) -> Option<HeaderName> {
        let name = &self.rule.output_payload_to_header;
        if name.is_empty() { None } else { self.output_header("outputPayloadToHeader", name) }
    }

    fn output_claims(&mut self) -> Vec<ClaimHeader> {
        let mut outputs = Vec::new();
        for (index, output) in self.rule.output_claim_to_headers.iter().enumerate() {
            let field = format!("outputClaimToHeaders[{index}]");
            let claim: Vec<_> = output.claim.split('.').map(str::to_owned).collect();
            if claim.iter().any(String::is_empty) {
                let message =
                    format!("invalid claim {:?}: expected names joined by dots; no header is set", output.claim);
                self.add(Reason::Invalid, &format!("{field}.claim"), message);
                continue;
            }
            if let Some(header) = self.output_header(&format!("{field}.header"), &output.header) {
                outputs.push(ClaimHeader { header, claim });
            }
        }
        outputs
    }

    fn output_header(&mut self, field: &str, name: &str) -> Option<HeaderName> {
        let message = match name.parse::<HeaderName>() {
            Ok(name) if !FRAMING.contains(&name) => return Some(name),
            Ok(_) => format!("header {name:?} says how a request is framed or routed: it is not set"),
            Err(_) => format!("invalid header name {name:?}: no header is set"),
        };
        self.add(Reason::Invalid, field, message);
        None
    }
}

/// Checks that a document can be fetched from an address.
fn web_address(text: &str) -> Result<(), &'static str> {
    let is_web = text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if is_web { Ok(()) } else { Err("expected https://HOST/PATH or http://HOST/PATH") }
}

const fn key_reason(error: &KeyError) -> Reason {
    match error {
        KeyError::Type(_) | KeyError::Curve(_) | KeyError::Algorithm(_) | KeyError::Symmetric => Reason::Unsupported,
        KeyError::NotAnObject
        | KeyError::NotText(_)
        | KeyError::Base64(_)
        | KeyError::Private(_)
        | KeyError::Use
        | KeyError::RsaBits(_)
        | KeyError::Invalid => Reason::Invalid,
    }
}

#[cfg(test)]
#[path = "request_authentication_tests.rs"]
mod tests;
