//! Failures of a handshake, as data.

use std::error::Error as StdError;
use std::sync::Arc;

use identity::Identity;
use rustls::{AlertDescription, CertificateError as RustlsCertificateError};

/// Reason for which our side refused the peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The client belongs to another trust domain.
    #[error("peer is of trust domain {found}, expected {expected}")]
    WrongTrustDomain { found: String, expected: String },
    /// The server proved identities other than the ones discovery promised.
    #[error("peer is {found:?}, expected one of {expected:?}")]
    WrongIdentity { found: Vec<Identity>, expected: Vec<Identity> },
    /// The certificate has no SPIFFE id of the mesh's form.
    #[error("the peer's certificate has no SPIFFE id")]
    NoIdentity,
    /// The certificate cannot be read.
    #[error("the peer's certificate is malformed")]
    Malformed,
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        RustlsCertificateError::Other(rustls::OtherError(Arc::new(refusal))).into()
    }
}

/// Reason for which there is no TLS connection or configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer's certificate is valid but not the one that is wanted.
    #[error("{0}")]
    Refused(Refusal),
    /// The peer's certificate is expired, or not valid yet.
    #[error("the peer's certificate is expired or not yet valid")]
    Expired,
    /// The peer's certificate was not signed by one of our roots.
    #[error("the peer's certificate is not signed by a root of the mesh")]
    UnknownIssuer,
    /// The peer's certificate cannot be used for other reasons (usage, signature, encoding).
    #[error("the peer's certificate is not acceptable: {0:?}")]
    BadCertificate(RustlsCertificateError),
    /// The peer has sent no certificate.
    #[error("the peer has sent no certificate")]
    NoCertificate,
    /// The peer has refused us, most often our certificate.
    #[error("the peer has refused the handshake: {0:?}")]
    RefusedByPeer(AlertDescription),
    /// The peer does not speak our versions, suites or application protocol.
    #[error("the peer does not speak the TLS of the mesh")]
    Incompatible,
    /// A client configuration without expected identities would accept nobody.
    #[error("no identity is expected of the peer")]
    NothingExpected,
    /// Our configuration cannot be made.
    #[error("TLS configuration")]
    Configuration(#[source] rustls::Error),
    /// Anything else that the TLS library reports.
    #[error("TLS protocol")]
    Protocol(#[source] rustls::Error),
}

impl TlsError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::WrongTrustDomain { .. }) => "wrong_trust_domain",
            Self::Refused(Refusal::WrongIdentity { .. }) => "wrong_identity",
            Self::Refused(Refusal::NoIdentity) => "no_identity",
            Self::Refused(Refusal::Malformed) => "malformed_certificate",
            Self::Expired => "certificate_expired",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadCertificate(_) => "bad_certificate",
            Self::NoCertificate => "no_certificate",
            Self::RefusedByPeer(_) => "refused_by_peer",
            Self::Incompatible => "incompatible_tls",
            Self::NothingExpected => "nothing_expected",
            Self::Configuration(_) => "tls_configuration",
            Self::Protocol(_) => "tls_protocol",
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error;
        match error {
            Error::InvalidCertificate(certificate) => from_certificate(certificate),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(alert) => Self::RefusedByPeer(alert),
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            other => Self::Protocol(other),
        }
    }
}

fn from_certificate(error: RustlsCertificateError) -> TlsError {
    use RustlsCertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => TlsError::Expired,
        E::UnknownIssuer => TlsError::UnknownIssuer,
        E::BadEncoding => TlsError::Refused(Refusal::Malformed),
        E::Other(other) => match other.0.downcast_ref::<Refusal>() {
            Some(refusal) => TlsError::Refused(refusal.clone()),
            None => TlsError::BadCertificate(E::Other(other)),
        },
        other => TlsError::BadCertificate(other),
    }
}

/// The TLS error inside of an I/O error, as `tokio_rustls` returns it; `None` when the socket itself failed.
pub fn diagnose(error: &std::io::Error) -> Option<TlsError> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(current) = cause {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Some(tls.clone().into());
        }
        cause = current.source();
    }
    None
}

/// An error with everything that caused it, in one line: for logs and answers that have no place for a chain.
pub fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let told = current.to_string();
        // Some errors end with the text of their cause.
        if !text.ends_with(&told) {
            text = format!("{text}: {told}");
        }
        cause = current.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told_once() {
        let io = std::io::Error::other("no such host");
        let error = crate::control_plane::ConnectError::Name { host: "istiod".to_owned(), cause: io };

        assert_eq!(causes(&error), "name istiod: no such host");
        assert_eq!(causes(&TlsError::Refused(Refusal::NoIdentity)), "the peer's certificate has no SPIFFE id");
    }
}
