//! Answers of an external authorizer: headers for the destination and the client, or the answer to the client.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;

use super::check::is_framing;
use super::message::{AppendAction, CheckResponse, DeniedHttpResponse, HeaderValueOption, OkHttpResponse};
use crate::http::evaluate::matches_any_case;
use crate::http::{DENIED_STATUS, HttpProtocol};

/// Names of headers that an HTTP provider wants removed from the request.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// Headers that a client gets of every denial, besides those that the provider's configuration lists.
const ALWAYS_DOWNSTREAM: [&str; 2] = ["www-authenticate", "location"];

/// Longest body of a denial that is passed on, in bytes.
pub const MAX_DENIAL_BYTES: usize = 64 * 1024;

/// Decision of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Allow(Edits),
    Deny(Denial),
}

/// Changes of a request that is allowed, and of the answer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Headers to remove from the request, before the others.
    pub remove: Vec<HeaderName>,
    pub upstream: Vec<Edit>,
    pub downstream: Vec<Edit>,
}

/// Change of one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub name: HeaderName,
    pub value: HeaderValue,
    pub how: How,
}

/// Effect of an edit on lines that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Replaces them.
    Set,
    /// Adds a line, also if there is none.
    Append,
    /// Adds a line if there is one.
    AppendIfPresent,
    /// Sets the header if there is none.
    SetIfAbsent,
    /// Replaces them if there are some.
    SetIfPresent,
}

/// Answer to a client whose request is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// From 200 to 599.
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Response details for the access log, with the flag `UAEX`.
    pub details: &'static str,
}

/// An answer that cannot be used. It counts as no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("the provider answered with status {0}")]
    Status(u16),
    #[error("the answer is not a CheckResponse")]
    Message,
    #[error("the answer has an invalid header {0:?}")]
    Header(String),
}

impl Edits {
    /// Changes the headers of a request.
    pub fn apply_upstream(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        apply(&self.upstream, headers);
    }

    /// Changes the headers of the answer.
    pub fn apply_downstream(&self, headers: &mut HeaderMap) {
        apply(&self.downstream, headers);
    }
}

/// Applies edits in order. A map that is full (32,768 lines) keeps what it has.
fn apply(edits: &[Edit], headers: &mut HeaderMap) {
    for Edit { name, value, how } in edits {
        let is_present = headers.contains_key(name);
        match (how, is_present) {
            (How::Set, _) | (How::SetIfAbsent, false) | (How::SetIfPresent, true) => {
                let _ = headers.try_insert(name.clone(), value.clone());
            }
            (How::Append, _) | (How::AppendIfPresent, true) => {
                let _ = headers.try_append(name.clone(), value.clone());
            }
            (How::SetIfAbsent, true) | (How::SetIfPresent | How::AppendIfPresent, false) => {}
        }
    }
}

/// Reads the answer of an HTTP provider: 200 allows, 5xx is an error, everything else denies.
pub fn http_answer(protocol: &HttpProtocol, answer: &::http::Response<Vec<u8>>) -> Result<Answer, AnswerError> {
    let status = answer.status().as_u16();
    let lines = || answer.headers().iter().filter(|(name, _)| !is_framing(name) && name.as_str() != TO_REMOVE);
    let is_in =
        |list: &[model::StringMatch], name: &HeaderName| list.iter().any(|of| matches_any_case(of, name.as_str()));
    match status {
        200 => {
            let chosen = |list: &[model::StringMatch], how: How| {
                let of_list = lines().filter(|(name, _)| is_in(list, name));
                of_list.map(|(name, value)| Edit { name: name.clone(), value: value.clone(), how }).collect()
            };
            Ok(Answer::Allow(Edits {
                remove: removed(answer.headers())?,
                upstream: replacing(chosen(&protocol.upstream_on_allow, How::Append)),
                downstream: chosen(&protocol.downstream_on_allow, How::Append),
            }))
        }
        500..=599 => Err(AnswerError::Status(status)),
        _ => {
            let list = &protocol.downstream_on_deny;
            let is_passed =
                |name: &HeaderName| list.is_empty() || is_in(list, name) || ALWAYS_DOWNSTREAM.contains(&name.as_str());
            let mut headers = HeaderMap::new();
            for (name, value) in lines().filter(|(name, _)| is_passed(name)) {
                headers.append(name, value.clone());
            }
            let body = answer.body().get(..MAX_DENIAL_BYTES).unwrap_or(answer.body()).to_vec();
            Ok(Answer::Deny(Denial { status: final_status(status.into()), headers, body, details: "ext_authz_denied" }))
        }
    }
}

