//! Parts of `GET /config_dump` that every proxy has, in the shape that `istioctl` reads. Keys are never in it.

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ca_client::{CertificateManager, CertificateStatus};
use identity::Leaf;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A certificate held or requested, as `istioctl` reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateDump {
    identity: String,
    state: String,
    cert_chain: Vec<Certificate>,
    root_certs: Vec<Certificate>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    /// Base64 of the PEM text.
    pem: String,
    serial_number: String,
    valid_from: String,
    expiration_time: String,
}

/// Version of the program and of what it was built with.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    version: &'static str,
    build_profile: &'static str,
    istio_version: String,
    crypto_provider: &'static str,
}

impl Version {
    /// `version` is the program's; `istio_version` that of the mesh, as the environment gives it.
    #[must_use]
    pub fn new(version: &'static str, istio_version: &str) -> Self {
        Self {
            version,
            build_profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            istio_version: istio_version.to_owned(),
            crypto_provider: "aws-lc-rs",
        }
    }
}

/// Certificates held and requested, by identity. Keys are never among them.
#[must_use]
pub fn certificates(manager: &CertificateManager) -> Vec<CertificateDump> {
    let mut all: Vec<_> = manager.snapshot().iter().map(certificate_dump).collect();
    all.sort_by(|a, b| a.identity.cmp(&b.identity));
    all
}

fn certificate_dump(status: &CertificateStatus) -> CertificateDump {
    let held = status.certificate.as_ref();
    let chain = held.map(|c| c.chain()).unwrap_or_default();
    let roots = held.map(|c| c.roots()).unwrap_or_default();
    CertificateDump {
        identity: status.identity.to_string(),
        state: status.state.to_string(),
        cert_chain: chain.iter().filter_map(certificate).collect(),
        root_certs: roots.iter().filter_map(certificate).collect(),
    }
}

/// None for what cannot be read, which no holder would have accepted.
fn certificate(der: &CertificateDer<'_>) -> Option<Certificate> {
    let facts = Leaf::parse(der).ok()?;
    Some(Certificate {
        pem: STANDARD.encode(pem(der)),
        serial_number: decimal(&facts.serial),
        valid_from: seconds(facts.not_before)?,
        expiration_time: seconds(facts.not_after)?,
    })
}

fn pem(der: &[u8]) -> String {
    const WIDTH: usize = 64;
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(WIDTH) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// Hex digits as a decimal number of any size.
fn decimal(hex: &str) -> String {
    // Least significant digit first.
    // Long multiplication by 16: serials have up to 20 bytes, more than u128 holds.
    let mut digits = vec![0_u32];
    for nibble in hex.chars().filter_map(|c| c.to_digit(16)) {
        let mut carry = nibble;
        for digit in &mut digits {
            let value = *digit * 16 + carry;
            (*digit, carry) = (value % 10, value / 10);
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().filter_map(|digit| char::from_digit(*digit, 10)).collect()
}

fn seconds(time: SystemTime) -> Option<String> {
    OffsetDateTime::from(time).replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_shown_with_decimal_serial_and_times_in_seconds() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[1, 0xab]));
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(2024, 1, 2);
        let der = params.self_signed(&key).unwrap().der().clone();

        let shown = certificate(&der).unwrap();

        assert_eq!(shown.serial_number, "427");
        assert_eq!(shown.valid_from, "2024-01-01T00:00:00Z");
        assert_eq!(shown.expiration_time, "2024-01-02T00:00:00Z");
        let pem = String::from_utf8(STANDARD.decode(shown.pem).unwrap()).unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && pem.ends_with("-----END CERTIFICATE-----\n"));
    }

    #[test]
    fn serials_of_any_length_become_decimal() {
        assert_eq!(decimal("00"), "0");
        assert_eq!(decimal("ff"), "255");
        assert_eq!(decimal("ffffffffffffffffffffffffffffffff"), u128::MAX.to_string());
    }
}
