//! The root's files and what is signed with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ca_server::{Issuer, IssuerError, Material, SignError};
use identity::{Identity, Leaf, TrustDomain};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn web() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

fn issuer(dir: &Path) -> Result<Issuer, IssuerError> {
    Issuer::open_or_create(dir, TrustDomain::default())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn the_first_start_makes_a_root_and_the_second_one_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("ca");

    let first = issuer(&dir).unwrap().roots_pem().to_owned();
    let second = issuer(&dir).unwrap().roots_pem().to_owned();

    assert_eq!(first, second);
    assert_eq!(first, fs::read_to_string(dir.join("root-cert.pem")).unwrap());
    assert_eq!((mode(&dir.join("root-key.pem")), mode(&dir.join("root-cert.pem"))), (0o600, 0o644));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    let left = Leaf::parse(&der(&first)).unwrap().not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left > 3649 * DAY && left <= 3650 * DAY);
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    issuer(dir.path()).unwrap();
    let key = dir.path().join("root-key.pem");

    for mode in [0o604, 0o640, 0o644, 0o660] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let error = issuer(dir.path()).unwrap_err();
        assert_eq!(error.code(), "ca_key_is_open");
        assert!(error.to_string().contains("0600"), "{error}");
    }
}

#[test]
fn key_and_certificate_must_belong_together() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    issuer(one.path()).unwrap();
    issuer(two.path()).unwrap();

    fs::copy(two.path().join("root-cert.pem"), one.path().join("root-cert.pem")).unwrap();

    assert_eq!(issuer(one.path()).unwrap_err().code(), "ca_mismatch");
}

#[test]
fn half_a_pair_is_never_completed() {
    let dir = tempfile::tempdir().unwrap();
    issuer(dir.path()).unwrap();
    let (key, certificate) = (dir.path().join("root-key.pem"), dir.path().join("root-cert.pem"));

    fs::remove_file(&certificate).unwrap();
    let error = issuer(dir.path()).unwrap_err();
    assert_eq!(error.code(), "ca_half_a_pair");
    assert!(error.to_string().contains("root-cert.pem does not"), "{error}");
    assert!(!certificate.exists());

    fs::rename(&key, &certificate).unwrap();
    assert_eq!(issuer(dir.path()).unwrap_err().code(), "ca_half_a_pair");
}

#[test]
fn damaged_files_and_leafs_as_roots_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    issuer(dir.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().self_signed(&key).unwrap().pem();
    let from = |certificate: &str, key: &str| Issuer::new(&Material::root(certificate, key), TrustDomain::default());
    let good = fs::read_to_string(dir.path().join("root-cert.pem")).unwrap();

    assert_eq!(from(&leaf, &key.serialize_pem()).unwrap_err().code(), "ca_not_a_ca");
    assert_eq!(from("nonsense", &key.serialize_pem()).unwrap_err().code(), "ca_certificate");
    assert_eq!(from(&good, "nonsense").unwrap_err().code(), "ca_key");
}

#[test]
fn a_leaf_has_the_identity_as_its_only_and_critical_name() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = issuer(dir.path()).unwrap();
    let (_, csr) = identity::csr::generate(&"spiffe://elsewhere/ns/x/sa/y".parse().unwrap()).unwrap();
    let now = SystemTime::now();

    let issued = issuer.sign(&csr, &web(), None).unwrap();

    let der = der(&issued.leaf);
    let leaf = Leaf::parse(&der).unwrap();
    assert_eq!(leaf.identities(), [web()]);
    assert_eq!(leaf.serial, issued.serial);
    let valid = leaf.not_after.duration_since(leaf.not_before).unwrap();
    assert!(valid.abs_diff(DAY + Duration::from_secs(120)) < Duration::from_secs(2), "{valid:?}");
    assert!(now.duration_since(leaf.not_before).unwrap() >= Duration::from_secs(119));
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(certificate.subject_alternative_name().unwrap().unwrap().critical);
    assert_eq!(certificate.subject().iter().count(), 0);
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert!(!certificate.is_ca());
    assert_eq!(issued.roots, issuer.roots_pem());
}

#[test]
fn two_leafs_never_share_a_serial_number() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = issuer(dir.path()).unwrap();
    let (_, csr) = identity::csr::generate(&web()).unwrap();

    let serials: std::collections::HashSet<String> =
        (0..50).map(|_| issuer.sign(&csr, &web(), None).unwrap().serial).collect();

    assert_eq!(serials.len(), 50);
}

#[test]
fn validity_is_what_was_asked_for_up_to_the_configured_maximum() {
    let dir = tempfile::tempdir().unwrap();
    let (_, csr) = identity::csr::generate(&web()).unwrap();
    let left = |issuer: &Issuer, ttl| {
        let issued = issuer.sign(&csr, &web(), Some(ttl)).unwrap();
        issued.not_after.duration_since(SystemTime::now()).unwrap()
    };

    let issuer = issuer(dir.path()).unwrap();
    assert!(left(&issuer, Duration::from_secs(120)) <= Duration::from_secs(120));
    assert!(left(&issuer, 90 * DAY) <= DAY, "a node does not choose how long it is trusted");
    let issuer = issuer.with_max_ttl(7 * DAY);
    assert!(left(&issuer, 90 * DAY) > 6 * DAY && left(&issuer, 90 * DAY) <= 7 * DAY);
}

#[test]
fn no_leaf_outlives_its_root() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let end = SystemTime::now() + Duration::from_secs(3600);
    params.not_after = end.into();
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(&Material::root(&root, &key.serialize_pem()), TrustDomain::default()).unwrap();
    let (_, csr) = identity::csr::generate(&web()).unwrap();

    let issued = issuer.sign(&csr, &web(), Some(DAY)).unwrap();

    assert!(Leaf::parse(&der(&issued.leaf)).unwrap().not_after <= end);
}

#[test]
fn an_expired_root_is_refused() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = (SystemTime::now() - DAY).into();
    let root = params.self_signed(&key).unwrap().pem();

    let error = Issuer::new(&Material::root(&root, &key.serialize_pem()), TrustDomain::default()).unwrap_err();

    assert_eq!(error.code(), "ca_expired");
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = issuer(dir.path()).unwrap();
    let (_, csr) = identity::csr::generate(&web()).unwrap();
    let foreign: Identity = "spiffe://elsewhere/ns/shop/sa/web".parse().unwrap();
    let code = |result: Result<_, SignError>| result.unwrap_err().code();

    assert_eq!(code(issuer.sign("nonsense", &web(), None)), "csr_malformed");
    assert_eq!(code(issuer.sign("", &web(), None)), "csr_malformed");
    assert_eq!(code(issuer.sign(&csr, &foreign, None)), "csr_trust_domain");
    assert_eq!(code(issuer.sign(&forged(&csr), &web(), None)), "csr_signature");
}

/// The request with the last byte of its signature changed.
fn forged(csr: &str) -> String {
    let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
    let mut der = der.to_vec();
    *der.last_mut().unwrap() ^= 1;
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}
