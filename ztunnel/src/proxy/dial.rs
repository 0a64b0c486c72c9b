//! Fourth step: opens the connection to the next hop, as a stream of a pooled tunnel or as plain TCP.
//! It chooses no destination; see `resolve`.

use super::context::PodContext;
use hbone::{Accepted, ConnectError, Driver, Tunnel};
use http::HeaderMap;
use identity::Identity;
use model::view::is_proxy_port;
use proxy_core::certificate::{self, WaitError};
use proxy_core::{TunnelSocket, validity};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tls::{TlsError, WorkloadCertificate};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Everything that makes two tunnels different.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// Who we are on it.
    pub source: Identity,
    /// Whom we accept at the other end.
    pub expected: Arc<[Identity]>,
    /// Where it goes.
    pub to: SocketAddr,
    /// The pod's address that it comes from.
    pub from: IpAddr,
}

/// How long a TCP connection may take. The handshakes on it have the same time again.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may take to answer CONNECT: it dials its application meanwhile, for [`CONNECT_TIMEOUT`] if it is
/// like us, and behind a second tunnel again.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// There is no connection to the next hop. Shared by all who waited for the same tunnel.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// TCP failed on the way out.
    #[error("io error: {0}")]
    Outbound(Arc<io::Error>),
    /// TCP failed on the way to the application.
    #[error("connection failed: {0}")]
    Inbound(Arc<io::Error>),
    /// No SYN-ACK in time; often a `NetworkPolicy` that hides the HBONE port.
    #[error("connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: no answer from {0}")]
    TunnelTimeout(SocketAddr),
    /// We have no certificate to show.
    #[error("identity error: {0}")]
    Certificate(Arc<ca_client::CertificateError>),
    /// The authority, or the way to it, took too long.
    #[error("identity error: no certificate within {0:?}")]
    CertificateTimeout(Duration),
    /// The peer is not who it has to be, or refused us.
    #[error("tls error: {0}")]
    Tls(Arc<TlsError>),
    /// TCP was there, but TLS or HTTP/2 took too long.
    #[error("tls error: no handshake with {0} in time")]
    HandshakeTimeout(SocketAddr),
    /// The peer refused the stream, or the tunnel failed.
    #[error(transparent)]
    Connect(ConnectError),
    /// The peer has the request and says neither yes nor no.
    #[error("no answer to CONNECT from {peer} within {waited:?}")]
    AnswerTimeout { peer: SocketAddr, waited: Duration },
    /// The destination is a listener of ours in the pod's namespace: the connection would come back for ever.
    #[error("attempted recursive call to ourselves")]
    SelfCall(SocketAddr),
    /// Nobody waits for the connection any more.
    #[error("the client is gone")]
    ClientGone,
}

impl DialError {
    /// Stable name for logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Outbound(_) => "io",
            Self::Inbound(_) => "connect",
            Self::TunnelTimeout(_) => "dial_timeout",
            Self::Certificate(_) => "certificate",
            Self::Tls(_) => "tls",
            Self::HandshakeTimeout(_) => "handshake_timeout",
            Self::Connect(e) => e.code(),
            Self::CertificateTimeout(_) => "certificate_timeout",
            Self::AnswerTimeout { .. } => "answer_timeout",
            Self::SelfCall(_) => "self_call",
            Self::ClientGone => "client_gone",
        }
    }
}

/// Opens a stream to `authority` over a tunnel of the pool, with `headers`, which are made anew for a second attempt.
pub async fn tunnel(
    context: &PodContext,
    key: &TunnelKey,
    authority: &str,
    headers: impl Fn() -> HeaderMap,
) -> Result<Accepted, DialError> {
    let mut retried = false;
    loop {
        // Boxed: most connections find a tunnel, and need not carry the room that a handshake takes.
        let checkout = context.pool.checkout(key, || Box::pin(open(context, key))).await?;
        let answer = timeout(ANSWER_TIMEOUT, checkout.connect(authority, headers())).await;
        match answer.map_err(|_| DialError::AnswerTimeout { peer: key.to, waited: ANSWER_TIMEOUT })? {
            Ok(accepted) => return Ok(accepted),
            // The tunnel was going away: the peer has not seen this stream.
            Err(e) if e.is_unprocessed() && !retried => retried = true,
            Err(e) => return Err(DialError::Connect(e)),
        }
    }
}

