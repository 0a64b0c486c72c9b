//! Cross-origin requests: the answer to a preflight, and the headers of other answers, as measured on Envoy 1.40.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

use crate::{Request, TextMatch};

/// Rules for requests of pages of other origins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    pub origins: Vec<OriginMatch>,
    /// Values of the headers of the same name; `None` sends none.
    #[serde(serialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub allow_methods: Option<HeaderValue>,
    #[serde(serialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub allow_headers: Option<HeaderValue>,
    #[serde(serialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub expose_headers: Option<HeaderValue>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
    pub allow_credentials: bool,
    /// Answers a preflight of a foreign origin instead of forwarding it.
    pub ignore_unmatched_preflights: bool,
}

/// Pattern of an origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OriginMatch {
    Any,
    Text(TextMatch),
}

/// Decision on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsDecision {
    /// A preflight: answered with 200, these headers and no body.
    Answer(HeaderMap),
    /// Forwarded; these headers replace those of the same name in the answer.
    Forward(HeaderMap),
}

impl Cors {
    /// Decides on a request. A preflight is an `OPTIONS` with `origin` and `access-control-request-method`, neither empty.
    pub fn decide(&self, request: &Request<'_>) -> CorsDecision {
        let given = |name: HeaderName| request.headers.get(name).filter(|value| !value.is_empty());
        let Some(origin) = given(ORIGIN) else {
            return CorsDecision::Forward(HeaderMap::new());
        };
        let is_allowed = self.origins.iter().any(|pattern| pattern.is_match(origin.as_bytes()));
        let is_preflight = request.method == "OPTIONS" && given(ACCESS_CONTROL_REQUEST_METHOD).is_some();
        let mut headers = HeaderMap::new();
        if is_allowed {
            // Echoed also where any is allowed: a browser refuses `*` with credentials.
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if self.allow_credentials {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
        if !is_preflight || !is_allowed && !self.ignore_unmatched_preflights {
            if is_allowed {
                insert(&mut headers, ACCESS_CONTROL_EXPOSE_HEADERS, self.expose_headers.as_ref());
            }
            return CorsDecision::Forward(headers);
        }
        insert(&mut headers, ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.as_ref());
        insert(&mut headers, ACCESS_CONTROL_ALLOW_HEADERS, self.allow_headers.as_ref());
        insert(&mut headers, ACCESS_CONTROL_EXPOSE_HEADERS, self.expose_headers.as_ref());
        insert(&mut headers, ACCESS_CONTROL_MAX_AGE, self.max_age.map(HeaderValue::from).as_ref());
        CorsDecision::Answer(headers)
    }
}

impl OriginMatch {
    fn is_match(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Text(pattern) => pattern.is_match(origin),
        }
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value.clone());
    }
}

fn text<S: Serializer>(value: &Option<HeaderValue>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&String::from_utf8_lossy(value.as_ref().map_or(&[], HeaderValue::as_bytes)))
}

#[cfg(test)]
#[path = "cors_tests.rs"]
mod tests;
