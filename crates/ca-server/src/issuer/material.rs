//! The texts that an authority consists of, wherever they are kept.

use std::fmt;

use identity::TrustDomain;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{IssuerError, files};

/// Certificates and key of an authority, PEM. `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// The certificate that signs: a root, or an intermediate of another authority.
    pub certificate: String,
    /// Its key: PKCS#8 (RFC 5958), SEC 1 or PKCS#1; ECDSA or RSA.
    pub key: String,
    /// Certificates between it and the root, the signing one first. Empty when it is a root or right below one.
    pub chain: String,
    /// Every root that peers should trust. While a root is replaced there are two.
    pub roots: String,
}

impl Material {
    /// A root that signs itself.
    pub fn root(certificate: &str, key: &str) -> Self {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Self { roots: certificate.clone(), certificate, key, chain: String::new() }
    }

    /// Makes a new root for ten years, with an ECDSA P-256 key.
    pub fn generate(trust_domain: &TrustDomain) -> Result<Self, IssuerError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IssuerError::Create)?;
        let certificate = files::root(&key, trust_domain).map_err(IssuerError::Create)?;
        Ok(Self::root(&certificate, &key.serialize_pem()))
    }

    /// Adds roots that are trusted besides.
    pub fn trust(&mut self, roots: &str) {
        if !self.roots.ends_with('\n') {
            self.roots.push('\n');
        }
        self.roots.push_str(roots);
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certificate, chain, roots, .. } = self;
        let mut text = f.debug_struct("Material");
        text.field("certificate", certificate).field("chain", chain).field("roots", roots).finish_non_exhaustive()
    }
}

/// A certificate as PEM (RFC 7468).
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.as_ref()), LINES)
}

/// Lines as RFC 7468, section 3, wants them.
const LINES: pem::EncodeConfig = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);

/// The first certificate of a PEM text.
pub(super) fn der(pem: &str) -> Result<CertificateDer<'static>, IssuerError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| IssuerError::Certificate("signed certificate"))
}
