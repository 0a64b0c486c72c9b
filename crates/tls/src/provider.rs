//! The cryptography that is allowed between proxies. One provider for the whole process.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};

/// Suites in order of preference: AES-128-GCM is the faster of the two that every peer speaks.
static MESH: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384],
        ..aws_lc_rs::default_provider()
    })
});

/// The provider's own suites, TLS 1.2 among them: a control plane may be behind anything.
static CONTROL_PLANE: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

pub(crate) fn mesh() -> Arc<CryptoProvider> {
    Arc::clone(&MESH)
}

pub(crate) fn control_plane() -> Arc<CryptoProvider> {
    Arc::clone(&CONTROL_PLANE)
}
