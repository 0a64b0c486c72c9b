//! Part of a request that decides about its endpoint.

use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Key of a consistent hash. A request without it goes to a random endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum HashKey {
    /// Values of a header.
    Header(#[serde(serialize_with = "crate::serialise::name", deserialize_with = "name")] HeaderName),
    /// Value of a cookie.
    Cookie(HashCookie),
    /// Address of the client's pod, without its port.
    SourceAddress,
    /// First parameter of this name in the query; neither name nor value is decoded.
    QueryParameter(String),
}

/// Cookie that keeps a client at its endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HashCookie {
    /// A token of RFC 9110.
    pub name: String,
    /// Attribute `Path` of a new cookie. Empty: none.
    pub path: String,
    /// A request without the cookie gets one that lasts so long; 0: for the session of the client, without `Max-Age`. `None`:
    /// no cookie is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Further attributes of a new cookie; one with an empty value is a flag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, String)>,
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderName, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom(format!("invalid header name {text:?}")))
}
