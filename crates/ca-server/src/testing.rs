//! Certificates without a certificate authority, for tests (`FAKE_CA`): the root's key is in this file, so it proves
//! nothing. Processes that use it trust each other.

use std::sync::Arc;
use std::time::Duration;

use ca_client::{CertificateSource, LocalIssuerError, SourceError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use identity::{Identity, TrustDomain};
use rcgen::KeyPair;
use rustls_pki_types::PrivateKeyDer;
use tls::WorkloadCertificate;

use crate::issuer::{Issuer, IssuerError, Material, self_signed_root};

/// Known to everybody.
const ROOT_KEY: &str = include_str!("testing-root-key.pem");

/// Signs for every identity of one trust domain.
#[derive(Clone, Debug)]
pub struct FixedRoot {
    issuer: Arc<Issuer>,
    ttl: Duration,
}

impl FixedRoot {
    /// Certificates of `ttl` from the root that is known to everybody.
    pub fn new(trust_domain: TrustDomain, ttl: Duration) -> Result<Self, IssuerError> {
        tracing::warn!("certificates are signed by a PUBLIC TEST KEY: anybody can pretend to be any workload");
        let key = KeyPair::from_pem(ROOT_KEY).map_err(IssuerError::Key)?;
        let root = self_signed_root(&key, &trust_domain).map_err(IssuerError::Create)?;
        let issuer = Arc::new(Issuer::new(&Material::root(&root, ROOT_KEY), trust_domain)?);
        Ok(Self { issuer, ttl })
    }

    /// A new key and certificate, at once.
    pub fn certificate(&self, identity: &Identity) -> Result<WorkloadCertificate, SourceError> {
        let (key, csr) = identity::csr::generate(identity)?;
        let issued = self.issuer.sign(&csr, identity, Some(self.ttl));
        let issued = issued
            .map_err(|error| SourceError::Sign(LocalIssuerError { code: error.code(), cause: Box::new(error) }))?;
        Ok(pair(&issued.leaf, &key, &issued.roots)?)
    }
}

impl CertificateSource for FixedRoot {
    fn fetch(&self, identity: &Identity) -> BoxFuture<'_, Result<WorkloadCertificate, SourceError>> {
        futures::future::ready(self.certificate(identity)).boxed()
    }
}

fn pair(leaf: &str, key: &PrivateKeyDer<'static>, roots: &str) -> Result<WorkloadCertificate, tls::CertificateError> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let parse = |pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(tls::CertificateError::Pem)
    };
    WorkloadCertificate::new(parse(leaf)?, key, parse(roots)?)
}
