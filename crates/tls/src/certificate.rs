//! A workload's certificate with its key and the roots that came with it. It is not renewed
//! here: see `ca`.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use identity::{Identity, Leaf, LeafError};
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::config::server_name;
use crate::error::TlsError;
use crate::provider;
use crate::verify::ServerVerifier;

/// Reason for which a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No leaf.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// Nothing to check peers against.
    #[error("no usable root certificate")]
    NoRoots,
    /// The leaf is not a certificate.
    #[error("leaf certificate")]
    Leaf(#[from] LeafError),
    /// The leaf has no SPIFFE id of the mesh's form.
    #[error("the leaf certificate has no SPIFFE id")]
    NoIdentity,
    /// The key is of an unknown kind, or is not the leaf's.
    #[error("private key")]
    Key(#[source] rustls::Error),
    /// Not PEM.
    #[error("PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
}

impl CertificateError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::EmptyChain => "certificate_empty_chain",
            Self::NoRoots => "certificate_no_roots",
            Self::Leaf(_) => "certificate_malformed",
            Self::NoIdentity => "certificate_no_identity",
            Self::Key(_) => "certificate_key",
            Self::Pem(_) => "certificate_pem",
        }
    }
}

/// Leaf, intermediates, key, and the roots that peers are checked against.
///
/// Immutable: a renewed certificate is a new value. `Debug` does not show the key.
pub struct WorkloadCertificate {
    identity: Identity,
    leaf: Leaf,
    roots: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
    certified: Arc<CertifiedKey>,
}

impl WorkloadCertificate {
    /// Checks that the leaf has an identity and that the key is its. Roots that cannot be read are skipped with
    /// a warning, as long as one is left. Neither the chain's signatures nor its validity are checked: peers do that.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CertificateError> {
        let leaf = Leaf::parse(chain.first().ok_or(CertificateError::EmptyChain)?)?;
        // Without an identity no peer would accept it; better to say so here than to fail every handshake.
        let identity = leaf.identity().cloned().ok_or(CertificateError::NoIdentity)?;
        let certified = certified_key(chain, key)?;
        let (store, roots) = store(roots);
        if roots.is_empty() {
            return Err(CertificateError::NoRoots);
        }
        Ok(Self { identity, leaf, roots, store: Arc::new(store), certified: Arc::new(certified) })
    }

    /// From PEM texts: leaf and intermediates, PKCS#8 key, roots.
    pub fn from_pem(chain: &str, key: &str, roots: &str) -> Result<Self, CertificateError> {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(CertificateError::Pem)?;
        Self::new(certificates(chain)?, &key, certificates(roots)?)
    }

    /// Identity of the leaf.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Leaf first, then intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The roots that came with the certificate.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Returns identity, validity and serial number of the leaf.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// First moment of validity.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// Last moment of validity.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// Checks the chain as a peer would: against the roots that came with it, at the moment `now`.
    pub fn check(&self, now: SystemTime) -> Result<(), TlsError> {
        // A clock before 1970 counts as 1970: then no certificate is valid yet.
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let verifier = ServerVerifier::new(Arc::clone(&self.store), std::slice::from_ref(&self.identity));
        let (leaf, intermediates) = self.chain().split_first().ok_or(TlsError::NoCertificate)?;
        let now = UnixTime::since_unix_epoch(since_epoch);
        verifier.verify_server_cert(leaf, intermediates, &server_name(), &[], now)?;
        Ok(())
    }

    pub(crate) fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("identity", &self.identity)
            .field("serial", &self.leaf.serial)
            .field("not_after", &self.leaf.not_after)
            .finish_non_exhaustive()
    }
}

/// A key that signs for `chain`'s leaf; a key of another leaf is an error.
pub(crate) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CertificateError> {
    let signer = provider::mesh().key_provider.load_private_key(key.clone_key()).map_err(CertificateError::Key)?;
    let certified = CertifiedKey::new(chain, signer);
    // A key of another certificate would fail in the handshake, with an error at the peer only.
    certified.keys_match().map_err(CertificateError::Key)?;
    Ok(certified)
}

/// Every certificate of a PEM text.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(CertificateError::Pem)
}

/// A store of the roots that can be read, and those roots.
pub(crate) fn store(roots: Vec<CertificateDer<'static>>) -> (RootCertStore, Vec<CertificateDer<'static>>) {
    let mut store = RootCertStore::empty();
    let mut usable = Vec::with_capacity(roots.len());
    for root in roots {
        // A copy: the store keeps only parts of a root, and callers get it whole.
        match store.add(root.clone()) {
            Ok(()) => usable.push(root),
            Err(error) => tracing::warn!(%error, "root certificate skipped"),
        }
    }
    (store, usable)
}
