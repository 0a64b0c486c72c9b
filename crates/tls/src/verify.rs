//! Decides whether a peer's certificate is acceptable between proxies. Names of hosts play no part.

use std::sync::Arc;

use identity::{Identity, Leaf};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::error::Refusal;
use crate::provider;

/// Checks clients: chain, clientAuth, validity, and the trust domain of their first SPIFFE id.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl ClientVerifier {
    /// Accepts clients of `trust_domain` whose chain ends in `roots`.
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        trust_domain: &str,
    ) -> Result<Self, rustls::client::VerifierBuilderError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider::mesh())
            // Clients send their one certificate whatever issuers we name: the names are bytes only.
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { chain, trust_domain: trust_domain.to_owned() })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Chain first: the names of a certificate that nobody has signed mean nothing.
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let leaf = Leaf::parse(end_entity).map_err(|_| Refusal::Malformed)?;
        let identity = leaf.identity().ok_or(Refusal::NoIdentity)?;
        if identity.trust_domain() != self.trust_domain {
            return Err(Refusal::WrongTrustDomain {
                found: identity.trust_domain().to_owned(),
                expected: self.trust_domain.clone(),
            }
            .into());
        }
        Ok(verified)
    }

    // rustls asks for it; it is not called, since only TLS 1.3 is configured.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Checks servers: chain, serverAuth, validity, and that one of their SPIFFE ids is expected.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    roots: Arc<RootCertStore>,
    expected: Vec<Identity>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// Accepts servers that are one of `expected` and whose chain ends in `roots`.
    pub(crate) fn new(roots: Arc<RootCertStore>, expected: &[Identity]) -> Self {
        let algorithms = provider::mesh().signature_verification_algorithms;
        Self { roots, expected: expected.to_vec(), algorithms }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        // Chain first: the names of a certificate that nobody has signed mean nothing.
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, self.algorithms.all)?;
        let leaf = Leaf::parse(end_entity).map_err(|_| Refusal::Malformed)?;
        // The host name is not checked: peers are addressed by IP, and identities say who they are.
        if leaf.identities().iter().any(|found| self.expected.contains(found)) {
            return Ok(ServerCertVerified::assertion());
        }
        // Told apart from a wrong identity: this peer's certificate is not one of the mesh at all.
        if leaf.identities().is_empty() {
            return Err(Refusal::NoIdentity.into());
        }
        Err(Refusal::WrongIdentity { found: leaf.identities().to_vec(), expected: self.expected.clone() }.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

    #[test]
    fn no_changed_byte_makes_a_verifier_panic_or_accept() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        let roots = Arc::new(roots);
        let issuer = Issuer::new(params, key);
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap())];
        leaf.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let der = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().to_vec();
        let of_clients = ClientVerifier::new(Arc::clone(&roots), "td").unwrap();
        let of_servers = ServerVerifier::new(roots, &["spiffe://td/ns/a/sa/b".parse().unwrap()]);
        let name = crate::config::server_name();
        let accepted = |der: &[u8]| {
            let (der, now) = (CertificateDer::from(der), UnixTime::now());
            let client = of_clients.verify_client_cert(&der, &[], now).is_ok();
            (client, of_servers.verify_server_cert(&der, &[], &name, &[], now).is_ok())
        };

        assert_eq!(accepted(&der), (true, true));
        for position in 0..der.len() {
            let mut changed = der.clone();
            changed[position] ^= 0x41;
            assert_eq!(accepted(&changed), (false, false), "byte {position}");
            assert_eq!(accepted(&der[..position]), (false, false), "cut at {position}");
        }
    }
}
