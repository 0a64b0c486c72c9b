//! The cryptography that is allowed. One provider between proxies and one for the control plane, for the whole process.

use std::sync::{Arc, LazyLock, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};

/// Key exchanges that connections may use, whether this side opens or accepts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyExchange {
    /// The provider's: X25519, P-256, P-384 and X25519MLKEM768.
    Default,
    /// X25519MLKEM768 only (draft-ietf-tls-ecdhe-mlkem): who records a connection today cannot read it with a quantum computer
    /// later. A peer without it is refused.
    PostQuantum,
}

/// Connections of the process have been configured already, for other key exchanges.
#[derive(Debug, thiserror::Error)]
#[error("key exchanges cannot be restricted once connections are configured")]
pub struct InUse;

/// Decided by [`restrict`], or by the first use of a provider.
static KEY_EXCHANGE: OnceLock<KeyExchange> = OnceLock::new();

/// Suites in order of preference: AES-128-GCM is the faster of the two that every peer speaks.
static MESH: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384],
        ..provider()
    })
});

/// The provider's own suites, TLS 1.2 among them: a control plane may be behind anything.
static CONTROL_PLANE: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(provider()));

/// Restricts the key exchanges of all connections of this process, those to the control plane as well. Call it before any is
/// configured.
///
/// # Errors
/// When that has happened already: nothing is changed then.
pub fn restrict(key_exchange: KeyExchange) -> Result<(), InUse> {
    if *KEY_EXCHANGE.get_or_init(|| key_exchange) == key_exchange { Ok(()) } else { Err(InUse) }
}

fn provider() -> CryptoProvider {
    let provider = aws_lc_rs::default_provider();
    match KEY_EXCHANGE.get_or_init(|| KeyExchange::Default) {
        KeyExchange::Default => provider,
        KeyExchange::PostQuantum => CryptoProvider { kx_groups: vec![kx_group::X25519MLKEM768], ..provider },
    }
}

pub(crate) fn mesh() -> Arc<CryptoProvider> {
    Arc::clone(&MESH)
}

pub(crate) fn control_plane() -> Arc<CryptoProvider> {
    Arc::clone(&CONTROL_PLANE)
}
