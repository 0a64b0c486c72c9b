//! Sets of public keys (JWKS, RFC 7517 section 5).

use std::fmt;

use aws_lc_rs::signature::ParsedPublicKey;
use serde_json::{Value, json};

use crate::algorithm::Algorithm;
use crate::key::{Key, KeyError};

/// Longest JWKS in bytes.
pub const MAX_JWKS_BYTES: usize = 1 << 20;

/// Most keys of a JWKS. A token without `kid` may be tried with each of them.
pub const MAX_KEYS: usize = 256;

/// Reason for which a JWKS cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    #[error("the JWKS has {0} bytes, at most {MAX_JWKS_BYTES} are allowed")]
    TooLong(usize),
    #[error("the JWKS is not JSON")]
    NotJson,
    #[error("the JWKS has no array keys")]
    NoKeys,
    #[error("the JWKS has {0} keys, at most {MAX_KEYS} are allowed")]
    TooMany(usize),
    #[error("the JWKS has no key that can be used{}", .0.as_ref().map(|first| format!(": {first}")).unwrap_or_default())]
    NoneUsable(Option<KeyError>),
}

/// Public keys of an issuer.
pub struct KeySet {
    keys: Vec<Key>,
    /// Keys that are not used: place in the JWKS, and why.
    refused: Vec<(usize, KeyError)>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| key.id.as_deref().unwrap_or_default());
        f.debug_struct("KeySet").field("ids", &ids.collect::<Vec<_>>()).field("refused", &self.refused).finish()
    }
}

impl KeySet {
    /// Reads a JWKS. Keys that cannot be used are left out, and reported by [`KeySet::refused`].
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        let mut set = Self { keys: Vec::new(), refused: Vec::new() };
        for (index, jwk) in entries(json)?.iter().enumerate() {
            match Key::parse(jwk) {
                Ok(key) => set.keys.push(key),
                Err(error) => set.refused.push((index, error)),
            }
        }
        if set.keys.is_empty() {
            return Err(JwksError::NoneUsable(set.refused.into_iter().next().map(|(_, error)| error)));
        }
        Ok(set)
    }

    /// Keys that are not used: place in the JWKS, and why.
    #[must_use]
    pub fn refused(&self) -> &[(usize, KeyError)] {
        &self.refused
    }

    /// Number of keys that are used.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Always false: a set without keys is an error.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys that a signature may be of: a `kid` on both sides has to be the same, and the key has to be for the algorithm.
    pub(crate) fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a ParsedPublicKey> {
        let is_named = move |key: &&Key| match (id, key.id.as_deref()) {
            (Some(wanted), Some(found)) => wanted == found,
            (None, _) | (_, None) => true,
        };
        self.keys.iter().filter(is_named).filter_map(move |key| key.verifier(algorithm))
    }
}

/// Returns a JWKS of the keys that can be used, and what was left out. Secrets of it go no further.
pub fn public_part(json: &[u8]) -> Result<(String, Vec<(usize, KeyError)>), JwksError> {
    let refused = KeySet::parse(json)?.refused;
    let is_used = |index: usize| refused.iter().all(|(of, _)| *of != index);
    let keys = entries(json)?.into_iter().enumerate().filter(|(index, _)| is_used(*index)).map(|(_, jwk)| jwk);
    Ok((json!({ "keys": keys.collect::<Vec<_>>() }).to_string(), refused))
}

fn entries(json: &[u8]) -> Result<Vec<Value>, JwksError> {
    if json.len() > MAX_JWKS_BYTES {
        return Err(JwksError::TooLong(json.len()));
    }
    let mut set: Value = serde_json::from_slice(json).map_err(|_| JwksError::NotJson)?;
    let Some(Value::Array(keys)) = set.get_mut("keys").map(Value::take) else { return Err(JwksError::NoKeys) };
    if keys.len() > MAX_KEYS { Err(JwksError::TooMany(keys.len())) } else { Ok(keys) }
}
