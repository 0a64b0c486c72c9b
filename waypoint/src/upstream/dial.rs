//! Opens connections to endpoints: a stream of a pooled tunnel whose peer has proved the identity of this very workload, or
//! plain TCP where discovery says that the workload takes no HBONE. It chooses no endpoint.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hbone::{ConnectError, Driver, StreamIo, Tunnel};
use http::HeaderMap;
use identity::Identity;
use proxy_core::certificate::{self, WaitError};
use proxy_core::{TunnelSocket, validity};
use tls::TlsError;
use tls::stream::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Upstream;
use crate::context::WorkerContext;

/// Properties by which two tunnels differ. The waypoint's own side is always the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// Identities of which the peer has to prove one.
    pub expected: Arc<[Identity]>,
    pub next_hop: SocketAddr,
}

/// Time that a TCP connection may take; the handshakes on it have the same time again (Istio's `connectTimeout`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a node proxy has to answer CONNECT: it dials its application meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// No connection to an endpoint. Shared by all requests that waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// No SYN-ACK in time.
    #[error("no answer from {0} in time")]
    Timeout(SocketAddr),
    /// There is no certificate for the waypoint itself.
    #[error("no certificate: {0}")]
    Certificate(String),
    /// The peer has proved another identity than the expected one, or has refused ours.
    #[error("tls: {0}")]
    Tls(Arc<TlsError>),
    /// The endpoint takes HBONE, and nobody knows its identity.
    #[error("workload {0} has no identity")]
    NoIdentity(model::Text),
    /// The node proxy refused the stream, or the tunnel failed.
    #[error(transparent)]
    Connect(ConnectError),
    /// The endpoint does not speak the protocol that its service declares.
    #[error("http: {0}")]
    Http(Arc<hyper::Error>),
}

/// A connection to an endpoint, for HTTP or for bytes.
pub struct Connection {
    pub transport: Transport,
    /// The tunnel that carries it; whether it may be used again is for the tunnel to say.
    pub tunnel: Option<Tunnel>,
}

/// Byte stream to an endpoint.
#[derive(Debug)]
pub enum Transport {
    Tunnel(StreamIo),
    Tcp(TcpStream),
}

/// Connects to an endpoint.
pub async fn connect(context: &WorkerContext, upstream: &Upstream) -> Result<Connection, DialError> {
    let address = upstream.endpoint.address;
    let Some(expected) = &upstream.expected else {
        let socket = tcp(address).await?;
        return Ok(Connection { transport: Transport::Tcp(socket), tunnel: None });
    };
    if expected.is_empty() {
        return Err(DialError::NoIdentity(upstream.endpoint.workload.uid.clone()));
    }
    let next_hop = SocketAddr::new(address.ip(), contract::ports::HBONE);
    let key = TunnelKey { expected: expected.clone(), next_hop };
    let authority = address.to_string();
    let mut is_second = false;
    loop {
        // Boxed: most connections find a tunnel, and need not carry the room that a handshake takes.
        let checkout = context.tunnels.checkout(&key, || Box::pin(open(context, &key))).await?;
        let tunnel = checkout.tunnel.clone();
        match timeout(ANSWER_TIMEOUT, checkout.connect(&authority, HeaderMap::new())).await {
            Ok(Ok(accepted)) => {
                let transport = Transport::Tunnel(StreamIo::new(accepted.stream));
                return Ok(Connection { transport, tunnel: Some(tunnel) });
            }
            // The peer was closing the tunnel, and has not seen this stream. Once only: a peer that does so again would be
            // tried without end.
            Ok(Err(e)) if e.is_unprocessed() && !is_second => is_second = true,
            Ok(Err(e)) => return Err(DialError::Connect(e)),
            Err(_) => return Err(DialError::Timeout(next_hop)),
        }
    }
}

async fn open(
    context: &WorkerContext,
    key: &TunnelKey,
) -> Result<(Tunnel, Driver<TlsStream<TunnelSocket>>), DialError> {
    let shared = &context.shared;
    // Before TCP: the peer would time out a connection that waits for our certificate.
    let own = certificate::wait_for(&shared.certificates, &shared.identity, CONNECT_TIMEOUT).await;
    let own = own.map_err(|e| match e {
        WaitError::Refused(e) => DialError::Certificate(e.to_string()),
        WaitError::Timeout(waited) => DialError::Certificate(format!("none within {waited:?}")),
    })?;
    let config = context.tls.client(&own, &key.expected).map_err(|e| DialError::Tls(Arc::new(e)))?;
    let socket = tcp(key.next_hop).await?;
    let window = shared.budgets.window(&shared.usage, shared.tunnels.connection_window_bytes);
    let settings = window.apply(&shared.tunnels);
    let socket = TunnelSocket::new(socket, shared.budgets.descriptors_in_use(&shared.usage, 1), window);
    let handshakes = async {
        let (tls, leaf) = tls::stream::connect(socket, config, tls::peer_leaf).await.map_err(tls_failure)?;
        let (tunnel, driver) = hbone::client::start(tls, &settings);
        let is_valid = validity::is_current(shared.certificates.clone(), own, leaf.map(|leaf| leaf.not_after));
        Ok((tunnel.valid_while(is_valid), driver))
    };
    timeout(CONNECT_TIMEOUT, handshakes).await.unwrap_or(Err(DialError::Timeout(key.next_hop)))
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, DialError> {
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(socket)) => {
            // Fails only on a socket that is gone, which the next write finds.
            let _ = socket.set_nodelay(true);
            Ok(socket)
        }
        Ok(Err(e)) => Err(DialError::Io(Arc::new(e))),
        Err(_) => Err(DialError::Timeout(address)),
    }
}

fn tls_failure(e: io::Error) -> DialError {
    match tls::diagnose(&e) {
        Some(tls) => DialError::Tls(Arc::new(tls)),
        None => DialError::Io(Arc::new(e)),
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
