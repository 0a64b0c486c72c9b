//! A rule for the tokens of one issuer: an entry of `jwtRules` of a RequestAuthentication whose values are parsed.

use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::serialise;

/// Tokens that are accepted, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtRule {
    /// RequestAuthentication that the rule comes from, and its place there, as `shop/jwt jwtRules[0]`.
    pub origin: String,
    /// Value of the claim `iss`; `None` for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// One of them has to be in the claim `aud`; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    pub keys: KeySource,
    /// Headers, parameters and cookies that a token may be in. With none in all three lists: `Authorization: Bearer`, and
    /// the parameter `access_token`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from_headers: Vec<HeaderLocation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from_params: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from_cookies: Vec<String>,
    /// True if the destination gets the token as it was sent.
    #[serde(default)]
    pub forward_original_token: bool,
    /// Header in which the destination gets the payload: its JSON in base64url without padding.
    #[serde(default, with = "serialise::optional_header_name", skip_serializing_if = "Option::is_none")]
    pub output_payload_header: Option<HeaderName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_claims: Vec<ClaimHeader>,
    /// Names of claims whose text is a list separated by spaces, besides `scope` and `permission`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub space_delimited_claims: Vec<String>,
}

/// Header that a token may be in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderLocation {
    #[serde(with = "serialise::header_name")]
    pub name: HeaderName,
    /// Text before the token, as `Bearer ` with its space. A value without it has no token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

/// Header in which the destination gets a claim: lists and objects as JSON in base64, with padding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimHeader {
    #[serde(with = "serialise::header_name")]
    pub header: HeaderName,
    /// Names from the outermost claim to the innermost.
    pub claim: Vec<String>,
}

/// Place of the keys of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum KeySource {
    /// A JWKS (RFC 7517) as JSON, of public keys only.
    Inline { jwks: String },
    /// Address of a JWKS.
    Uri { uri: String, timeout: Duration },
    /// An issuer whose `/.well-known/openid-configuration` names the address of the JWKS (OpenID Connect Discovery 1.0).
    Discovery { issuer: String, timeout: Duration },
    /// The rule names no keys that can be used: every token of it is refused.
    Unusable { reason: String },
}
