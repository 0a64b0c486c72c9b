//! Tokens of requests (RFC 7515, 7517, 7519): where they are, whether they are valid, and what they say. The caller brings the
//! time and the HTTP client that fetches keys. Whether a request needs a token is decided by policies, not here.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

mod rule;
mod serialise;

pub use rule::{ClaimHeader, HeaderLocation, JwtRule, KeySource};
