//! A certificate authority with one ECDSA P-256 root of its own. Whom it signs for is decided before: see `service`.

mod files;
mod sign;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use identity::{Leaf, TrustDomain};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

#[cfg(feature = "testing")]
pub(crate) use files::root as self_signed_root;
pub use sign::{Issued, SignError};

/// Reason why the certificate authority cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// A file cannot be read or written.
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: io::Error },
    /// Others than the owner may read the root's key.
    #[error("{path} has mode {mode:04o}: others may read the root's key; it must be 0600")]
    KeyIsOpen { path: PathBuf, mode: u32 },
    /// Only one of key and certificate exists: neither is replaced.
    #[error("{found} exists but {missing} does not; restore it, or remove both to start with a new root")]
    HalfAPair { found: PathBuf, missing: PathBuf },
    /// The file is not a PEM key that can sign.
    #[error("root key: {0}")]
    Key(rcgen::Error),
    /// The file is not a PEM certificate.
    #[error("root certificate is malformed")]
    Certificate,
    /// The certificate may not sign others.
    #[error("root certificate is not a certificate authority's")]
    NotACa,
    /// The certificate is of another key.
    #[error("root key and root certificate do not belong together")]
    Mismatch,
    /// The certificate has expired.
    #[error("root certificate is expired")]
    Expired,
    /// The file of further roots cannot be used.
    #[error("{path}: {reason}")]
    TrustedRoots { path: PathBuf, reason: String },
    /// A new root cannot be made.
    #[error("new root: {0}")]
    Create(rcgen::Error),
}

impl IssuerError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "ca_file",
            Self::KeyIsOpen { .. } => "ca_key_is_open",
            Self::HalfAPair { .. } => "ca_half_a_pair",
            Self::Key(_) => "ca_key",
            Self::Certificate => "ca_certificate",
            Self::NotACa => "ca_not_a_ca",
            Self::Mismatch => "ca_mismatch",
            Self::Expired => "ca_expired",
            Self::TrustedRoots { .. } => "ca_trusted_roots",
            Self::Create(_) => "ca_create",
        }
    }
}

/// Signs certificates of workloads and of the control plane itself. `Debug` does not show the key.
pub struct Issuer {
    trust_domain: TrustDomain,
    signer: rcgen::Issuer<'static, KeyPair>,
    root_pem: String,
    root: CertificateDer<'static>,
    not_after: SystemTime,
    /// Roots that are trusted besides its own, PEM; empty except while the root is rotated.
    also_trusted: String,
    max_ttl: Duration,
}

impl Issuer {
    /// Takes root-key.pem and root-cert.pem in `dir`, or makes them: ten years, key 0600, certificate 0644. Roots in
    /// trusted-roots.pem, if it is there, are trusted besides: the old or the new root while the root is rotated.
    pub fn open_or_create(dir: &Path, trust_domain: TrustDomain) -> Result<Self, IssuerError> {
        let (certificate, key) = files::open_or_create(dir, &trust_domain)?;
        let issuer = Self::from_pem(&certificate, &key, trust_domain)?;
        match files::trusted_roots(dir)? {
            Some((path, pem)) => issuer.trusting(&path, pem),
            None => Ok(issuer),
        }
    }

    /// Signs for at most this long, whatever is asked for; without it one day.
    #[must_use]
    pub fn with_max_ttl(self, max_ttl: Duration) -> Self {
        Self { max_ttl, ..self }
    }

    /// Longest validity that is signed for.
    pub fn max_ttl(&self) -> Duration {
        self.max_ttl
    }

    /// Adds roots that are trusted besides its own.
    fn trusting(self, path: &Path, pem: String) -> Result<Self, IssuerError> {
        let unusable = |reason: &str| IssuerError::TrustedRoots { path: path.to_owned(), reason: reason.to_owned() };
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let der = certificate.map_err(|error| unusable(&error.to_string()))?;
            let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unusable("not a certificate"))?;
            if !certificate.is_ca() {
                return Err(unusable("not the certificate of an authority"));
            }
            count += 1;
        }
        if count == 0 {
            return Err(unusable("no PEM certificate in it; remove the file when no other root is trusted"));
        }
        tracing::info!(path = %path.display(), roots = count, "further roots are trusted");
        Ok(Self { also_trusted: pem, ..self })
    }

    /// Makes an issuer from PEM texts that belong together.
    pub fn from_pem(certificate: &str, key: &str, trust_domain: TrustDomain) -> Result<Self, IssuerError> {
        let key = KeyPair::from_pem(key).map_err(IssuerError::Key)?;
        let root = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| IssuerError::Certificate)?;
        check_pair(&root, &key)?;
        let not_after = Leaf::parse(&root).map_err(|_| IssuerError::Certificate)?.not_after;
        if not_after <= SystemTime::now() {
            return Err(IssuerError::Expired);
        }
        let signer = rcgen::Issuer::from_ca_cert_der(&root, key).map_err(|_| IssuerError::Certificate)?;
        let (root_pem, also_trusted) = (certificate.to_owned(), String::new());
        Ok(Self { trust_domain, signer, root_pem, root, not_after, also_trusted, max_ttl: sign::DEFAULT_TTL })
    }

    /// The root as PEM, which everybody may see.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// All roots that proxies should trust, PEM: its own first.
    pub fn roots_pem(&self) -> String {
        let mut roots = self.root_pem.clone();
        if !self.also_trusted.is_empty() {
            if !roots.ends_with('\n') {
                roots.push('\n');
            }
            roots.push_str(&self.also_trusted);
        }
        roots
    }

    /// The trust domain it signs for; others are refused.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

fn check_pair(root: &CertificateDer<'_>, key: &KeyPair) -> Result<(), IssuerError> {
    let (_, certificate) = X509Certificate::from_der(root).map_err(|_| IssuerError::Certificate)?;
    if !certificate.is_ca() {
        return Err(IssuerError::NotACa);
    }
    // Signatures of another key than the certificate's would be refused by every peer, and only there.
    if *certificate.public_key().subject_public_key.data != *key.der_bytes() {
        return Err(IssuerError::Mismatch);
    }
    Ok(())
}
