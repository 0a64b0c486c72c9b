//! Verification of a well-formed token by a rule and the keys of its issuer, in Envoy's order: issuer, time, audience,
//! signature. The answer to a token with several faults depends on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::token::Token;
use crate::{JwtRule, KeySet, TokenError};

/// Difference between the issuer's clock and ours that is tolerated, in seconds: Envoy's default.
const CLOCK_SKEW: u64 = 60;

/// Checks everything but the signature.
pub(crate) fn check_claims(token: &Token<'_>, rule: &JwtRule, now: SystemTime) -> Result<(), TokenError> {
    if !is_issuer(token, rule) {
        return Err(TokenError::UnknownIssuer);
    }
    // A clock before 1970 makes every token with a time invalid.
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    if token.not_before.is_some_and(|from| now.saturating_add(CLOCK_SKEW) < from) {
        return Err(TokenError::NotYetValid);
    }
    if token.expires.is_some_and(|until| now > until.saturating_add(CLOCK_SKEW)) {
        return Err(TokenError::Expired);
    }
    let is_for_us = |found: &String| rule.audiences.iter().any(|wanted| audience(wanted) == audience(found));
    if !rule.audiences.is_empty() && !token.audiences.iter().any(is_for_us) {
        return Err(TokenError::AudienceNotAllowed);
    }
    Ok(())
}

/// An audience without scheme and last slash, which Envoy does not compare (measured).
fn audience(text: &str) -> &str {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    text.strip_suffix('/').unwrap_or(text)
}

/// Returns true if the token says that it is of the rule's issuer.
pub(crate) fn is_issuer(token: &Token<'_>, rule: &JwtRule) -> bool {
    rule.issuer.as_ref().is_none_or(|issuer| token.issuer.as_ref() == Some(issuer))
}

/// Checks the signature with each key that it may be of. `None` stands for keys that could not be fetched.
pub(crate) fn check_signature(token: &Token<'_>, keys: Option<&KeySet>) -> Result<(), TokenError> {
    let keys = keys.ok_or(TokenError::NoMatchingKey)?;
    let mut result = Err(TokenError::NoMatchingKey);
    for key in keys.candidates(token.key_id.as_deref(), token.algorithm) {
        if key.verify_sig(token.signed, &token.signature).is_ok() {
            return Ok(());
        }
        result = Err(TokenError::BadSignature);
    }
    result
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
