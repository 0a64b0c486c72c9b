//! One HTTP/2 connection to an endpoint, shared by as many requests as it has room for.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;

use hbone::Tunnel;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{Connection, LocalExec};
use crate::http::body::RequestBody;

/// Requests on one connection; further ones get another connection. A server may allow fewer.
const MAX_REQUESTS: usize = 100;
/// Room for bytes of one answer that the client has not taken yet.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Room for those of all answers of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Longest head of an answer, bytes; Envoy's limit.
const MAX_HEAD_BYTES: u32 = 60 << 10;

/// A connection with the number of its requests.
pub(super) struct Http2 {
    pub sender: SendRequest<RequestBody>,
    active: Cell<usize>,
    /// Requests that the server takes at a time.
    allowed: Rc<Cell<usize>>,
    pub last_use: Cell<Instant>,
    tunnel: Option<Tunnel>,
}

/// One of its requests.
pub(super) struct Slot(Rc<Http2>);

impl Http2 {
    /// Starts HTTP on a connection. Its driver is a task of this thread, which ends with the connection.
    pub(super) async fn start(connection: Connection) -> hyper::Result<Self> {
        let Connection { transport, tunnel } = connection;
        let mut builder = http2::Builder::new(LocalExec);
        builder
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(MAX_HEAD_BYTES)
            .initial_max_send_streams(MAX_REQUESTS);
        let (sender, mut driver) = builder.handshake(TokioIo::new(transport)).await?;
        let allowed = Rc::new(Cell::new(MAX_REQUESTS));
        let seen = allowed.clone();
        tokio::task::spawn_local(poll_fn(move |cx| {
            // Errors are those of the requests, which get them too.
            let end = Pin::new(&mut driver).poll(cx).map(drop);
            seen.set(driver.current_max_send_streams());
            end
        }));
        Ok(Self { sender, active: Cell::new(0), allowed, last_use: Cell::new(Instant::now()), tunnel })
    }

    /// Takes the place of one request, if there is one.
    pub(super) fn reserve(self: &Rc<Self>) -> Option<Slot> {
        let most = MAX_REQUESTS.min(self.allowed.get());
        if self.active.get() >= most || !self.is_alive() {
            return None;
        }
        self.active.set(self.active.get() + 1);
        self.last_use.set(Instant::now());
        Some(Slot(self.clone()))
    }

    /// Returns true if it may be kept.
    pub(super) fn is_alive(&self) -> bool {
        !self.sender.is_closed() && self.tunnel.as_ref().is_none_or(Tunnel::is_usable)
    }

    /// Returns true if it carries a request.
    pub(super) fn is_busy(&self) -> bool {
        self.active.get() > 0
    }
}

impl Slot {
    /// The connection.
    pub(super) fn connection(&self) -> &Http2 {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}