/// The first line of each name replaces what the client sent; further ones are added to it.
fn replacing(mut edits: Vec<Edit>) -> Vec<Edit> {
    for index in 0..edits.len() {
        let (before, rest) = edits.split_at_mut(index);
        if let Some(edit) = rest.first_mut()
            && before.iter().all(|earlier| earlier.name != edit.name)
        {
            edit.how = How::Set;
        }
    }
    edits
}

fn removed(headers: &HeaderMap) -> Result<Vec<HeaderName>, AnswerError> {
    let lines = headers.get_all(TO_REMOVE).into_iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let names: Vec<_> =
        lines.flat_map(|line| line.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()).collect();
    names.iter().filter(|name| !name.is_empty()).filter_map(|name| removable(name).transpose()).collect()
}

/// Name of a header to remove; `None` for those without which a request is malformed, as Envoy ignores them.
fn removable(name: &str) -> Result<Option<HeaderName>, AnswerError> {
    if name.starts_with(':') {
        return Ok(None);
    }
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| AnswerError::Header(name.to_owned()))?;
    Ok(Some(name).filter(|name| !is_framing(name)))
}

/// Reads the answer of a gRPC provider, a `CheckResponse` without frame. Status 0 allows, every other one denies.
pub fn grpc_answer(message: &[u8]) -> Result<Answer, AnswerError> {
    let answer = CheckResponse::decode(message).map_err(|_| AnswerError::Message)?;
    if answer.status.is_none_or(|status| status.code == 0) {
        return Ok(Answer::Allow(allowed(answer.ok_response.unwrap_or_default())?));
    }
    denied(answer.denied_response.unwrap_or_default()).map(Answer::Deny)
}

fn allowed(answer: OkHttpResponse) -> Result<Edits, AnswerError> {
    let names = answer.headers_to_remove.iter();
    let remove = names.filter_map(|name| removable(name).transpose()).collect::<Result<_, _>>()?;
    // For a request, `append` adds to a header that is there, and nothing else does.
    let upstream = edits(&answer.headers, |option| match option.append {
        Some(true) => How::AppendIfPresent,
        Some(false) | None => How::Set,
    })?;
    let downstream = edits(&answer.response_headers_to_add, |option| match (option.append, option.append_action()) {
        (Some(false), _) => How::Set,
        (Some(true), _) | (None, AppendAction::AppendIfExistsOrAdd) => How::Append,
        (None, AppendAction::AddIfAbsent) => How::SetIfAbsent,
        (None, AppendAction::OverwriteIfExistsOrAdd) => How::Set,
        (None, AppendAction::OverwriteIfExists) => How::SetIfPresent,
    })?;
    Ok(Edits { remove, upstream, downstream })
}

fn denied(answer: DeniedHttpResponse) -> Result<Denial, AnswerError> {
    let mut headers = HeaderMap::new();
    for Edit { name, value, how } in edits(&answer.headers, |option| match option.append {
        Some(true) => How::Append,
        Some(false) | None => How::Set,
    })? {
        match how {
            How::Append => headers.append(name, value),
            _ => headers.insert(name, value).is_some(),
        };
    }
    let mut body = answer.body.into_bytes();
    body.truncate(MAX_DENIAL_BYTES);
    let status = final_status(answer.status.map_or(0, |status| status.code));
    Ok(Denial { status, headers, body, details: "ext_authz_denied" })
}

/// Reads headers. One of framing is left out; one that is invalid makes the answer unusable.
fn edits(options: &[HeaderValueOption], how: impl Fn(&HeaderValueOption) -> How) -> Result<Vec<Edit>, AnswerError> {
    let read = |option: &HeaderValueOption| {
        let header = option.header.clone().unwrap_or_default();
        let error = || AnswerError::Header(header.key.clone());
        let name = HeaderName::from_bytes(header.key.as_bytes()).map_err(|_| error())?;
        let bytes = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        let value = HeaderValue::from_bytes(bytes).map_err(|_| error())?;
        Ok((!is_framing(&name)).then(|| Edit { name, value, how: how(option) }))
    };
    options.iter().filter_map(|option| read(option).transpose()).collect()
}

/// Status of a denial; 403 for one that no final answer has.
fn final_status(code: i32) -> u16 {
    u16::try_from(code).ok().filter(|code| (200..=599).contains(code)).unwrap_or(DENIED_STATUS)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
