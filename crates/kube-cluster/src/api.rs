//! Requests to the API server, each with a deadline. What is asked for is in `list`, `watch`, `status` and `lease`.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::TryStreamExt as _;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, BodyStream, LengthLimitError, Limited};
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::answer::{ApiError, InvalidAnswer, Refusal};

/// Longest time to the head of an answer, and to all of a small one.
const ANSWER: Duration = Duration::from_secs(30);

/// Longest time to all of a page of a list. The API server itself gives up after 60 s.
const PAGE: Duration = Duration::from_secs(65);

/// Largest page. A page has 500 objects of at most 1.5 MiB (etcd's limit) each, and of a few KiB as a rule.
const MAX_PAGE_BYTES: usize = 256 << 20;

/// Largest answer with one object or an error.
const MAX_OBJECT_BYTES: usize = 16 << 20;

/// Sends requests with the credentials of one program. Clones share connections.
#[derive(Clone)]
pub(crate) struct Api {
    client: kube::Client,
}

/// A change to send.
pub(crate) struct Change<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) content_type: &'static str,
    pub(crate) body: &'a Value,
}

impl Api {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// Text of a page of a list.
    pub(crate) async fn page(&self, path: &str) -> Result<Bytes, ApiError> {
        within(PAGE, self.text(get(path), MAX_PAGE_BYTES)).await
    }

    /// An object, or the resources of a group.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        within(ANSWER, self.read(get(path), MAX_OBJECT_BYTES)).await
    }

    /// Sends a change; the answer is the object as it is then.
    pub(crate) async fn change(&self, change: Change<'_>) -> Result<Value, ApiError> {
        let Change { method, path, content_type, body } = change;
        let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, content_type);
        let request = request.body(Body::from(serde_json::to_vec(body)?));
        within(ANSWER, self.read(request, MAX_OBJECT_BYTES)).await
    }

    /// Opens a watch; its lines have no deadline here.
    pub(crate) async fn stream(&self, path: &str) -> Result<Lines, ApiError> {
        let response = within(ANSWER, self.send(get(path))).await?;
        Ok(Lines { body: BodyStream::new(response.into_body()), partial: BytesMut::new() })
    }

    /// Body of an answer that is no JSON, and has no end that is known.
    pub(crate) async fn body(&self, path: &str) -> Result<Body, ApiError> {
        let request = Request::get(path).header(http::header::ACCEPT, "*/*").body(Body::empty());
        Ok(within(ANSWER, self.send(request)).await?.into_body())
    }

    /// An object, with the head of the answer.
    pub(crate) async fn with_head(&self, path: &str) -> Result<(HeaderMap, Value), ApiError> {
        let answer = async {
            let (head, body) = self.send(get(path)).await?.into_parts();
            Ok((head.headers, serde_json::from_slice(&collect(body, MAX_OBJECT_BYTES).await?)?))
        };
        within(ANSWER, answer).await
    }

    async fn read<T: DeserializeOwned>(&self, request: http::Result<Request<Body>>, max: usize) -> Result<T, ApiError> {
        Ok(serde_json::from_slice(&self.text(request, max).await?)?)
    }

    async fn text(&self, request: http::Result<Request<Body>>, max: usize) -> Result<Bytes, ApiError> {
        collect(self.send(request).await?.into_body(), max).await
    }

    async fn send(&self, request: http::Result<Request<Body>>) -> Result<Response<Body>, ApiError> {
        let request = request.map_err(|error| ApiError::Unreachable(error.into()))?;
        let response = self.client.send(request).await.map_err(|error| ApiError::Unreachable(error.into()))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = collect(body, MAX_OBJECT_BYTES).await?;
        Err(ApiError::Refused(Refusal::new(head.status, &head.headers, &body)))
    }
}

fn get(path: &str) -> http::Result<Request<Body>> {
    Request::get(path).header(http::header::ACCEPT, "application/json").body(Body::empty())
}

async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    timeout(limit, answer).await.unwrap_or(Err(ApiError::Timeout(limit)))
}

async fn collect(body: Body, max: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(InvalidAnswer::TooLarge(max).into()),
        Err(error) => Err(ApiError::Unreachable(error)),
    }
}

/// Lines of a watch.
pub(crate) struct Lines {
    body: BodyStream<Body>,
    /// Beginning of a line whose end has not arrived.
    partial: BytesMut,
}

impl Lines {
    /// Waits for the next whole lines, as many as have arrived together. `None` at the end of the watch; a line without end
    /// is dropped then, because the API server ends every line.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, ApiError> {
        loop {
            let frame = self.body.try_next().await.map_err(|error| ApiError::Unreachable(error.into()))?;
            let Some(frame) = frame else { return Ok(None) };
            let Ok(data) = frame.into_data() else { continue };
            // A large object comes in many frames: what was searched for its end is not searched again with each of
            // them.
            let searched = self.partial.len();
            self.partial.extend_from_slice(&data);
            let lines = self.whole_lines(searched);
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
            // Without a bound a peer that is no API server could fill the memory with one line.
            if self.partial.len() > MAX_OBJECT_BYTES {
                return Err(InvalidAnswer::TooLarge(MAX_OBJECT_BYTES).into());
            }
        }
    }

    /// Takes the lines that have ended; there is no end of a line before `searched`.
    fn whole_lines(&mut self, mut searched: usize) -> Vec<Bytes> {
        let mut lines = Vec::new();
        while let Some(end) = self.partial[searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.partial.split_to(searched + end).freeze();
            self.partial.advance(1);
            searched = 0;
            if !line.trim_ascii().is_empty() {
                lines.push(line);
            }
        }
        lines
    }
}
