//! Source and properties of certificates.

use std::{path::Path, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use serde::{Serialize, Serializer};
use tls::KeyExchange;
use tls::control_plane::Token;

use super::{
    discovery,
    source::Reader,
    values::{self, serialize_duration, serialize_header_names},
};

const DEFAULT_TOKEN: &str = "./var/run/secrets/tokens/istio-token";

/// Source and properties of certificates.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificatesConfig {
    /// `CA_ADDRESS`, or `FAKE_CA`.
    pub authority: Authority,
    /// `CA_ROOT_CA`: path, `SYSTEM`, or PEM; default `./var/run/secrets/istio/root-cert.pem`.
    pub root_ca: String,
    /// `ALT_CA_HOSTNAME`.
    pub alternative_host: Option<String>,
    /// `CA_HEADER_*`.
    #[serde(serialize_with = "serialize_header_names")]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `AUTH_TOKEN`: path or the token itself; default `./var/run/secrets/tokens/istio-token` if that exists. Also for discovery.
    #[serde(serialize_with = "serialize_token")]
    pub token: Token,
    /// `COMPLIANCE_POLICY`; default any key exchange. `pqc`: X25519MLKEM768 only, to other proxies and to the control plane.
    #[serde(serialize_with = "serialize_key_exchange")]
    pub key_exchange: KeyExchange,
    /// `SECRET_TTL`, asked of the authority; default 24 h.
    #[serde(serialize_with = "serialize_duration")]
    pub ttl: Duration,
}

/// Signer of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// `CA_ADDRESS`; default as for discovery, but without ProxyConfig.
    Remote(Uri),
    /// `FAKE_CA`: a root that everybody knows, in test builds only.
    FixedRoot,
}

impl Serialize for Authority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Remote(address) => serializer.collect_str(address),
            Self::FixedRoot => serializer.serialize_str("FAKE_CA"),
        }
    }
}

impl CertificatesConfig {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        // To run without it would be less secure than its user expects.
        reader.refuse("CRL_PATH", "nothing: revocation lists are not checked");
        let policy = |value: &str| match value {
            "" => Some(KeyExchange::Default),
            "pqc" => Some(KeyExchange::PostQuantum),
            _ => None,
        };
        let key_exchange = reader.optional("COMPLIANCE_POLICY", "pqc, or nothing", policy);
        reader.unless("TLS12_ENABLED", &["false"], "HBONE takes TLS 1.3 only");
        Self {
            key_exchange: key_exchange.unwrap_or(KeyExchange::Default),
            authority: authority(reader),
            root_ca: discovery::root_ca(reader, "CA_ROOT_CA"),
            alternative_host: reader.text("ALT_CA_HOSTNAME"),
            headers: values::headers(reader, "CA_HEADER_"),
            token: token(reader),
            ttl: reader
                .optional("SECRET_TTL", values::DURATION, values::duration)
                .unwrap_or(Duration::from_secs(86_400)),
        }
    }
}

fn authority(reader: &mut Reader<'_>) -> Authority {
    if reader.flag("FAKE_CA", false) {
        if !cfg!(feature = "testing") {
            reader.problems.push("FAKE_CA", "true", "false: only test builds have a fixed root");
        }
        return Authority::FixedRoot;
    }
    // `discoveryAddress` of ProxyConfig is not for certificates: Istio keeps the two apart.
    let fallback = discovery::default_address(reader);
    match discovery::address(reader, "CA_ADDRESS", &fallback) {
        Some(address) => Authority::Remote(address),
        // Whatever is returned here is not used: a missing or invalid address is a problem, and with problems the
        // program does not start.
        None => {
            if reader.raw("CA_ADDRESS").is_some_and(str::is_empty) {
                reader.problems.push(
                    "CA_ADDRESS",
                    "(empty)",
                    "an address: without certificates nothing can be carried",
                );
            }
            Authority::FixedRoot
        }
    }
}

fn token(reader: &Reader<'_>) -> Token {
    match reader.text("AUTH_TOKEN") {
        Some(setting) => Token::from_setting(&setting),
        None if Path::new(DEFAULT_TOKEN).exists() => Token::file(DEFAULT_TOKEN),
        None => Token::None,
    }
}

/// `Debug` of a token shows no secret.
fn serialize_token<S: Serializer>(token: &Token, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{token:?}"))
}

/// As the setting's value.
fn serialize_key_exchange<S: Serializer>(key_exchange: &KeyExchange, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match key_exchange {
        KeyExchange::Default => "",
        KeyExchange::PostQuantum => "pqc",
    })
}
