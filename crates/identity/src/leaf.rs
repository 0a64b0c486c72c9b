//! Facts of a leaf certificate about its owner. It verifies nothing: see `tls`.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::Identity;

/// Reason for which a certificate could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Not a DER encoded X.509 certificate.
    #[error("not an X.509 certificate")]
    Malformed,
    /// Bytes follow the certificate.
    #[error("{0} bytes follow the certificate")]
    Trailing(usize),
    /// A validity bound that no clock can show.
    #[error("validity outside of what a clock can show")]
    Validity,
}

/// The facts of a leaf certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    identities: Vec<Identity>,
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
    /// Serial number, lower-case hex without separators.
    pub serial: String,
}

impl Leaf {
    /// Reads `der`. URI SANs that are not identities are skipped.
    pub fn parse(der: &[u8]) -> Result<Self, LeafError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| LeafError::Malformed)?;
        // Bytes behind the certificate would be signed by nobody.
        if !rest.is_empty() {
            return Err(LeafError::Trailing(rest.len()));
        }
        let validity = certificate.validity();
        Ok(Self {
            identities: identities(&certificate),
            not_before: system_time(validity.not_before.timestamp())?,
            not_after: system_time(validity.not_after.timestamp())?,
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// The first URI SAN that is an identity.
    pub fn identity(&self) -> Option<&Identity> {
        self.identities.first()
    }

    /// Every URI SAN that is an identity, in the certificate's order.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }
}

impl TryFrom<&CertificateDer<'_>> for Leaf {
    type Error = LeafError;

    fn try_from(der: &CertificateDer<'_>) -> Result<Self, Self::Error> {
        Self::parse(der)
    }
}

fn identities(certificate: &X509Certificate<'_>) -> Vec<Identity> {
    // An extension that is there twice is an error here: no identity rather than a choice between two.
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    // A certificate may have further URIs, of other systems: they are no identities of the mesh.
    uris.filter_map(|uri| uri.parse().ok()).collect()
}

fn system_time(unix_seconds: i64) -> Result<SystemTime, LeafError> {
    let distance = Duration::from_secs(unix_seconds.unsigned_abs());
    // Certificates may begin in 1950 (RFC 5280, section 4.1.2.5.1).
    let moment = if unix_seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moment.ok_or(LeafError::Validity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(2024, 1, 2);
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[1, 0xab]));
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_leaf_tells_identity_validity_and_serial() {
        let leaf = Leaf::parse(&certificate(&["spiffe://td/ns/a/sa/b"])).unwrap();

        assert_eq!(leaf.identity().unwrap().principal(), "td/ns/a/sa/b");
        assert_eq!(leaf.serial, "01ab");
        assert_eq!(leaf.not_after.duration_since(leaf.not_before).unwrap(), Duration::from_secs(86_400));
    }

    #[test]
    fn uris_that_are_no_identities_are_skipped() {
        let leaf = Leaf::parse(&certificate(&["https://example.com/", "spiffe://td/ns/a/sa/b"])).unwrap();

        assert_eq!(leaf.identities().len(), 1);
        assert_eq!(Leaf::parse(&certificate(&["https://example.com/"])).unwrap().identity(), None);
    }

    #[test]
    fn garbage_is_an_error() {
        let mut longer = certificate(&["spiffe://td/ns/a/sa/b"]);
        longer.push(0);

        assert_eq!(Leaf::parse(&longer), Err(LeafError::Trailing(1)));
        assert_eq!(Leaf::parse(b"\x30\x03abc"), Err(LeafError::Malformed));
        assert_eq!(Leaf::parse(b""), Err(LeafError::Malformed));
    }

    proptest! {
        #[test]
        fn a_flipped_byte_never_panics(position in 0usize..200, value: u8) {
            let mut der = certificate(&["spiffe://td/ns/a/sa/b"]);
            der[position] = value;
            let _ = Leaf::parse(&der);
        }
    }
}
