//! Tokens of requests (RFC 7515, 7517, 7519): where they are, whether they are valid, and what they say. The caller brings the
//! time and the HTTP client that fetches keys. Whether a request needs a token is decided by policies, not here.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

mod algorithm;
mod authenticate;
mod changes;
mod error;
mod jwks;
mod key;
mod location;
mod remote;
mod rule;
mod serialise;
#[cfg(test)]
mod testing;
mod token;
mod verified;
mod verify;

pub use authenticate::{Authenticator, Outcome, Refusal};
pub use changes::{RequestChanges, without_params};
pub use error::{TokenError, www_authenticate};
pub use jwks::{JwksError, KeySet, MAX_JWKS_BYTES, MAX_KEYS, public_part};
pub use key::KeyError;
pub use location::Parts;
pub use remote::{
    FetchError, Fetcher, Fetching, KeyStore, MAX_STALE, MIN_REFETCH, REFETCH_WAIT, REFRESH, RETRY, RemoteKeys,
};
pub use rule::{ClaimHeader, HeaderLocation, JwtRule, KeySource};
pub use verified::Verified;
