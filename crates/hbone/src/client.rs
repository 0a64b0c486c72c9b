//! The side that opens streams. It neither dials nor checks the peer's identity; see `tls::stream` and `pool`.

use crate::stream::StreamPermit;
use crate::{ConnectError, Reason, Settings, Stream, TunnelError};
use http::{HeaderMap, StatusCode};
use http2::{Cause, Engine, PendingResponse, Role, Shared};
use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncBufRead, AsyncWrite};

/// A tunnel to one peer. Clones share it; it closes when all clones and all streams are gone.
#[derive(Clone)]
pub struct Tunnel {
    connection: Rc<OpenConnection>,
    open: Rc<Cell<usize>>,
    valid: Option<Rc<dyn Fn() -> bool>>,
}

/// Closes the connection when the last clone of its tunnel is dropped.
struct OpenConnection(Shared);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.borrow_mut().close();
    }
}

/// Reads and writes for a tunnel: nothing happens unless it is polled, as a task of its own.
///
/// Ends without an error when the tunnel is no longer used. Dropping it ends all streams of the tunnel.
#[must_use = "a tunnel does nothing unless its driver is polled"]
#[derive(Debug)]
pub struct Driver<T>(Engine<T>);

/// A stream that the peer has accepted with 200.
#[derive(Debug)]
pub struct Accepted {
    /// Headers of the response.
    pub headers: HeaderMap,
    /// The stream, now the application's.
    pub stream: Stream,
}

/// Starts HTTP/2 as the client on a byte stream whose peer is authenticated. The connection preface is sent when the
/// driver is first polled.
pub fn start<T>(io: T, settings: &Settings) -> (Tunnel, Driver<T>)
where
    T: AsyncBufRead + AsyncWrite + Unpin,
{
    let engine = Engine::new(io, Role::Client, settings);
    let connection = Rc::new(OpenConnection(engine.connection().clone()));
    (Tunnel { connection, open: Rc::default(), valid: None }, Driver(engine))
}

impl<T: AsyncBufRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = Result<(), TunnelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map_err(TunnelError::from)
    }
}

impl Tunnel {
    /// Lets the tunnel take new streams only as long as `valid` returns true. Open streams go on, and the tunnel closes
    /// with the last of them. Clones made before are not affected.
    #[must_use]
    pub fn valid_while(self, valid: impl Fn() -> bool + 'static) -> Self {
        Self { valid: Some(Rc::new(valid)), ..self }
    }

    /// Opens a stream to `authority` (`ip:port`, `[v6]:port` or `host:port`).
    pub async fn connect(&self, authority: &str, headers: HeaderMap) -> Result<Accepted, ConnectError> {
        self.connect_with(self.reserve(), authority, headers).await
    }

    /// Opens a stream as [`connect`](Self::connect) does, with a permit taken before.
    pub(crate) async fn connect_with(
        &self,
        permit: Rc<StreamPermit>,
        authority: &str,
        headers: HeaderMap,
    ) -> Result<Accepted, ConnectError> {
        // Checked here, as the peer would reset the stream with PROTOCOL_ERROR, which names no cause.
        if authority.parse::<http::uri::Authority>().is_err() {
            return Err(ConnectError::Authority(authority.to_owned()));
        }
        let connection = &self.connection.0;
        if !connection.borrow().can_open()? {
            // Boxed: nearly all requests find room, and their futures stay small without the wait.
            Box::pin(self.wait_for_room()).await?;
        }
        let stream_ref = connection.borrow_mut().connect(authority, &headers);
        // Resets the stream when this future is dropped before the answer.
        let pending = PendingResponse::new(connection.clone(), stream_ref.clone(), Reason::Cancel);
        let head = poll_fn(|cx| {
            let mut stream = stream_ref.borrow_mut();
            if let Some(head) = stream.take_response() {
                return Poll::Ready(Ok(head));
            }
            match stream.abort_cause() {
                Some(cause) => Poll::Ready(Err(connect_error(cause))),
                None => {
                    stream.watch_recv(cx);
                    Poll::Pending
                }
            }
        });
        let head = head.await?;
        // Other 2xx would begin a tunnel by RFC 9110 too; no proxy sends them, and Istio's accepts 200 only.
        if head.status != StatusCode::OK {
            return Err(ConnectError::Status(head.status));
        }
        // From here on the stream itself reports how it ends.
        pending.disarm();
        Ok(Accepted { headers: head.headers, stream: Stream::new(connection.clone(), stream_ref, Some(permit)) })
    }

    async fn wait_for_room(&self) -> Result<(), ConnectError> {
        let connection = &self.connection.0;
        let wait = connection.borrow().stream_wait();
        let room = poll_fn(|cx| connection.borrow_mut().poll_ready(cx).map_err(ConnectError::from));
        tokio::time::timeout(wait, room).await.unwrap_or(Err(ConnectError::NoStreams(wait)))
    }

    /// Number of streams that are open or being opened.
    pub fn open_streams(&self) -> usize {
        self.open.get()
    }

    /// Returns whether there are fewer streams than `limit` and than the peer allows. The tunnel need not be
    /// [usable](Self::is_usable).
    pub fn has_room(&self, limit: usize) -> bool {
        self.open.get() < limit.min(self.connection.0.borrow().max_send_streams())
    }

    /// Returns whether the peer takes no streams at all for now (SETTINGS_MAX_CONCURRENT_STREAMS 0).
    pub fn is_paused(&self) -> bool {
        self.connection.0.borrow().max_send_streams() == 0
    }

    /// Returns whether new streams can be opened: the connection lives, the peer takes them, and the certificates of
    /// both sides are still [valid](Self::valid_while).
    pub fn is_usable(&self) -> bool {
        self.connection.0.borrow().is_usable() && self.valid.as_ref().is_none_or(|valid| valid())
    }

    /// Returns a permit for a stream that is about to be opened, which counts as open from here on.
    pub(crate) fn reserve(&self) -> Rc<StreamPermit> {
        StreamPermit::new(&self.open)
    }
}

fn connect_error(cause: &Cause) -> ConnectError {
    match cause {
        Cause::ResetByPeer(reason) | Cause::ResetByUs(reason) => ConnectError::Reset(*reason),
        // END_STREAM without a response before it.
        Cause::EndStream => ConnectError::Reset(Reason::NoError),
        Cause::Unprocessed => ConnectError::GoingAway,
        Cause::ConnectionLost(fault) => ConnectError::Tunnel(fault.clone()),
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("open", &self.open.get()).field("usable", &self.is_usable()).finish()
    }
}
