//! The side that accepts streams. It decides nothing about them.

use crate::{Reason, Settings, Stream, TunnelError};
use http::{HeaderMap, Method, StatusCode};
use http2::{Engine, Error, PendingResponse, RequestHead, Role};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncBufRead, AsyncWrite};

/// An accepted tunnel. Nothing moves on any of its streams unless [`accept`](Self::accept) is polled.
#[derive(Debug)]
pub struct Server<T>(Engine<T>);

/// A request of the peer. Dropping it resets the stream with `INTERNAL_ERROR`.
pub struct Request {
    head: RequestHead,
    pending: PendingResponse,
}

impl<T: AsyncBufRead + AsyncWrite + Unpin> Server<T> {
    /// Starts HTTP/2 as the server on a byte stream whose peer is authenticated.
    pub async fn handshake(io: T, settings: &Settings) -> Result<Self, TunnelError> {
        let mut engine = Engine::new(io, Role::Server, settings);
        poll_fn(|cx| match engine.poll(cx) {
            Poll::Ready(Err(fault)) => Poll::Ready(Err(TunnelError::handshake(fault))),
            // Also if the connection has ended since.
            _ if engine.has_begun() => Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => Poll::Ready(Err(TunnelError::Handshake(Arc::new(Error::UnexpectedEof)))),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        Ok(Self(engine))
    }

    /// Returns the next request, or `None` when the tunnel has ended in order.
    ///
    /// Also does all reading and writing, so it must be polled as long as streams are open. Dropping the future loses
    /// nothing.
    pub async fn accept(&mut self) -> Result<Option<Request>, TunnelError> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Request>, TunnelError>> {
        // One that came with an earlier read is handed out before more is read.
        if let Some(request) = self.next_request() {
            return Poll::Ready(Ok(Some(request)));
        }
        // Reading may bring a request, and writing must go on in any case.
        let turn = self.0.poll(cx).map_err(TunnelError::from);
        match (self.next_request(), turn) {
            // Of a tunnel that has ended, requests are not worth an answer: nobody would get it.
            (Some(request), Poll::Pending) => Poll::Ready(Ok(Some(request))),
            (_, turn) => turn.map_ok(|()| None),
        }
    }

    fn next_request(&self) -> Option<Request> {
        let connection = self.0.connection();
        let (stream, head) = connection.borrow_mut().next_request()?;
        Some(Request { head, pending: PendingResponse::new(connection.clone(), stream, Reason::InternalError) })
    }

    /// Tells the peer to open no more streams (GOAWAY). [`accept`](Self::accept) continues until the open ones have
    /// ended.
    pub fn drain(&mut self) {
        self.0.connection().borrow_mut().drain();
    }
}

impl Request {
    /// Method of the request. Only `CONNECT` makes a tunnel.
    pub const fn method(&self) -> &Method {
        &self.head.method
    }

    /// `:authority` as sent, empty when there was none.
    pub fn authority(&self) -> &str {
        &self.head.authority
    }

    /// Headers of the request.
    pub const fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Ready when the peer has given up before the response: it has reset the stream, or the tunnel is lost.
    ///
    /// Dropping the future loses nothing, so it can stand in a `select!` beside the work on the response.
    pub async fn closed(&mut self) {
        poll_fn(|cx| {
            if self.pending.is_reset() {
                return Poll::Ready(());
            }
            if let Some(stream) = self.pending.stream() {
                stream.borrow_mut().watch_reset(cx);
            }
            Poll::Pending
        })
        .await;
    }

    /// Answers 200 and returns the stream; `None` if the peer has given up meanwhile.
    pub fn accept(self, headers: HeaderMap) -> Option<Stream> {
        let (connection, stream) = self.pending.into_stream()?;
        connection.borrow_mut().send_response(&stream, StatusCode::OK, &headers, false);
        Some(Stream::new(connection, stream, None))
    }

    /// Answers with a status and no content.
    pub fn refuse(self, status: StatusCode) {
        // A peer that has given up gets no response.
        if let Some((connection, stream)) = self.pending.into_stream() {
            connection.borrow_mut().send_response(&stream, status, &HeaderMap::new(), true);
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("head", &self.head).finish_non_exhaustive()
    }
}
