//! The rules that are for a request to one answer: who sent it, nobody, or a refusal.
//!
//! As Istio configures Envoy: one rule all of whose tokens are valid is enough, whatever is elsewhere in the request. If there
//! is none, each token of the request has to be valid by the rule of its issuer: a request without token passes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use crate::changes::RequestChanges;
use crate::location::{Location, Parts, locations};
use crate::remote::{KeyStore, RemoteKeys};
use crate::token::Token;
use crate::verify::{check_claims, check_signature, is_issuer};
use crate::{JwtRule, KeySet, KeySource, TokenError, Verified};

/// Most tokens of one request: each costs the check of a signature.
const MAX_TOKENS: usize = 8;

/// Rules for the tokens of one service, with the keys of their issuers.
#[derive(Debug, Default)]
pub struct Authenticator {
    rules: Vec<Prepared>,
    /// Headers that only rules may set.
    stripped: RequestChanges,
}

#[derive(Debug)]
struct Prepared {
    rule: JwtRule,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    Inline(Arc<KeySet>),
    Remote(Arc<RemoteKeys>),
    /// There are none: every token is refused.
    None,
}

/// Result for a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// No token: policies decide whether one is needed.
    Anonymous { changes: RequestChanges },
    /// A token is valid.
    Authenticated { token: Box<Verified>, changes: RequestChanges },
    /// A token is not valid, and no rule accepts another.
    Refused(Refusal),
}

/// Refusal of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: TokenError,
    /// Origin of the rule that the token does not meet; `None` for a token of no rule.
    pub rule: Option<String>,
}

/// A token that was not accepted.
struct Failure<'a> {
    refusal: Refusal,
    /// Keys that may be too old for the token.
    stale: Option<&'a Arc<RemoteKeys>>,
}

type Found<'a> = Vec<(Location<'a>, Cow<'a, str>)>;

impl Authenticator {
    /// Prepares rules. Their order counts: the first one that accepts a request decides. A JWKS that cannot be read is
    /// logged; its rule refuses every token.
    pub fn new(rules: Vec<JwtRule>, store: &KeyStore) -> Self {
        let stripped = RequestChanges::stripped(rules.iter());
        let prepare = |rule: JwtRule| Prepared { keys: Keys::of(&rule, store), rule };
        Self { rules: rules.into_iter().map(prepare).collect(), stripped }
    }

    /// Returns true if there are no rules.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Verifies the tokens of a request. Waits only for keys that are not there yet, or for a newer set when a token names a
    /// key that is not in it: at most [`crate::REFETCH_WAIT`], and once in [`crate::MIN_REFETCH`] for each issuer.
    pub async fn authenticate(&self, request: &Parts<'_>, now: SystemTime) -> Outcome {
        match self.check(request, now) {
            Ok(outcome) => outcome,
            Err(Failure { refusal, stale: None }) => Outcome::Refused(refusal),
            Err(Failure { refusal, stale: Some(stale) }) => {
                if !stale.refetch().await {
                    return Outcome::Refused(refusal);
                }
                self.check(request, now).unwrap_or_else(|failure| Outcome::Refused(failure.refusal))
            }
        }
    }

    /// As `authenticate`, with the keys of this moment.
    fn check<'a>(&'a self, request: &'a Parts<'a>, now: SystemTime) -> Result<Outcome, Failure<'a>> {
        if self.is_empty() || request.is_preflight() {
            return Ok(Outcome::Anonymous { changes: self.stripped.clone() });
        }
        let mut stale = None;
        for prepared in &self.rules {
            let found = request.found(locations(&prepared.rule).into_iter());
            match self.accept(&found, now, |_, _| Some(prepared)) {
                Ok(Outcome::Anonymous { .. }) => {}
                Ok(outcome) => return Ok(outcome),
                Err(failure) => stale = stale.or(failure.stale),
            }
        }
        let all = self.rules.iter().flat_map(|prepared| locations(&prepared.rule));
        let result = self.accept(&request.found(all), now, |location, token| {
            let looks_here = |prepared: &&Prepared| locations(&prepared.rule).contains(&location);
            self.rules.iter().filter(looks_here).find(|prepared| is_issuer(token, &prepared.rule))
        });
        result.map_err(|failure| Failure { stale: failure.stale.or(stale), ..failure })
    }

    /// Accepts a request if all of these tokens are valid, each by the rule that is chosen for it. The first one counts.
    fn accept<'a>(
        &'a self,
        found: &Found<'_>,
        now: SystemTime,
        rule_of: impl Fn(Location<'_>, &Token<'_>) -> Option<&'a Prepared>,
    ) -> Result<Outcome, Failure<'a>> {
        let failed = |error| Failure { refusal: Refusal { error, rule: None }, stale: None };
        if found.len() > MAX_TOKENS {
            return Err(failed(TokenError::TooMany));
        }
        let mut changes = self.stripped.clone();
        let mut first = None;
        // Envoy begins with the last one, which decides what is said of several that are not valid (measured).
        for (location, text) in found.iter().rev() {
            let token = Token::parse(text).map_err(failed)?;
            let Some(prepared) = rule_of(*location, &token) else { return Err(failed(TokenError::UnknownIssuer)) };
            prepared.verify(&token, now)?;
            if !prepared.rule.forward_original_token {
                changes.remove_token(*location);
            }
            first = Some((token, prepared));
        }
        Ok(match first {
            Some((token, Prepared { rule, .. })) => {
                changes.accept(rule, &token);
                Outcome::Authenticated { token: Box::new(Verified::new(&token, rule)), changes }
            }
            None => Outcome::Anonymous { changes },
        })
    }
}

impl Prepared {
    fn verify(&self, token: &Token<'_>, now: SystemTime) -> Result<(), Failure<'_>> {
        let failed = |error, stale| {
            let rule = Some(self.rule.origin.clone());
            Failure { refusal: Refusal { error, rule }, stale }
        };
        check_claims(token, &self.rule, now).map_err(|error| failed(error, None))?;
        let (keys, remote) = match &self.keys {
            Keys::Inline(keys) => (Some(keys.clone()), None),
            Keys::Remote(remote) => (remote.current(), Some(remote)),
            Keys::None => (None, None),
        };
        check_signature(token, keys.as_deref()).map_err(|error| {
            let stale = remote.filter(|_| error == TokenError::NoMatchingKey);
            failed(error, stale)
        })
    }
}

impl Keys {
    fn of(rule: &JwtRule, store: &KeyStore) -> Self {
        match &rule.keys {
            KeySource::Inline { jwks } => match KeySet::parse(jwks.as_bytes()) {
                Ok(keys) => Self::Inline(Arc::new(keys)),
                Err(error) => {
                    tracing::warn!(rule = rule.origin, %error, "invalid JWKS; every token of the rule is refused");
                    Self::None
                }
            },
            source @ (KeySource::Uri { .. } | KeySource::Discovery { .. }) => Self::Remote(store.keys(source)),
            KeySource::Unusable { .. } => Self::None,
        }
    }
}

impl<'a> Parts<'a> {
    /// Tokens at these places, each place once, in Envoy's order.
    fn found(&'a self, places: impl Iterator<Item = Location<'a>>) -> Found<'a> {
        let mut places: Vec<_> = places.collect();
        places.sort_by(|one, other| one.rank().cmp(&other.rank()));
        places.dedup();
        let of = |location: Location<'a>| self.tokens(location).into_iter().map(move |token| (location, token));
        places.into_iter().flat_map(of).collect()
    }
}

#[cfg(test)]
#[path = "authenticate_tests.rs"]
mod tests;
