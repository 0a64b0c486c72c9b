//! Certificates of any kind, good and bad: a root of our own, or the lab's own root. No checks here; those are under test.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From a minute ago for an hour.
    Now,
    /// Until an hour ago.
    Expired,
    /// From in an hour.
    NotYet,
}

/// Certificate and key that sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
}

impl Authority {
    /// A root that nobody knows.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(trust_domain: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// The root of a running control plane, from its `--ca-dir`.
    ///
    /// # Errors
    /// When the directory holds no root and key.
    pub fn open(ca_dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = ca_dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let pem = read("root-cert.pem")?;
        let key = KeyPair::from_pem(&read("root-key.pem")?)?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key)?, pem })
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate whose only name is the URI `identity`, as workloads have it.
    ///
    /// # Errors
    /// When the URI is no ASCII.
    pub fn issue(&self, identity: &str, validity: Validity) -> Result<Leaf> {
        self.sign(SanType::URI(identity.try_into()?), validity)
    }

    /// A certificate of a server at an address, as a control plane has it.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn issue_for_ip(&self, ip: IpAddr) -> Result<Leaf> {
        self.sign(SanType::IpAddress(ip), Validity::Now)
    }

    /// For a host name.
    ///
    /// # Errors
    /// When no key can be made, or the name is none.
    pub fn issue_for_host(&self, host: &str) -> Result<Leaf> {
        self.sign(SanType::DnsName(host.try_into()?), Validity::Now)
    }

    fn sign(&self, name: SanType, validity: Validity) -> Result<Leaf> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // rcgen would put a name of its own there.
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![name];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = match validity {
            // A minute earlier, in case the peer's clock is behind.
            Validity::Now => (now - Duration::MINUTE, now + Duration::HOUR),
            Validity::Expired => (now - Duration::HOUR * 2, now - Duration::HOUR),
            Validity::NotYet => (now + Duration::HOUR, now + Duration::HOUR * 2),
        };
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

impl Leaf {
    /// Writes `<dir>/<name>.pem` and `<dir>/<name>.key`; their paths.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(String, String)> {
        let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        fs::write(&cert, &self.cert_pem)?;
        fs::write(&key, &self.key_pem)?;
        Ok((cert.display().to_string(), key.display().to_string()))
    }
}

/// The first URI among the names of a certificate.
#[must_use]
pub fn uri_san(certificate: &CertificateDer<'_>) -> Option<String> {
    identity::Leaf::parse(certificate).ok()?.identity().map(ToString::to_string)
}
