//! The side that accepts streams. It decides nothing about them.

use crate::cork::Cork;
use crate::keepalive::Keepalive;
use crate::{Settings, Stream, TunnelError};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// An accepted tunnel. Nothing moves on any of its streams unless [`accept`](Self::accept) is polled.
pub struct Server<T: AsyncRead + AsyncWrite + Unpin> {
    io: Cork<T>,
    connection: h2::server::Connection<Cork<T>, Bytes>,
    keepalive: Keepalive,
}

/// What a peer asks for.
#[derive(Debug)]
pub struct Request {
    head: http::request::Parts,
    respond: h2::server::SendResponse<Bytes>,
    recv: h2::RecvStream,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Server<T> {
    /// Starts HTTP/2 as the server on a byte stream whose peer is already proven.
    pub async fn handshake(io: T, settings: &Settings) -> Result<Self, TunnelError> {
        let io = Cork::new(io);
        let mut connection = h2::server::Builder::new()
            .initial_window_size(settings.stream_window_bytes)
            .initial_connection_window_size(settings.connection_window_bytes)
            .max_frame_size(settings.frame_bytes)
            .max_concurrent_streams(settings.max_concurrent_streams)
            .max_header_list_size(settings.server_header_list_bytes)
            .max_send_buffer_size(settings.send_buffer_bytes)
            // A peer whose applications give up early resets streams we have not looked at yet.
            .max_pending_accept_reset_streams(settings.max_concurrent_streams as usize)
            .handshake(io.share())
            .await
            .map_err(|e| TunnelError::Handshake(Arc::new(e)))?;
        let keepalive = Keepalive::new(connection.ping_pong(), settings);
        Ok(Self { io, connection, keepalive })
    }

    /// The next request, or `None` when the tunnel has ended in order.
    ///
    /// Also does all reading and writing, so it must be polled as long as streams live. Dropping the future loses nothing.
    pub async fn accept(&mut self) -> Result<Option<Request>, TunnelError> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Request>, TunnelError>> {
        match self.io.turn(cx, |cx| self.connection.poll_accept(cx)) {
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Ready(Some(Ok((request, respond)))) => {
                let (head, recv) = request.into_parts();
                Poll::Ready(Ok(Some(Request { head, respond, recv })))
            }
            Poll::Ready(Some(Err(e))) => Poll::Ready(Err(TunnelError::Protocol(Arc::new(e)))),
            Poll::Pending => self.keepalive.poll_lost(cx).map(|e| {
                self.connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                Err(e)
            }),
        }
    }

    /// Tells the peer to open no more streams (GOAWAY). [`accept`](Self::accept) goes on until those there are have ended.
    pub fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }
}

impl Request {
    /// The method; only `CONNECT` makes a stream.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// `:authority` as sent, empty when there was none.
    pub fn authority(&self) -> &str {
        self.head.uri.authority().map_or("", http::uri::Authority::as_str)
    }

    /// Headers of the request.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Ready when the peer has given up before we answered: it reset the stream, or the tunnel is gone.
    ///
    /// Dropping the future loses nothing, so it can stand in a `select!` beside the work on the answer.
    pub async fn closed(&mut self) {
        let _ = poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }

    /// Accepts: answers 200 and makes the stream the application's. `None` when the peer gave up meanwhile.
    pub fn accept(mut self, headers: HeaderMap) -> Option<Stream> {
        let mut answer = Response::new(());
        *answer.headers_mut() = headers;
        let send = self.respond.send_response(answer, false).ok()?;
        Some(Stream::new(send, self.recv, None))
    }

    /// Refuses with a status and no body.
    pub fn refuse(mut self, status: StatusCode) {
        let mut answer = Response::new(());
        *answer.status_mut() = status;
        // Fails only when the peer gave up: then nobody waits for the status.
        let _ = self.respond.send_response(answer, true);
    }
}
