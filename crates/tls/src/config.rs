//! The two TLS configurations between proxies. Callers keep them per certificate: making one costs no handshake
//! but some allocations.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use identity::{Identity, Leaf};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, ServerConfig};
use rustls_pki_types::ServerName;

use crate::certificate::WorkloadCertificate;
use crate::error::TlsError;
use crate::provider;
use crate::verify::{ClientVerifier, ServerVerifier};

/// The application protocol of HBONE.
pub const ALPN_H2: &[u8] = b"h2";

/// For accepted connections: TLS 1.3, a client certificate of our trust domain is required, ALPN `h2`.
///
/// Clients are checked against the roots that came with `certificate`. AES-128-GCM is chosen whenever the client offers
/// it, whatever the client's order. Secrets may be extracted, which a data path that seals records itself needs.
pub fn server_config(certificate: &WorkloadCertificate) -> Result<Arc<ServerConfig>, TlsError> {
    let trust_domain = certificate.identity().trust_domain();
    let verifier = ClientVerifier::new(Arc::clone(certificate.store()), trust_domain)
        .map_err(|error| TlsError::Configuration(rustls::Error::General(error.to_string())))?;
    let mut config = ServerConfig::builder_with_provider(provider::mesh())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Configuration)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certificate.certified()))));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.ignore_client_order = true;
    // No resumption: a session that is resumed shows no certificate, and could outlive the one it began with.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// For dialled connections: TLS 1.3, no SNI, no resumption, ALPN `h2`; one of the server's SPIFFE ids must be in
/// `expected`.
///
/// # Errors
/// [`TlsError::NothingExpected`] when `expected` is empty.
pub fn client_config(certificate: &WorkloadCertificate, expected: &[Identity]) -> Result<Arc<ClientConfig>, TlsError> {
    if expected.is_empty() {
        return Err(TlsError::NothingExpected);
    }
    let verifier = ServerVerifier::new(Arc::clone(certificate.store()), expected);
    let mut config = ClientConfig::builder_with_provider(provider::mesh())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Configuration)?
        // rustls calls every verifier of ours dangerous. This one leaves out the host name, which peers do not have,
        // and checks the SPIFFE id in its place; chain, usage and validity are checked as usual.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certificate.certified()))));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // Peers are dialed by address, and a name would tell everybody on the way which service is meant.
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// The server name to dial with: an address that is never sent, for there is no SNI between proxies.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
}

/// The peer's certificate, after the handshake.
pub fn peer_leaf(connection: &CommonState) -> Option<Leaf> {
    Leaf::parse(connection.peer_certificates()?.first()?).ok()
}

/// The first SPIFFE id of the peer's certificate, after the handshake.
pub fn peer_identity(connection: &CommonState) -> Option<Identity> {
    peer_leaf(connection)?.identity().cloned()
}
