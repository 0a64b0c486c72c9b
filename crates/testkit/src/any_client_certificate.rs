//! A server's verifier that accepts every client certificate, and still checks that the client holds its key. For peers in
//! tests only.

use std::sync::Arc;

use lab::AnyCertificate;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

/// Checks signatures as [`AnyCertificate`] does.
#[derive(Debug)]
pub(crate) struct AnyClientCertificate(AnyCertificate);

impl AnyClientCertificate {
    pub(crate) const fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(AnyCertificate::new(provider))
    }
}

impl ClientCertVerifier for AnyClientCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints, so that a client sends whatever certificate it has.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        // A peer without a certificate is a case that tests ask about.
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // The chain is not looked at; `verify_tls13_signature` still proves that the client holds the key.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
