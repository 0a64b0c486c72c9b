//! One HTTP/1.1 connection to an endpoint.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use hbone::Tunnel;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::{Connection, Transport};
use crate::http::body::RequestBody;

/// Longest head of an answer, bytes; Envoy's limit.
const MAX_HEAD_BYTES: usize = 60 << 10;

/// Byte stream of a connection behind its last HTTP message, and what was read of it already.
pub struct Raw {
    pub transport: Transport,
    pub read: Bytes,
}

/// Receiver of the byte stream when the endpoint agrees to leave HTTP. Without one, the stream is closed.
pub(super) type UpgradeSlot = Rc<RefCell<Option<oneshot::Sender<Raw>>>>;

/// A connection that carries one request at a time.
pub(super) struct Http1 {
    pub sender: SendRequest<RequestBody>,
    pub upgrade: UpgradeSlot,
    tunnel: Option<Tunnel>,
}

impl Http1 {
    /// Starts HTTP on a connection. Its driver is a task of this thread, which ends with the connection.
    pub(super) async fn start(connection: Connection) -> hyper::Result<Self> {
        let Connection { transport, tunnel } = connection;
        let mut builder = http1::Builder::new();
        builder.max_header_size(MAX_HEAD_BYTES);
        let (sender, driver) = builder.handshake(TokioIo::new(transport)).await?;
        let upgrade = UpgradeSlot::default();
        let slot = upgrade.clone();
        tokio::task::spawn_local(async move {
            // Errors are those of the request, which gets them too.
            let Ok(parts) = driver.without_shutdown().await else { return };
            let raw = Raw { transport: parts.io.into_inner(), read: parts.read_buf };
            if let Some(receiver) = slot.borrow_mut().take() {
                // Gone with its request: dropping the stream resets it.
                let _ = receiver.send(raw);
            }
        });
        Ok(Self { sender, upgrade, tunnel })
    }

    /// Returns true if it can carry a request now.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready() && self.is_current()
    }

    /// Returns true if it may be kept.
    pub(super) fn is_alive(&self) -> bool {
        !self.sender.is_closed() && self.is_current()
    }

    /// Certificates of its tunnel are still good.
    fn is_current(&self) -> bool {
        self.tunnel.as_ref().is_none_or(Tunnel::is_usable)
    }
}
