//! External authorizers (`extensionProviders` of the mesh configuration) that CUSTOM policies name. Types only.

use std::time::Duration;

use model::{StringMatch, Text};
use serde::{Deserialize, Serialize};

/// A service that decides about requests (`envoyExtAuthzHttp`, `envoyExtAuthzGrpc`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provider {
    pub name: Text,
    /// Host name of the service.
    pub host: Text,
    pub port: u16,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// True if requests pass when the provider cannot be asked.
    #[serde(default)]
    pub fail_open: bool,
    /// Status of the answer to a request that is denied because the provider could not be asked, from 400 to 599.
    pub status_on_error: u16,
    /// `None`: the provider does not get the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyCheck>,
    pub protocol: Protocol,
}

/// Part of the body that a provider gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BodyCheck {
    pub max_bytes: u32,
    /// True if the provider gets the first `max_bytes` of a longer body; else such a request is answered with 413.
    #[serde(default)]
    pub allow_partial: bool,
    /// True if a gRPC provider gets bytes instead of text.
    #[serde(default)]
    pub pack_as_bytes: bool,
}

/// Way in which a provider is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Protocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// A request with the method, the path and some headers of the one that is checked.
    Http(HttpProtocol),
}

/// Headers between the request, the provider and the destination. Letter case of names does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpProtocol {
    /// Text before the path.
    pub path_prefix: String,
    /// Headers of the request that the provider gets, besides `Host`, `Content-Length` and `Authorization`.
    pub request_headers: Vec<StringMatch>,
    /// Headers that the provider gets with every request.
    pub added_headers: Vec<(String, String)>,
    /// Headers of an answer that allows, which the destination gets.
    pub upstream_on_allow: Vec<StringMatch>,
    /// Headers of an answer that allows, which the client gets.
    pub downstream_on_allow: Vec<StringMatch>,
    /// Headers of an answer that denies, which the client gets. Empty: all but `Authority` and `Content-Length`.
    pub downstream_on_deny: Vec<StringMatch>,
}
