//! Dials the control plane: name, TCP, TLS. What is said over the connection is gRPC's business.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::roots::{RootSource, RootsError};
use crate::config::ALPN_H2;
use crate::error::{TlsError, diagnose};
use crate::provider;

/// Until the name is resolved.
const NAME_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the TCP connection stands, for each address of the name.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the TLS handshake is over.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Istio's values for connections to the control plane.
const KEEPALIVE_TIME: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
const KEEPALIVE_RETRIES: u32 = 9;

/// Reason for which there is no connection to the control plane.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address has no host, or one that is not a name.
    #[error("{0} is not an address of a control plane")]
    Address(String),
    /// The name is not known.
    #[error("name {host}")]
    Name {
        host: String,
        #[source]
        cause: io::Error,
    },
    /// No address of the host answers.
    #[error("connection to {host}:{port}")]
    Tcp {
        host: String,
        port: u16,
        #[source]
        cause: io::Error,
    },
    /// The roots cannot be loaded.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The handshake failed.
    #[error("TLS with {host}: {cause}")]
    Tls { host: String, cause: TlsError },
    /// The connection broke in the handshake.
    #[error("handshake with {host}")]
    Handshake {
        host: String,
        #[source]
        cause: io::Error,
    },
}

impl ConnectError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Address(_) => "control_plane_address",
            Self::Name { .. } => "control_plane_name",
            Self::Tcp { .. } => "control_plane_tcp",
            Self::Roots(error) => error.code(),
            Self::Tls { cause, .. } => cause.code(),
            Self::Handshake { .. } => "control_plane_handshake",
        }
    }
}

/// Connects gRPC channels: a `tower::Service<Uri>` for `Endpoint::connect_with_connector`.
///
/// `https` addresses get TLS with the roots as they are at that moment, `http` addresses plain TCP.
#[derive(Clone, Debug)]
pub struct Connector {
    roots: RootSource,
    alternative: Option<String>,
}

impl Connector {
    /// `alternative` is a further host name that the control plane's certificate may have.
    pub fn new(roots: RootSource, alternative: Option<String>) -> Self {
        Self { roots, alternative }
    }

    /// Opens one connection to `address`.
    pub async fn connect(&self, address: &Uri) -> Result<ControlStream, ConnectError> {
        let unusable = || ConnectError::Address(address.to_string());
        // A URI has IPv6 hosts in brackets.
        let host = address.host().ok_or_else(unusable)?.trim_matches(['[', ']']);
        let plain = address.scheme_str() == Some("http");
        let port = address.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let name = ServerName::try_from(host.to_owned()).map_err(|_| unusable())?;
        // Roots first: a wrong path is told even while nobody answers.
        let config = if plain { None } else { Some(self.client_config().await?) };
        let tcp = dial(host, port).await?;
        // `http`: plain TCP.
        let Some(config) = config else {
            return Ok(ControlStream::Plain(tcp));
        };
        let handshake = TlsConnector::from(config).connect(name, tcp);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(ControlStream::Tls(Box::new(stream))),
            Ok(Err(cause)) => Err(handshake_error(host, cause)),
            Err(_) => Err(handshake_error(host, io::ErrorKind::TimedOut.into())),
        }
    }

    async fn client_config(&self) -> Result<Arc<ClientConfig>, ConnectError> {
        let roots = Arc::new(self.roots.load().await?);
        let failed =
            |cause| ConnectError::Tls { host: "control plane".to_owned(), cause: TlsError::Configuration(cause) };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider::control_plane())
            .build()
            .map_err(|error| failed(rustls::Error::General(error.to_string())))?;
        let alternative = match &self.alternative {
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| ConnectError::Address(name.clone()))?),
            None => None,
        };
        let mut config = ClientConfig::builder_with_provider(provider::control_plane())
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            // rustls calls every verifier of ours dangerous. This one is rustls's own, asked a second time with another
            // name.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(EitherName { verifier, alternative }))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Arc::new(config))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<ControlStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Each call opens a connection of its own: there is nothing to wait for.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&address).await.map(TokioIo::new) })
    }
}

fn handshake_error(host: &str, cause: io::Error) -> ConnectError {
    let host = host.to_owned();
    match diagnose(&cause) {
        Some(cause) => ConnectError::Tls { host, cause },
        None => ConnectError::Handshake { host, cause },
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let lookup = tokio::time::timeout(NAME_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let addresses = lookup
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|cause| ConnectError::Name { host: host.to_owned(), cause })?;
    // The answer for a name without any address.
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    // In the resolver's order; each has its own time, so one that swallows packets does not use up that of the others.
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => match prepare(&stream) {
                Ok(()) => return Ok(stream),
                Err(cause) => last = cause,
            },
            Ok(Err(cause)) => last = cause,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(ConnectError::Tcp { host: host.to_owned(), port, cause: last })
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Discovery is silent while nothing changes. A peer that is gone without a word has to be noticed all the same.
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// The host name of the address, or else the alternative one.
#[derive(Debug)]
struct EitherName {
    verifier: Arc<WebPkiServerVerifier>,
    alternative: Option<ServerName<'static>>,
}

impl ServerCertVerifier for EitherName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |name: &ServerName<'_>| {
            self.verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let first = verify(server_name);
        match (&first, &self.alternative) {
            // Only a wrong name gets a second try: a bad signature or an expired certificate does not.
            (Err(rustls::Error::InvalidCertificate(error)), Some(alternative)) if is_name(error) => verify(alternative),
            _ => first,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn is_name(error: &CertificateError) -> bool {
    matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
}

/// A connection to the control plane.
#[derive(Debug)]
pub enum ControlStream {
    /// `https`.
    Tls(Box<TlsStream<TcpStream>>),
    /// `http`.
    Plain(TcpStream),
}

impl AsyncRead for ControlStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for ControlStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buffer),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buffer),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
