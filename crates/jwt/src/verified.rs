//! Content of a verified token, in the form that policies and routes compare.

use serde_json::Value;

use crate::JwtRule;
use crate::token::Token;

/// Claims that are lists separated by spaces (RFC 8693 section 4.2), in addition to those that a rule names.
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// A verified token. Its `Debug` shows no claims: they are personal data.
#[derive(Clone, PartialEq)]
pub struct Verified {
    /// `iss/sub`; `None` for a token without one of both.
    pub principal: Option<String>,
    pub audiences: Vec<String>,
    /// Claim `azp`.
    pub presenter: Option<String>,
    /// All claims, an object. Those that are lists separated by spaces are arrays.
    pub claims: Value,
    /// RequestAuthentication and rule that accepted it.
    pub rule: String,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl Verified {
    pub(crate) fn new(token: &Token<'_>, rule: &JwtRule) -> Self {
        let principal = match (&token.issuer, &token.subject) {
            (Some(issuer), Some(subject)) if !issuer.is_empty() && !subject.is_empty() => {
                Some(format!("{issuer}/{subject}"))
            }
            _ => None,
        };
        let presenter = token.claims.get("azp").and_then(Value::as_str).map(ToOwned::to_owned);
        let mut claims = token.claims.clone();
        let named = rule.space_delimited_claims.iter().map(String::as_str);
        for name in SPACE_DELIMITED.into_iter().chain(named) {
            if let Some(claim) = claims.get_mut(name)
                && let Value::String(text) = claim
            {
                *claim = text.split(' ').filter(|item| !item.is_empty()).map(Value::from).collect();
            }
        }
        Self { principal, audiences: token.audiences.clone(), presenter, claims, rule: rule.origin.clone() }
    }
}
