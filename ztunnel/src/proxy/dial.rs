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

/// Properties by which two tunnels differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// Identity of this side.
    pub source: Identity,
    /// Identities that are accepted at the other end.
    pub expected: Arc<[Identity]>,
    /// Address of the peer.
    pub next_hop: SocketAddr,
    /// Address of the pod that it comes from.
    pub client: IpAddr,
}

/// Time that a TCP connection may take. The handshakes on it have the same time again.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a peer has to answer CONNECT: it dials its application meanwhile, for [`CONNECT_TIMEOUT`] if it is
/// like us, and behind a second tunnel again.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A dial that failed. Shared by all connections that waited for the same tunnel.
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
    /// There is no certificate for this side.
    #[error("identity error: {0}")]
    Certificate(Arc<ca_client::CertificateError>),
    /// The authority, or the way to it, took too long.
    #[error("identity error: no certificate within {0:?}")]
    CertificateTimeout(Duration),
    /// The peer has proven another identity than the expected one, or has refused ours.
    #[error("tls error: {0}")]
    Tls(Arc<TlsError>),
    /// TCP was there, but TLS or HTTP/2 took too long.
    #[error("tls error: no handshake with {0} in time")]
    HandshakeTimeout(SocketAddr),
    /// The peer refused the stream, or the tunnel failed.
    #[error(transparent)]
    Connect(ConnectError),
    /// The peer has not answered the request.
    #[error("no answer to CONNECT from {peer} within {waited:?}")]
    AnswerTimeout { peer: SocketAddr, waited: Duration },
    /// The next hop is a listener of this proxy in the pod's namespace: the connection would come back without end.
    #[error("attempted recursive call to ourselves")]
    SelfCall(SocketAddr),
    /// The client has closed or reset its connection.
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
        match answer.map_err(|_| DialError::AnswerTimeout { peer: key.next_hop, waited: ANSWER_TIMEOUT })? {
            Ok(accepted) => return Ok(accepted),
            // The peer was closing the tunnel (GOAWAY) and has not processed this stream, so a second attempt is safe. Once
            // only: a peer that does so again would be tried without end.
            Err(e) if e.is_unprocessed() && !retried => retried = true,
            Err(e) => return Err(DialError::Connect(e)),
        }
    }
}

async fn open(
    context: &PodContext,
    key: &TunnelKey,
) -> Result<(Tunnel, Driver<tls::stream::TlsStream<TunnelSocket>>), DialError> {
    // A pod that calls itself has a tunnel to its own HBONE listener, which does not dial the proxy again.
    if key.next_hop.port() != contract::ports::HBONE {
        refuse_self_call(context, key.next_hop)?;
    }
    // Before TCP: a pod without a certificate must not hold connections that the peer would time out.
    let certificate = certificate(context, &key.source).await?;
    let config = context.tls.client(&certificate, &key.expected).map_err(|e| DialError::Tls(Arc::new(e)))?;
    let socket = timeout(CONNECT_TIMEOUT, context.pod.sockets.connect_tunnel(key.next_hop)).await;
    let socket = match socket {
        Ok(Ok(socket)) => socket,
        // The kernel's own timeout and ours mean the same: packets are dropped on the way, most often by a
        // NetworkPolicy.
        Ok(Err(e)) if e.kind() != io::ErrorKind::TimedOut => return Err(DialError::Outbound(Arc::new(e))),
        Ok(Err(_)) | Err(_) => return Err(DialError::TunnelTimeout(key.next_hop)),
    };
    let budgets = &context.shared().budgets;
    // Taken when TCP stands, so that dials that hang hold nothing of the pod's budget of unread bytes. It lives with
    // the socket, whose end is that of the tunnel.
    let window = budgets.window(&context.pod.usage, context.shared().tunnels.connection_window_bytes);
    let settings = window.apply(&context.shared().tunnels);
    let socket = TunnelSocket::new(socket, budgets.descriptors_in_use(&context.pod.usage, 1), window);
    // The second deadline begins here: TLS and HTTP/2 together, with a peer whose kernel has answered already.
    let handshakes = async {
        let (tls, leaf) = tls::stream::connect(socket, config, tls::peer_leaf).await.map_err(tls_failure)?;
        let (tunnel, driver) = hbone::client::start(tls, &settings);
        // New streams go to another tunnel when either certificate has expired or ours was rotated; see `validity`.
        let is_valid =
            validity::is_current(context.shared().certificates.clone(), certificate, leaf.map(|l| l.not_after));
        Ok((tunnel.valid_while(is_valid), driver))
    };
    timeout(CONNECT_TIMEOUT, handshakes).await.unwrap_or(Err(DialError::HandshakeTimeout(key.next_hop)))
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

/// Returns the error of a failed handshake.
pub fn tls_failure(e: io::Error) -> DialError {
    match tls::diagnose(&e) {
        Some(tls) => DialError::Tls(Arc::new(tls)),
        None => DialError::Outbound(Arc::new(e)),
    }
}

/// Refuses a port of the proxy at an address of the pod's namespace, whatever discovery or DNS led there. When the kernel
/// does not say whether the address is local, the connection is refused as well.
fn refuse_self_call(context: &PodContext, next_hop: SocketAddr) -> Result<(), DialError> {
    let is_ours = is_proxy_port(next_hop)
        && context.pod.sockets.is_local(next_hop.ip()).unwrap_or_else(|error| {
            tracing::warn!(
                to = %next_hop, %error,
                "failed to look up the route; the connection is refused as one to ourselves"
            );
            true
        });
    if is_ours { Err(DialError::SelfCall(next_hop)) } else { Ok(()) }
}

/// Connects by plain TCP out of the pod.
pub fn plain(context: &PodContext, next_hop: SocketAddr) -> impl Future<Output = Result<TcpStream, DialError>> {
    connect(context, next_hop, None, DialError::Outbound)
}

/// Connects by TCP to the application of the pod, from `source` when given.
pub fn application(
    context: &PodContext,
    next_hop: SocketAddr,
    source: Option<IpAddr>,
) -> impl Future<Output = Result<TcpStream, DialError>> {
    connect(context, next_hop, source, DialError::Inbound)
}

async fn connect(
    context: &PodContext,
    next_hop: SocketAddr,
    source: Option<IpAddr>,
    failed: impl Fn(Arc<io::Error>) -> DialError,
) -> Result<TcpStream, DialError> {
    refuse_self_call(context, next_hop)?;
    // The kernel alone would try for two minutes (`net.ipv4.tcp_syn_retries`).
    let connected = timeout(CONNECT_TIMEOUT, context.pod.sockets.connect(next_hop, source)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|e| failed(Arc::new(e)))
}
