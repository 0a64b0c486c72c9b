//! The side that opens streams. It neither dials nor checks who answered; see `tls` and `pool`.

use crate::cork::Cork;
use crate::keepalive::Keepalive;
use crate::stream::Place;
use crate::{ConnectError, Settings, Stream, TunnelError};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite};

/// A tunnel to one peer. Clones share it; it closes when all clones and all streams are gone.
#[derive(Clone)]
pub struct Tunnel {
    requests: h2::client::SendRequest<Bytes>,
    open: Rc<Cell<usize>>,
    broken: Rc<Cell<bool>>,
}

/// Does the reading and writing of a tunnel: must be polled (spawned) for anything to happen.
///
/// Ends without an error when the tunnel is no longer used. Dropping it cuts the tunnel.
#[must_use = "a tunnel does nothing unless its driver is polled"]
pub struct Driver<T: AsyncRead + AsyncWrite + Unpin> {
    io: Cork<T>,
    connection: h2::client::Connection<Cork<T>, Bytes>,
    keepalive: Keepalive,
    broken: Rc<Cell<bool>>,
}

/// What a peer answered with 200.
#[derive(Debug)]
pub struct Accepted {
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// The stream, now the application's.
    pub stream: Stream,
}

/// Starts HTTP/2 as the client on a byte stream whose peer is already proven.
pub async fn handshake<T>(io: T, settings: &Settings) -> Result<(Tunnel, Driver<T>), TunnelError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let io = Cork::new(io);
    let (requests, mut connection) = h2::client::Builder::new()
        .initial_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes)
        .max_frame_size(settings.frame_bytes)
        .initial_max_send_streams(settings.initial_streams)
        .max_header_list_size(settings.client_header_list_bytes)
        .max_send_buffer_size(settings.send_buffer_bytes)
        .enable_push(false)
        .handshake(io.share())
        .await
        .map_err(|e| TunnelError::Handshake(Arc::new(e)))?;
    let keepalive = Keepalive::new(connection.ping_pong(), settings);
    let broken = Rc::new(Cell::new(false));
    let tunnel = Tunnel { requests, open: Rc::default(), broken: broken.clone() };
    Ok((tunnel, Driver { io, connection, keepalive, broken }))
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = Result<(), TunnelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let turn = this.io.turn(cx, |cx| Pin::new(&mut this.connection).poll(cx));
        let end = match turn {
            Poll::Ready(r) => r.map_err(|e| TunnelError::Protocol(Arc::new(e))),
            Poll::Pending => match this.keepalive.poll_lost(cx) {
                Poll::Ready(e) => Err(e),
                Poll::Pending => return Poll::Pending,
            },
        };
        this.broken.set(true);
        Poll::Ready(end)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Drop for Driver<T> {
    fn drop(&mut self) {
        self.broken.set(true);
    }
}

impl Tunnel {
    /// Opens a stream to `authority` (`ip:port`, `[v6]:port` or `host:port`).
    pub async fn connect(&self, authority: &str, headers: HeaderMap) -> Result<Accepted, ConnectError> {
        self.connect_at(self.reserve(), authority, headers).await
    }

    /// As [`connect`](Self::connect), on a place kept before.
    pub(crate) async fn connect_at(
        &self,
        place: Rc<Place>,
        authority: &str,
        headers: HeaderMap,
    ) -> Result<Accepted, ConnectError> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = authority.parse().map_err(|_| ConnectError::Authority(authority.to_owned()))?;
        *request.headers_mut() = headers;
        let failed = |e| ConnectError::Protocol(Arc::new(e));
        let mut requests = self.requests.clone();
        poll_fn(|cx| requests.poll_ready(cx)).await.map_err(failed)?;
        let (answer, send) = requests.send_request(request, false).map_err(failed)?;
        let (head, recv) = answer.await.map_err(failed)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(ConnectError::Status(head.status));
        }
        Ok(Accepted { headers: head.headers, stream: Stream::new(send, recv, Some(place)) })
    }

    /// Streams open or being opened.
    pub fn open_streams(&self) -> usize {
        self.open.get()
    }

    /// Whether there are fewer streams than `limit` and than the peer allows. Says nothing of whether it is
    /// [usable](Self::is_usable), which costs more to ask.
    pub fn has_room(&self, limit: usize) -> bool {
        self.open.get() < limit.min(self.requests.current_max_send_streams())
    }

    /// Whether the tunnel lives and the peer takes new streams.
    pub fn is_usable(&self) -> bool {
        let ready = self.requests.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !self.broken.get() && !matches!(ready, Poll::Ready(Err(_)))
    }

    /// A place kept for a stream that is about to be opened, so that others see it as taken.
    pub(crate) fn reserve(&self) -> Rc<Place> {
        Place::take(&self.open)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("open", &self.open.get()).field("broken", &self.broken.get()).finish()
    }
}
