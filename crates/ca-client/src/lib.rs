//! Certificates of a proxy's workloads: requests them from the certificate service and keeps them fresh.
//! TLS with them is `tls`'s business; the service is `ca-server`.

mod client;
mod manager;
mod source;

pub use client::{Client, ClientConfig};
pub use manager::{CertificateError, CertificateManager, CertificateStatus, Clock, Priority, State};
pub use source::{CertificateSource, LocalIssuerError, SourceError};
