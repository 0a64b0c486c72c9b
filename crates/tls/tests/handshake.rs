//! Real handshakes between proxies over loopback: who gets in, and what the others are told.

mod common;

use std::sync::Arc;
use std::time::SystemTime;

use common::{Ca, HOUR, Leaf, id, meet};
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::CipherSuite;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tls::{Refusal, TlsError, WorkloadCertificate, client_config, server_config};

const WEB: &str = "td/ns/shop/sa/web";
const DB: &str = "td/ns/shop/sa/db";

/// `client` dials `server` and expects it to be `WEB`.
async fn between(server: &WorkloadCertificate, client: &WorkloadCertificate) -> common::Meeting {
    meet(server_config(server).unwrap(), client_config(client, &[id(WEB)]).unwrap()).await
}

#[tokio::test]
async fn members_of_one_mesh_learn_each_others_identity() {
    let ca = Ca::new();

    let meeting = between(&ca.member(WEB), &ca.member(DB)).await;

    assert_eq!(meeting.server.unwrap(), Some(id(DB)));
    assert_eq!(meeting.client.unwrap(), Some(id(WEB)));
}

#[tokio::test]
async fn one_of_several_expected_identities_is_enough() {
    let ca = Ca::new();
    let client = client_config(&ca.member(DB), &[id(DB), id(WEB)]).unwrap();

    let meeting = meet(server_config(&ca.member(WEB)).unwrap(), client).await;

    assert_eq!(meeting.client.unwrap(), Some(id(WEB)));
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused() {
    let ca = Ca::new();

    let meeting = between(&ca.member("td/ns/shop/sa/evil"), &ca.member(DB)).await;

    let error = meeting.client.unwrap_err();
    assert_eq!(error.code(), "wrong_identity");
    let TlsError::Refused(Refusal::WrongIdentity { found, expected }) = error else { panic!("{error}") };
    assert_eq!((found, expected), (vec![id("td/ns/shop/sa/evil")], vec![id(WEB)]));
    assert_eq!(meeting.server.unwrap_err().code(), "refused_by_peer");
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused() {
    let ca = Ca::new();

    let meeting = between(&ca.member(WEB), &ca.member("elsewhere/ns/shop/sa/db")).await;

    let error = meeting.server.unwrap_err();
    assert_eq!(error.code(), "wrong_trust_domain");
    assert_eq!(error.to_string(), "peer is of trust domain elsewhere, expected td");
    assert_eq!(meeting.client.unwrap_err().code(), "refused_by_peer");
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides() {
    let ca = Ca::new();
    let now = SystemTime::now();
    let expired = |identity: &str| ca.workload(&Leaf { from: now - 2 * HOUR, to: now - HOUR, ..Leaf::of(identity) });

    let by_server = between(&ca.member(WEB), &expired(DB)).await;
    let by_client = between(&expired(WEB), &ca.member(DB)).await;

    assert_eq!(by_server.server.unwrap_err().code(), "certificate_expired");
    assert_eq!(by_client.client.unwrap_err().code(), "certificate_expired");
}

#[tokio::test]
async fn certificates_of_the_future_are_refused() {
    let ca = Ca::new();
    let now = SystemTime::now();
    let early = ca.workload(&Leaf { from: now + HOUR, to: now + 2 * HOUR, ..Leaf::of(DB) });

    let meeting = between(&ca.member(WEB), &early).await;

    assert_eq!(meeting.server.unwrap_err().code(), "certificate_expired");
}

#[tokio::test]
async fn certificates_of_another_root_are_refused_on_both_sides() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let trusting = |ca: &Ca, root: &Ca, identity: &str| {
        let (der, key) = ca.sign(&Leaf::of(identity));
        WorkloadCertificate::new(vec![der], &key, vec![root.root.clone()]).unwrap()
    };

    let by_server = between(&trusting(&ours, &ours, WEB), &trusting(&theirs, &ours, DB)).await;
    let by_client = between(&trusting(&theirs, &ours, WEB), &trusting(&ours, &ours, DB)).await;

    // Both roots have one name, so it is the signature that does not fit.
    for error in [by_server.server.unwrap_err(), by_client.client.unwrap_err()] {
        assert!(["unknown_issuer", "bad_certificate"].contains(&error.code()), "{error}");
    }
}

#[tokio::test]
async fn certificates_for_another_use_are_refused_on_both_sides() {
    let ca = Ca::new();
    let only = |identity: &str, usage| ca.workload(&Leaf { usages: vec![usage], ..Leaf::of(identity) });

    let by_server = between(&ca.member(WEB), &only(DB, ExtendedKeyUsagePurpose::ServerAuth)).await;
    let by_client = between(&only(WEB, ExtendedKeyUsagePurpose::ClientAuth), &ca.member(DB)).await;

    assert_eq!(by_server.server.unwrap_err().code(), "bad_certificate");
    assert_eq!(by_client.client.unwrap_err().code(), "bad_certificate");
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let ca = Ca::new();
    let mut client = (*client_config(&ca.member(DB), &[id(WEB)]).unwrap()).clone();
    client.client_auth_cert_resolver = Arc::new(Shows(None));

    let meeting = meet(server_config(&ca.member(WEB)).unwrap(), Arc::new(client)).await;

    assert_eq!(meeting.server.unwrap_err().code(), "no_certificate");
    assert_eq!(meeting.client.unwrap_err().code(), "refused_by_peer");
}

#[tokio::test]
async fn a_certificate_without_spiffe_id_is_refused() {
    let ca = Ca::new();
    let leaf = Leaf { sans: vec![SanType::URI("https://example.com/".try_into().unwrap())], ..Leaf::of(DB) };
    let (der, key) = ca.sign(&leaf);
    let shown = CertifiedKey::new(vec![der], default_provider().key_provider.load_private_key(key).unwrap());
    let mut client = (*client_config(&ca.member(DB), &[id(WEB)]).unwrap()).clone();
    client.client_auth_cert_resolver = Arc::new(Shows(Some(Arc::new(shown))));

    let meeting = meet(server_config(&ca.member(WEB)).unwrap(), Arc::new(client)).await;

    assert_eq!(meeting.server.unwrap_err().code(), "no_identity");
}

#[tokio::test]
async fn garbage_instead_of_a_certificate_is_refused_on_both_sides() {
    let ca = Ca::new();
    let (real, key) = ca.sign(&Leaf::of(DB));
    let signer = default_provider().key_provider.load_private_key(key).unwrap();
    let mut cut = real.to_vec();
    cut.truncate(real.len() / 2);
    for garbage in [b"not a certificate".to_vec(), vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], vec![0; 3], cut] {
        let shown = Arc::new(CertifiedKey::new(vec![CertificateDer::from(garbage)], Arc::clone(&signer)));
        let mut client = (*client_config(&ca.member(DB), &[id(WEB)]).unwrap()).clone();
        client.client_auth_cert_resolver = Arc::new(Shows(Some(Arc::clone(&shown))));
        let mut server = (*server_config(&ca.member(WEB)).unwrap()).clone();
        server.cert_resolver = Arc::new(Shows(Some(shown)));

        let by_server = meet(server_config(&ca.member(WEB)).unwrap(), Arc::new(client)).await;
        let by_client = meet(Arc::new(server), client_config(&ca.member(DB), &[id(WEB)]).unwrap()).await;

        assert_eq!(by_server.server.unwrap_err().code(), "malformed_certificate");
        assert_eq!(by_client.client.unwrap_err().code(), "malformed_certificate");
    }
}

#[tokio::test]
async fn the_faster_suite_is_used_even_when_the_client_prefers_the_other() {
    let ca = Ca::new();
    let (fast, slow) = (cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384);
    let server = server_config(&ca.member(WEB)).unwrap();

    let usual = between(&ca.member(WEB), &ca.member(DB)).await;
    let prefers_slow = meet(Arc::clone(&server), offering(&ca, vec![slow, fast])).await;
    let slow_only = meet(server, offering(&ca, vec![slow])).await;

    assert_eq!(usual.suite, Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
    assert_eq!(prefers_slow.suite, Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
    assert_eq!(slow_only.suite, Some(CipherSuite::TLS13_AES_256_GCM_SHA384));
}

#[tokio::test]
async fn other_suites_and_versions_are_refused() {
    let ca = Ca::new();
    let server = server_config(&ca.member(WEB)).unwrap();
    let chacha = offering(&ca, vec![cipher_suite::TLS13_CHACHA20_POLY1305_SHA256]);
    let old = {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        Arc::new(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
    };

    for client in [chacha, old] {
        let meeting = meet(Arc::clone(&server), client).await;
        assert_eq!(meeting.server.unwrap_err().code(), "incompatible_tls");
    }
}

#[tokio::test]
async fn another_application_protocol_is_refused() {
    let ca = Ca::new();
    let mut client = (*client_config(&ca.member(DB), &[id(WEB)]).unwrap()).clone();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];

    let meeting = meet(server_config(&ca.member(WEB)).unwrap(), Arc::new(client)).await;

    assert_eq!(meeting.server.unwrap_err().code(), "incompatible_tls");
}

#[tokio::test]
async fn a_client_sends_no_server_name_and_offers_h2() {
    let ca = Ca::new();
    let mut client =
        rustls::ClientConnection::new(client_config(&ca.member(DB), &[id(WEB)]).unwrap(), tls::server_name()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();

    let mut acceptor = rustls::server::Acceptor::default();
    acceptor.read_tls(&mut hello.as_slice()).unwrap();
    let accepted = acceptor.accept().unwrap().unwrap();

    assert_eq!(accepted.client_hello().server_name(), None);
    let protocols: Vec<&[u8]> = accepted.client_hello().alpn().unwrap().collect();
    assert_eq!(protocols, [tls::ALPN_H2]);
}

#[test]
fn a_client_that_expects_nobody_is_an_error() {
    let error = client_config(&Ca::new().member(DB), &[]).unwrap_err();

    assert_eq!(error.code(), "nothing_expected");
}

#[test]
fn a_certificate_needs_an_identity_its_own_key_and_roots() {
    let ca = Ca::new();
    let (der, key) = ca.sign(&Leaf::of(WEB));
    let (nameless, nameless_key) = ca.sign(&Leaf::host("example.com"));
    let (_, other_key) = ca.sign(&Leaf::of(WEB));
    let root = || vec![ca.root.clone()];
    let code = |result: Result<WorkloadCertificate, tls::CertificateError>| result.unwrap_err().code();

    assert_eq!(code(WorkloadCertificate::new(vec![der.clone()], &other_key, root())), "certificate_key");
    assert_eq!(code(WorkloadCertificate::new(vec![nameless], &nameless_key, root())), "certificate_no_identity");
    assert_eq!(code(WorkloadCertificate::new(vec![], &key, root())), "certificate_empty_chain");
    assert_eq!(code(WorkloadCertificate::new(vec![der.clone()], &key, vec![])), "certificate_no_roots");
    let garbage = vec![CertificateDer::from(b"x".to_vec())];
    assert_eq!(code(WorkloadCertificate::new(vec![der.clone()], &key, garbage.clone())), "certificate_no_roots");
    assert_eq!(code(WorkloadCertificate::new(garbage, &key, root())), "certificate_malformed");
    let good = WorkloadCertificate::new(vec![der], &key, root()).unwrap();
    assert!(!format!("{good:?}").contains("key"));
}

#[test]
fn a_certificate_can_check_itself_as_a_peer_would() {
    let (ca, other) = (Ca::new(), Ca::new());
    let good = ca.member(WEB);
    let (der, key) = ca.sign(&Leaf::of(WEB));
    let foreign = WorkloadCertificate::new(vec![der], &key, vec![other.root.clone()]).unwrap();

    assert!(good.check(SystemTime::now()).is_ok());
    assert_eq!(good.check(SystemTime::now() + 2 * HOUR).unwrap_err().code(), "certificate_expired");
    assert!(foreign.check(SystemTime::now()).is_err());
}

/// `DB` as a client that offers these suites only, in this order.
fn offering(ca: &Ca, cipher_suites: Vec<rustls::SupportedCipherSuite>) -> Arc<rustls::ClientConfig> {
    let (der, key) = ca.sign(&Leaf::of(DB));
    let provider = Arc::new(CryptoProvider { cipher_suites, ..default_provider() });
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptsAll))
        .with_client_auth_cert(vec![der], key)
        .unwrap();
    client.alpn_protocols = vec![tls::ALPN_H2.to_vec()];
    Arc::new(client)
}

/// Shows this certificate, or none.
#[derive(Debug)]
struct Shows(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

/// A client that does not care whom it talks to.
#[derive(Debug)]
struct AcceptsAll;

impl rustls::client::danger::ServerCertVerifier for AcceptsAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
