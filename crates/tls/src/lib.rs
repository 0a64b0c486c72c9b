//! TLS of the mesh: configurations between proxies, the check of SPIFFE ids, streams of records
//! between proxies, and the TLS of the control plane's connections. It opens no tunnels (see
//! `hbone`) and gets no certificates (see `ca`).

mod certificate;
mod config;
pub mod control_plane;
mod error;
mod provider;
pub mod stream;
mod verify;

pub use certificate::{CertificateError, WorkloadCertificate};
pub use config::{ALPN_H2, client_config, peer_identity, peer_leaf, server_config, server_name};
pub use error::{Refusal, TlsError, causes, diagnose};
pub use provider::{InUse, KeyExchange, restrict};
