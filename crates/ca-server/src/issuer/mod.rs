//! A certificate authority: a root of its own, or an intermediate below somebody else's. Whom it signs for is decided before:
//! see `service`.

mod files;
mod material;
mod sign;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use identity::{Leaf, TrustDomain};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tls::WorkloadCertificate;
use x509_parser::prelude::{FromDer, X509Certificate};

#[cfg(feature = "testing")]
pub(crate) use files::root as self_signed_root;
pub use material::Material;
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
    #[error("key of the authority: {0}")]
    Key(rcgen::Error),
    /// A certificate, of the authority, of its chain or of the roots, is not PEM or not X.509.
    #[error("{0}: expected PEM certificates")]
    Certificate(&'static str),
    /// The certificate may not sign others.
    #[error("{0} is not the certificate of an authority")]
    NotACa(&'static str),
    /// The certificate is of another key.
    #[error("key and certificate of the authority do not belong together")]
    Mismatch,
    /// The certificate has expired.
    #[error("certificate of the authority is expired")]
    Expired,
    /// A certificate that it signs would be refused by peers.
    #[error("a certificate signed by this authority does not lead to its roots: {0}; check the chain and the roots")]
    Unverified(String),
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
            Self::Certificate(_) => "ca_certificate",
            Self::NotACa(_) => "ca_not_a_ca",
            Self::Mismatch => "ca_mismatch",
            Self::Expired => "ca_expired",
            Self::Unverified(_) => "ca_unverified",
            Self::TrustedRoots { .. } => "ca_trusted_roots",
            Self::Create(_) => "ca_create",
        }
    }
}

/// Signs certificates of workloads and of the control plane itself. `Debug` does not show the key.
pub struct Issuer {
    trust_domain: TrustDomain,
    signer: rcgen::Issuer<'static, KeyPair>,
    /// Certificates from the signing one to the last one before a root; empty when a root signs.
    intermediates: Vec<CertificateDer<'static>>,
    intermediates_pem: Vec<String>,
    root: CertificateDer<'static>,
    /// Every root that peers should trust, PEM.
    roots_pem: String,
    /// First end among the certificates that a peer checks: those of the chain, and the root.
    not_after: SystemTime,
    max_ttl: Duration,
}

impl Issuer {
    /// Takes root-key.pem and root-cert.pem in `dir`, or makes them: ten years, key 0600, certificate 0644. Roots in
    /// trusted-roots.pem, if it is there, are trusted besides: the old or the new root while the root is rotated.
    pub fn open_or_create(dir: &Path, trust_domain: TrustDomain) -> Result<Self, IssuerError> {
        let (certificate, key) = files::open_or_create(dir, &trust_domain)?;
        let mut material = Material::root(&certificate, &key);
        if let Some((path, pem)) = files::trusted_roots(dir)? {
            let unusable = |reason: String| IssuerError::TrustedRoots { path: path.clone(), reason };
            let roots = authorities("trusted roots", &pem).map_err(|error| unusable(error.to_string()))?;
            if roots.is_empty() {
                return Err(unusable(
                    "no PEM certificate in it; remove the file when no other root is trusted".to_owned(),
                ));
            }
            tracing::info!(path = %path.display(), roots = roots.len(), "further roots are trusted");
            material.trust(&pem);
        }
        Self::new(&material, trust_domain)
    }

    /// Checks that the texts belong together, by the effect: a peer that trusts the roots accepts what the key signs.
    pub fn new(material: &Material, trust_domain: TrustDomain) -> Result<Self, IssuerError> {
        let key = KeyPair::from_pem(&material.key).map_err(IssuerError::Key)?;
        let signing = authorities("certificate of the authority", &material.certificate)?;
        let signing = signing.into_iter().next().ok_or(IssuerError::Certificate("certificate of the authority"))?;
        check_pair(&signing, &key)?;
        let roots = authorities("roots", &material.roots)?;
        let mut intermediates = vec![signing.clone()];
        intermediates.extend(authorities("chain", &material.chain)?);
        // Files of other authorities repeat the signing certificate in the chain, and end it with the root or not.
        intermediates.dedup();
        intermediates.retain(|certificate| !roots.contains(certificate));
        let root = roots.first().cloned().ok_or(IssuerError::Certificate("roots"))?;
        let signing_root = roots.iter().find(|root| **root == signing);
        let mut ends = intermediates.iter().chain(signing_root).map(end);
        let first = ends.next().ok_or(IssuerError::Certificate("certificate of the authority"))??;
        let not_after = ends.try_fold(first, |earliest, end| Ok::<_, IssuerError>(earliest.min(end?)))?;
        if not_after <= SystemTime::now() {
            return Err(IssuerError::Expired);
        }
        let unreadable = |_| IssuerError::Certificate("certificate of the authority");
        let signer = rcgen::Issuer::from_ca_cert_der(&signing, key).map_err(unreadable)?;
        let intermediates_pem = intermediates.iter().map(|certificate| material::pem(certificate)).collect();
        let root = signing_root.cloned().unwrap_or(root);
        let roots_pem = material.roots.clone();
        let max_ttl = sign::DEFAULT_TTL;
        let issuer =
            Self { trust_domain, signer, intermediates, intermediates_pem, root, roots_pem, not_after, max_ttl };
        issuer.prove()?;
        Ok(issuer)
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

    /// All roots that proxies should trust, PEM.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Moment after which nothing that it signs is accepted.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The trust domain it signs for; others are refused.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Signs for an identity that nobody has, and checks the result as a peer does.
    fn prove(&self) -> Result<(), IssuerError> {
        let unverified = |error: &dyn fmt::Display| IssuerError::Unverified(error.to_string());
        let nobody = identity::Identity::new(&self.trust_domain, "default", "default").map_err(|e| unverified(&e))?;
        let (key, csr) = identity::csr::generate(&nobody).map_err(|error| unverified(&error))?;
        let issued = self.sign(&csr, &nobody, None).map_err(|error| unverified(&error))?;
        let mut chain = vec![material::der(&issued.leaf)?];
        chain.extend(self.intermediates.iter().cloned());
        let roots = authorities("roots", &self.roots_pem)?;
        let certificate = WorkloadCertificate::new(chain, &key, roots).map_err(|error| unverified(&error))?;
        certificate.check(SystemTime::now()).map_err(|error| unverified(&error))
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

fn check_pair(signing: &CertificateDer<'_>, key: &KeyPair) -> Result<(), IssuerError> {
    let unreadable = |_| IssuerError::Certificate("certificate of the authority");
    let (_, certificate) = X509Certificate::from_der(signing).map_err(unreadable)?;
    // Signatures of another key than the certificate's would be refused by every peer, and only there.
    if *certificate.public_key().subject_public_key.data != *key.der_bytes() {
        return Err(IssuerError::Mismatch);
    }
    Ok(())
}

/// The certificates in a PEM text, all of them authorities'. `what` names the text in errors.
fn authorities(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, IssuerError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|_| IssuerError::Certificate(what))?;
    for der in &certificates {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IssuerError::Certificate(what))?;
        if !certificate.is_ca() {
            return Err(IssuerError::NotACa(what));
        }
    }
    Ok(certificates)
}

fn end(certificate: &CertificateDer<'_>) -> Result<SystemTime, IssuerError> {
    Leaf::parse(certificate).map(|parsed| parsed.not_after).map_err(|_| IssuerError::Certificate("chain"))
}
