//! One question to a provider, and what happens when there is no answer.

use std::pin::Pin;

use ::http::HeaderMap;
use tokio::time::timeout;

use super::answer::{Answer, Denial, Edits, grpc_answer, http_answer};
use super::check::{Checked, grpc_check, http_check};
use crate::http::{Protocol, Provider};

/// Question in the form in which it is sent.
#[derive(Clone, Debug)]
pub enum Question {
    Http(Box<::http::Request<Vec<u8>>>),
    /// Message of a unary call of `/envoy.service.auth.v3.Authorization/Check`, without frame.
    Grpc(Vec<u8>),
}

/// Answer in the form in which it came.
#[derive(Clone, Debug)]
pub enum Reply {
    /// With at most [`super::MAX_DENIAL_BYTES`] of the body.
    Http(Box<::http::Response<Vec<u8>>>),
    /// Message of a call that ended with status 0, without frame.
    Grpc(Vec<u8>),
}

/// A provider that did not answer, or not in time. The text says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// An answer that is on its way.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Reply, TransportError>> + Send + 'a>>;

/// Client for providers.
pub trait Transport {
    /// Sends a question to a provider. A call of gRPC that ends with another status than 0 is an error. The caller bounds the
    /// time, and drops the future when it is over.
    fn send<'a>(&'a self, provider: &'a Provider, question: Question) -> Asking<'a>;
}

/// Answer of a provider, and the reason if it was made up because there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub answer: Answer,
    /// Text for the log; `None` if the provider decided.
    pub failure: Option<String>,
}

/// Asks a provider about a request. If it gives no answer that can be used within its timeout, the request passes where the
/// provider is configured to fail open, and is else answered with its `status_on_error`.
pub async fn ask(transport: &impl Transport, provider: &Provider, checked: &Checked<'_>) -> Asked {
    match decide(transport, provider, checked).await {
        Ok(answer) => Asked { answer, failure: None },
        Err(failure) if provider.fail_open => Asked { answer: Answer::Allow(Edits::default()), failure: Some(failure) },
        Err(failure) => Asked { answer: Answer::Deny(error_denial(provider.status_on_error)), failure: Some(failure) },
    }
}

/// Answer to a request for whose policy there is no provider, or whose provider did not answer.
#[must_use]
pub fn error_denial(status: u16) -> Denial {
    Denial { status, headers: HeaderMap::new(), body: Vec::new(), details: "ext_authz_error" }
}

async fn decide(transport: &impl Transport, provider: &Provider, checked: &Checked<'_>) -> Result<Answer, String> {
    let question = match &provider.protocol {
        Protocol::Http(protocol) => http_check(protocol, checked).map(Box::new).map(Question::Http),
        Protocol::Grpc => grpc_check(provider.body, checked).map(Question::Grpc),
    };
    let question = question.map_err(|error| error.to_string())?;
    let reply = timeout(provider.timeout, transport.send(provider, question)).await;
    let reply = reply.map_err(|_| format!("no answer within {:?}", provider.timeout))?;
    match (reply.map_err(|error| error.to_string())?, &provider.protocol) {
        (Reply::Http(reply), Protocol::Http(protocol)) => {
            http_answer(protocol, &reply).map_err(|error| error.to_string())
        }
        (Reply::Grpc(reply), Protocol::Grpc) => grpc_answer(&reply).map_err(|error| error.to_string()),
        (Reply::Http(_), Protocol::Grpc) | (Reply::Grpc(_), Protocol::Http(_)) => {
            Err("the answer is of another protocol than the question".to_owned())
        }
    }
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
