//! Sources of the roots for the control plane's certificate.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;

use crate::certificate::{CertificateError, certificates, store};

/// Files in which distributions keep the bundle of public roots.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reason for which there are no roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("root certificates {path}")]
    Unreadable {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    /// The text is not PEM.
    #[error("root certificates from {origin}")]
    Malformed {
        origin: String,
        #[source]
        cause: CertificateError,
    },
    /// No certificate could be used.
    #[error("no usable root certificate in {0}")]
    Empty(String),
    /// This system has no bundle in any of the usual places.
    #[error("no system root certificates in {SYSTEM_BUNDLES:?}")]
    NoSystemBundle,
}

impl RootsError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "roots_unreadable",
            Self::Malformed { .. } => "roots_malformed",
            Self::Empty(_) => "roots_empty",
            Self::NoSystemBundle => "roots_no_system_bundle",
        }
    }
}

/// Roots for the control plane's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// A PEM file, read again for every connection.
    Path(PathBuf),
    /// PEM text.
    Inline(String),
    /// The operating system's public roots.
    System,
}

impl RootSource {
    /// As `XDS_ROOT_CA` and `CA_ROOT_CA` mean it: `SYSTEM`, PEM text, or a path. The path need not exist yet.
    pub fn from_setting(setting: &str) -> Self {
        // An existing path first: a file may be named `SYSTEM`.
        if Path::new(setting).exists() {
            Self::Path(PathBuf::from(setting))
        } else if setting == "SYSTEM" {
            Self::System
        } else if setting.contains("-----BEGIN") {
            Self::Inline(setting.to_owned())
        } else {
            Self::Path(PathBuf::from(setting))
        }
    }

    /// The PEM text as it is now.
    pub async fn read(&self) -> Result<String, RootsError> {
        match self {
            Self::Inline(pem) => Ok(pem.clone()),
            Self::Path(path) => read(path).await,
            Self::System => {
                for path in SYSTEM_BUNDLES.iter().map(Path::new) {
                    if path.exists() {
                        return read(path).await;
                    }
                }
                Err(RootsError::NoSystemBundle)
            }
        }
    }

    /// The roots as they are now.
    pub async fn load(&self) -> Result<RootCertStore, RootsError> {
        let pem = self.read().await?;
        let found = certificates(&pem).map_err(|cause| RootsError::Malformed { origin: self.origin(), cause })?;
        // Bundles have roots that webpki cannot use; they are skipped as long as one is left.
        let (store, usable) = store(found);
        if usable.is_empty() {
            return Err(RootsError::Empty(self.origin()));
        }
        Ok(store)
    }

    fn origin(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Inline(_) => "the setting".to_owned(),
            Self::System => "the system".to_owned(),
        }
    }
}

async fn read(path: &Path) -> Result<String, RootsError> {
    tokio::fs::read_to_string(path).await.map_err(|cause| RootsError::Unreadable { path: path.to_owned(), cause })
}
