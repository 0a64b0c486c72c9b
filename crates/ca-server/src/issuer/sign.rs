//! Signing. Of a request only the public key counts; the names are the caller's.

use std::time::{Duration, SystemTime};

use identity::{Identity, TrustDomain};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tls::control_plane::ServingCertificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::Issuer;

/// Certificates begin this much before now, for clocks that are behind.
pub(super) const BACKDATED: Duration = Duration::from_secs(120);
/// Validity when none is asked for.
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Reason for refusing to sign.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The text is not a PEM signing request.
    #[error("signing request is malformed")]
    Request,
    /// The request is not signed by the key it names.
    #[error("signing request is not signed by its own key")]
    Signature,
    /// The key is of a kind that is not signed for.
    #[error("key of the signing request: {0}")]
    Key(rcgen::Error),
    /// The identity is of another mesh.
    #[error("{identity} is not of the trust domain {expected}")]
    WrongTrustDomain { identity: Identity, expected: TrustDomain },
    /// The root has expired, or does so at once.
    #[error("the root certificate is expired")]
    RootExpired,
    /// The certificate cannot be made.
    #[error("certificate: {0}")]
    Certificate(rcgen::Error),
    /// The new certificate is unusable for serving.
    #[error("serving certificate: {0}")]
    Serving(#[from] tls::CertificateError),
}

impl SignError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Request => "csr_malformed",
            Self::Signature => "csr_signature",
            Self::Key(_) => "csr_key",
            Self::WrongTrustDomain { .. } => "csr_trust_domain",
            Self::RootExpired => "ca_expired",
            Self::Certificate(_) => "ca_sign",
            Self::Serving(error) => error.code(),
        }
    }
}

/// A certificate that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The leaf, PEM.
    pub leaf: String,
    /// The certificates between the leaf and a root, PEM, each in a text of its own.
    pub intermediates: Vec<String>,
    /// The roots, PEM, perhaps several in one text.
    pub roots: String,
    /// Last moment of validity.
    pub not_after: SystemTime,
    /// Serial number in hex.
    pub serial: String,
}

impl Issuer {
    /// Signs for `identity`, whatever names `csr` (PEM) has. `ttl` is one day when absent, never more than the configured
    /// maximum, and never beyond the root's own end.
    pub fn sign(&self, csr: &str, identity: &Identity, ttl: Option<Duration>) -> Result<Issued, SignError> {
        if identity.trust_domain() != self.trust_domain.as_str() {
            let (identity, expected) = (identity.clone(), self.trust_domain.clone());
            return Err(SignError::WrongTrustDomain { identity, expected });
        }
        let ttl = ttl.unwrap_or(DEFAULT_TTL).min(self.max_ttl);
        let key = public_key(csr)?;
        let uri = identity.as_str().try_into().map_err(SignError::Certificate)?;
        let (params, not_after) = self.params(vec![SanType::URI(uri)], ttl)?;
        let serial = params.serial_number.as_ref().map(hex).unwrap_or_default();
        let leaf = self.finish(&params, &key)?.pem();
        let (intermediates, roots) = (self.intermediates_pem.clone(), self.roots_pem.clone());
        Ok(Issued { leaf, intermediates, roots, not_after, serial })
    }

    /// A new key and a certificate for it with these DNS names: what the control plane serves with. One day.
    pub fn serving_certificate(&self, names: &[String]) -> Result<ServingCertificate, SignError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(SignError::Certificate)?;
        let names = names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        let names = names.collect::<Result<Vec<_>, rcgen::Error>>().map_err(SignError::Certificate)?;
        let (params, _) = self.params(names, DEFAULT_TTL)?;
        let leaf = self.finish(&params, &key)?.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut chain = vec![leaf];
        chain.extend(self.intermediates.iter().cloned());
        chain.push(self.root.clone());
        Ok(ServingCertificate::new(chain, &key)?)
    }

    fn params(&self, names: Vec<SanType>, ttl: Duration) -> Result<(CertificateParams, SystemTime), SignError> {
        let now = SystemTime::now();
        // A leaf that outlives its root would be refused by peers without warning.
        let not_after = (now + ttl).min(self.not_after);
        if not_after <= now {
            return Err(SignError::RootExpired);
        }
        let mut params = CertificateParams::default();
        // An empty subject makes the SAN critical.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        // Clocks of nodes differ; a peer whose clock is behind must not see a certificate of the future.
        params.not_before = OffsetDateTime::from(now - BACKDATED);
        params.not_after = OffsetDateTime::from(not_after);
        params.serial_number = Some(serial().map_err(SignError::Certificate)?);
        Ok((params, not_after))
    }

    fn finish(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<rcgen::Certificate, SignError> {
        params.signed_by(key, &self.signer).map_err(SignError::Certificate)
    }
}

/// The public key of a request that is signed by that very key.
fn public_key(csr: &str) -> Result<SubjectPublicKeyInfo, SignError> {
    let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).map_err(|_| SignError::Request)?;
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| SignError::Request)?;
    if !rest.is_empty() {
        return Err(SignError::Request);
    }
    // Without this proof of possession anybody could get a certificate for somebody else's public key.
    request.verify_signature().map_err(|_| SignError::Signature)?;
    SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw).map_err(SignError::Key)
}

/// 127 random bits: positive and never repeated.
pub(super) fn serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    // RFC 5280, 4.1.2.2: positive, at most 20 bytes; the second highest bit keeps the length at 16.
    bytes[0] &= 0x7f;
    bytes[0] |= 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn hex(serial: &SerialNumber) -> String {
    serial.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