async fn open(
    context: &PodContext,
    key: &TunnelKey,
) -> Result<(Tunnel, Driver<tls::stream::TlsStream<TunnelSocket>>), DialError> {
    // A pod that calls itself has a tunnel to its own HBONE listener, and nothing comes back from there.
    if key.to.port() != contract::ports::HBONE {
        refuse_self_call(context, key.to)?;
    }
    let certificate = certificate(context, &key.source).await?;
    let config = context.tls.client(&certificate, &key.expected).map_err(|e| DialError::Tls(Arc::new(e)))?;
    let socket = timeout(CONNECT_TIMEOUT, context.pod.sockets.connect_tunnel(key.to)).await;
    let socket = match socket {
        Ok(Ok(socket)) => socket,
        Ok(Err(e)) if e.kind() != io::ErrorKind::TimedOut => return Err(DialError::Outbound(Arc::new(e))),
        Ok(Err(_)) | Err(_) => return Err(DialError::TunnelTimeout(key.to)),
    };
    let budgets = &context.shared().budgets;
    let window = budgets.window(&context.pod.usage, context.shared().tunnels.connection_window_bytes);
    let settings = window.apply(&context.shared().tunnels);
    let socket = TunnelSocket::new(socket, budgets.descriptors_in_use(&context.pod.usage, 1), window);
    let handshakes = async {
        let (tls, leaf) = tls::stream::connect(socket, config, tls::peer_leaf).await.map_err(tls_failure)?;
        let (tunnel, driver) = hbone::client::start(tls, &settings);
        let is_valid =
            validity::is_current(context.shared().certificates.clone(), certificate, leaf.map(|l| l.not_after));
        Ok((tunnel.valid_while(is_valid), driver))
    };
    timeout(CONNECT_TIMEOUT, handshakes).await.unwrap_or(Err(DialError::HandshakeTimeout(key.to)))
}

/// Returns the certificate of `identity`, once there is one.
pub async fn certificate(context: &PodContext, identity: &Identity) -> Result<Arc<WorkloadCertificate>, DialError> {
    let certificate = certificate::wait_for(&context.shared().certificates, identity, CONNECT_TIMEOUT).await;
    certificate.map_err(|e| match e {
        WaitError::Refused(e) => DialError::Certificate(e),
        WaitError::Timeout(waited) => DialError::CertificateTimeout(waited),
    })
}

/// Dials for as long as the client's socket lives. A client that has only ended its half still waits for an answer.
pub async fn for_client<T>(
    client: &TcpStream,
    dial: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    tokio::select! {
        // Both may be dropped: a dial that is shared is begun anew by the next who waits for it.
        connected = dial => connected,
        _ = client.ready(Interest::ERROR) => Err(DialError::ClientGone),
    }
}

/// What a failed handshake means.
pub fn tls_failure(e: io::Error) -> DialError {
    match tls::diagnose(&e) {
        Some(tls) => DialError::Tls(Arc::new(tls)),
        None => DialError::Outbound(Arc::new(e)),
    }
}

/// The key of the tunnel from `source` at `from`.
pub fn key(source: Identity, from: IpAddr, to: SocketAddr, expected: Vec<Identity>) -> TunnelKey {
    TunnelKey { source, expected: expected.into(), to, from }
}

/// Refuses a port of the proxy at an address of the pod's namespace, however discovery or DNS led there. When the
/// kernel does not say whose address it is, the connection is refused as well.
fn refuse_self_call(context: &PodContext, to: SocketAddr) -> Result<(), DialError> {
    let is_ours = is_proxy_port(to)
        && context.pod.sockets.is_local(to.ip()).unwrap_or_else(|error| {
            tracing::warn!(%to, %error, "failed to look up the route; the connection is refused as one to ourselves");
            true
        });
    if is_ours { Err(DialError::SelfCall(to)) } else { Ok(()) }
}

/// Plain TCP out of the pod.
pub async fn plain(context: &PodContext, to: SocketAddr) -> Result<TcpStream, DialError> {
    refuse_self_call(context, to)?;
    let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
    let connected = timeout(CONNECT_TIMEOUT, context.pod.sockets.connect(to, None)).await;
    connected.unwrap_or_else(|_| Err(timed_out())).map_err(|e| DialError::Outbound(Arc::new(e)))
}

/// TCP to the application of the pod, from `source` when given.
pub async fn application(context: &PodContext, to: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, DialError> {
    refuse_self_call(context, to)?;
    let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
    let connected = timeout(CONNECT_TIMEOUT, context.pod.sockets.connect(to, source)).await;
    connected.unwrap_or_else(|_| Err(timed_out())).map_err(|e| DialError::Inbound(Arc::new(e)))
}
