//! Answers of the API server: errors, and the parts of lists and watches that every kind has.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::verb::Verb;

/// A boxed error of a lower layer.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A request that has no usable answer. It says nothing about the objects.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No connection, no credentials, or an answer that was cut off.
    #[error("no answer from the API server")]
    Unreachable(#[source] Cause),
    #[error("no answer from the API server within {0:?}")]
    Timeout(Duration),
    /// The API server refused.
    #[error("the API server answered {}", .0.text())]
    Refused(Refusal),
    /// The answer is not one of the API.
    #[error("unexpected answer from the API server: {0}")]
    Invalid(#[from] InvalidAnswer),
}

/// Defect of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidAnswer {
    #[error("expected JSON of the API: {0}")]
    Json(#[from] serde_json::Error),
    #[error("more than {0} bytes")]
    TooLarge(usize),
    #[error("an object without name or resourceVersion")]
    Nameless,
    #[error("a list without resourceVersion")]
    NoVersion,
    #[error("no token, or no time when it expires")]
    NoToken,
    #[error("pages of different lists")]
    Mixed,
    #[error("a watch event of type {0:?}")]
    UnknownEvent(String),
}

/// Kubernetes' `Status`, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Pause that the API server asks for.
    #[serde(skip)]
    pub(crate) retry_after: Option<Duration>,
}

/// Longest text of an answer that is not a `Status`, as a proxy in between sends it.
const QUOTED: usize = 200;

impl Refusal {
    /// The refusal in the answer to a request.
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut refusal = serde_json::from_slice::<Self>(body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(body);
            Self { message: text.trim().chars().take(QUOTED).collect(), ..Self::default() }
        });
        // Not the `code` of the body: JSON of a proxy in between may have another one, or none.
        refusal.code = status.as_u16();
        // The other form of the header, a date, is not one that API servers send.
        let seconds = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        refusal.retry_after = seconds.map(Duration::from_secs);
        refusal
    }

    fn text(&self) -> String {
        let Self { code, reason, message, .. } = self;
        match (reason.is_empty(), message.is_empty()) {
            (true, true) => code.to_string(),
            (true, false) => format!("{code}: {message}"),
            (false, true) => format!("{code} {reason}"),
            (false, false) => format!("{code} {reason}: {message}"),
        }
    }
}

impl ApiError {
    /// The HTTP status that the API server answered with.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::Unreachable(_) | Self::Timeout(_) | Self::Invalid(_) => None,
        }
    }

    /// The position or token is older than the history that the API server keeps.
    pub(crate) fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.code() == Some(404)
    }

    /// The API server says that there is no such object. A 404 without this reason is of a path that it does not serve, or of
    /// a proxy in between, and says nothing about the object.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == 404 && refusal.reason == "NotFound")
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// The credentials do not allow it; it will not help to wait.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.code(), Some(401 | 403))
    }

    /// The same request may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout(_) | Self::Invalid(_) => true,
            // Refused permissions too: an administrator may grant them while the program runs.
            Self::Refused(refusal) => matches!(refusal.code, 401 | 403 | 408 | 409 | 429) || refusal.code >= 500,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Unreachable(_) | Self::Timeout(_) | Self::Invalid(_) => None,
        }
    }

    /// The error with its causes, and for a refusal of permission what to do about it.
    pub(crate) fn explain(&self, verb: Verb, resource: &str) -> String {
        let mut text = format!("failed to {verb} {resource}: {self}");
        let mut cause = std::error::Error::source(self);
        // An invalid answer has its cause in its own text.
        while let Some(error) = cause.filter(|_| matches!(self, Self::Unreachable(_))) {
            let said = error.to_string();
            // Some layers repeat the cause in their own text.
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        if self.code() == Some(403) {
            text.push_str(&format!("; allow {verb} of {resource} to this ServiceAccount"));
        }
        text
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        InvalidAnswer::from(error).into()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMetadata {
    #[serde(default)]
    pub(crate) resource_version: String,
    /// Token of the next page; empty on the last one.
    #[serde(default)]
    pub(crate) r#continue: Option<String>,
}

/// An event of a watch.
#[derive(Debug, Deserialize)]
pub(crate) struct WatchEvent {
    pub(crate) r#type: String,
    pub(crate) object: Value,
}

/// Resources that the API server serves in a version of a group.
#[derive(Debug, Deserialize)]
pub(crate) struct Resources {
    #[serde(default)]
    pub(crate) resources: Vec<Served>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Served {
    pub(crate) name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_verb_resource_and_what_the_server_said() {
        let body = br#"{"kind":"Status","reason":"Forbidden","code":403,"message":"pods is forbidden: User \"system:serviceaccount:mesh:agent\" cannot list resource \"pods\""}"#;

        let error = ApiError::Refused(Refusal::new(StatusCode::FORBIDDEN, &HeaderMap::new(), body));

        let text = error.explain(Verb::List, "pods");
        assert!(text.starts_with("failed to list pods: the API server answered 403 Forbidden: "), "{text}");
        assert!(text.contains("system:serviceaccount:mesh:agent"), "{text}");
        assert!(text.ends_with("; allow list of pods to this ServiceAccount"), "{text}");
        assert!(error.is_denied() && error.is_transient() && !error.is_expired());
    }

    #[test]
    fn the_text_of_a_proxy_is_quoted_and_its_pause_is_read() {
        let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, "7".parse().unwrap())]);

        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, &headers, b"slow down\n");

        assert_eq!((refusal.text().as_str(), refusal.retry_after), ("429: slow down", Some(Duration::from_secs(7))));
    }
}
