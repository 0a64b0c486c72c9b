//! The control plane's side of TLS. Clients prove themselves later, by a token.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use identity::{Leaf, LeafError};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admission::{Gate, Limits, Notice};
use super::server_stream::ServerStream;
use crate::certificate::{CertificateError, certified_key};
use crate::config::ALPN_H2;
use crate::error::{TlsError, diagnose};
use crate::provider;

/// Until the client's handshake must be over.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reason for which a client's handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// A TLS error.
    #[error("{0}")]
    Tls(TlsError),
    /// The connection broke.
    #[error("connection")]
    Io(#[source] io::Error),
    /// The client left before its first byte, as a probe of the port does.
    #[error("closed before the first byte")]
    Closed,
    /// No end within 10 s.
    #[error("no handshake within {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
}

impl HandshakeError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Tls(error) => error.code(),
            Self::Io(_) => "handshake_io",
            Self::Closed => "handshake_closed",
            Self::Timeout => "handshake_timeout",
        }
    }
}

/// The control plane's certificate and key. `Debug` does not show the key.
pub struct ServingCertificate {
    certified: Arc<CertifiedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl ServingCertificate {
    /// Checks that the key is the leaf's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Result<Self, CertificateError> {
        let leaf = Leaf::parse(chain.first().ok_or(CertificateError::EmptyChain)?)
            .map_err(|error: LeafError| CertificateError::Leaf(error))?;
        Ok(Self {
            certified: Arc::new(certified_key(chain, key)?),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }

    /// First moment of validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Last moment of validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCertificate").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Makes TLS connections of accepted sockets; its certificate can be replaced while it serves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
}

impl Acceptor {
    /// Serves with `certificate` until it is replaced.
    pub fn new(certificate: ServingCertificate) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::new(certificate.certified)));
        let mut config = ServerConfig::builder_with_provider(provider::control_plane())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Configuration)?
            // A node proxy has no certificate before it has asked for one here.
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Self { config: Arc::new(config), current })
    }

    /// New connections get `certificate`; those that stand are not touched.
    pub fn replace(&self, certificate: ServingCertificate) {
        self.current.0.store(certificate.certified);
    }

    /// The handshake of one accepted socket.
    pub async fn accept(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let handshake = async {
            // Probes of the port connect and close: that is not a handshake that failed, and is not worth a line at
            // `info`.
            if !matches!(socket.peek(&mut [0]).await, Ok(1..)) {
                return Err(HandshakeError::Closed);
            }
            let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(socket).await;
            stream.map_err(|error| diagnose(&error).map_or(HandshakeError::Io(error), HandshakeError::Tls))
        };
        tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or(Err(HandshakeError::Timeout))
    }

    /// Accepts from `listener`; connections appear once their handshake is over, failed ones in the log only.
    ///
    /// A connection beyond the limits is closed at once, see [`Limits`]. The task ends when the receiver is dropped.
    pub fn incoming(self, listener: TcpListener, limits: Limits) -> mpsc::Receiver<io::Result<ServerStream>> {
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let gate = Gate::new(limits);
            let mut handshakes = JoinSet::new();
            loop {
                tokio::select! {
                    // Dropping `accept` loses no connection. The gate bounds the number of handshakes.
                    accepted = listener.accept() => match accepted {
                        Ok((socket, peer)) => {
                            // Else the socket is dropped, which closes it; the gate has counted and logged why.
                            if let Ok(notice) = gate.admit(peer) {
                                handshakes.spawn(one(self.clone(), socket, peer, notice, sender.clone()));
                            }
                        }
                        Err(error) => {
                            tracing::warn!(%error, "accept failed");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    // Taken out when they end: the set would keep their results otherwise.
                    Some(_) = handshakes.join_next() => {}
                    // The server is gone: dropping the set ends the handshakes that are under way.
                    () = sender.closed() => return,
                }
            }
        });
        receiver
    }
}

async fn one(
    acceptor: Acceptor,
    socket: TcpStream,
    peer: SocketAddr,
    mut notice: Notice,
    sender: mpsc::Sender<io::Result<ServerStream>>,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, %error, "no TCP_NODELAY");
    }
    let handshake = tokio::select! {
        handshake = acceptor.accept(socket) => handshake,
        // The gate has said why.
        _ = notice.lost() => return,
    };
    match handshake {
        // A closed receiver means that nobody serves any more.
        Ok(stream) => drop(sender.send(Ok(ServerStream::new(stream, peer, notice))).await),
        Err(error @ HandshakeError::Closed) => tracing::debug!(%peer, code = error.code(), "no handshake"),
        Err(error) => tracing::info!(%peer, code = error.code(), %error, "control plane handshake failed"),
    }
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
