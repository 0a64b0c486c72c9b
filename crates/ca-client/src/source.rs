//! Sources of certificates for the manager.

use std::time::Duration;

use futures::future::BoxFuture;
use identity::Identity;
use tls::{TlsError, WorkloadCertificate};

/// Gives out certificates: over gRPC in a mesh, from a fixed root in tests.
pub trait CertificateSource: Send + Sync + 'static {
    /// A new key and a certificate for it. The manager bounds the time; the future may be dropped at any point.
    fn fetch(&self, identity: &Identity) -> BoxFuture<'_, Result<WorkloadCertificate, SourceError>>;
}

/// Reason for a missing certificate.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No key or no signing request.
    #[error(transparent)]
    Request(#[from] identity::csr::CsrError),
    /// The bearer token cannot be read, or not be sent as a header.
    #[error("failed to read the auth token")]
    Token(#[source] std::io::Error),
    /// The roots of the certificate authority cannot be loaded.
    #[error(transparent)]
    Roots(#[from] tls::control_plane::RootsError),
    /// The certificate authority has refused, or could not be reached.
    #[error("certificate authority: {}", told(.0))]
    Refused(Box<tonic::Status>),
    /// Its answer is no certificate chain with roots.
    #[error("answer of the certificate authority: {0}")]
    BadAnswer(#[from] tls::CertificateError),
    /// Its answer lacks the roots.
    #[error("answer of the certificate authority has {0} parts, at least leaf and roots are needed")]
    NoRoots(usize),
    /// Its answer is for somebody else.
    #[error("asked for {requested}, was given {given}")]
    WrongIdentity { requested: Identity, given: Identity },
    /// Its answer does not stand up to a check of our own.
    #[error("certificate from the certificate authority: {0}")]
    NotValid(#[from] TlsError),
    /// Signing failed, in a process that signs for itself.
    #[error(transparent)]
    Sign(LocalIssuerError),
    /// No answer in time.
    #[error("no answer of the certificate authority within {0:?}")]
    Timeout(Duration),
    /// The fetch has panicked or was cancelled.
    #[error("the fetch has ended without a result")]
    Died,
}

/// Failure of an issuer in this process, which is a type of another crate.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct LocalIssuerError {
    /// Stable name for logs and metrics.
    pub code: &'static str,
    /// The issuer's error.
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl SourceError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Request(_) => "csr",
            Self::Token(_) => "ca_token",
            Self::Roots(error) => error.code(),
            Self::Refused(_) => "ca_refused",
            Self::BadAnswer(error) => error.code(),
            Self::NoRoots(_) => "ca_no_roots",
            Self::WrongIdentity { .. } => "ca_wrong_identity",
            Self::NotValid(error) => error.code(),
            Self::Sign(error) => error.code,
            Self::Timeout(_) => "ca_timeout",
            Self::Died => "ca_fetch_died",
        }
    }
}

/// A refusal in the authority's words, a failed connection with its causes.
fn told(status: &tonic::Status) -> String {
    let words = format!("{:?}: {}", status.code(), status.message());
    match std::error::Error::source(status) {
        Some(cause) => format!("{words}: {}", tls::causes(cause)),
        None => words,
    }
}
