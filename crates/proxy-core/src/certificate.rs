//! Waits for the certificate that a connection needs now. It requests none itself; see `ca_client`.

use ca_client::{CertificateError, CertificateManager, Priority};
use identity::Identity;
use std::sync::Arc;
use std::time::Duration;
use tls::WorkloadCertificate;
use tokio::time::{Instant, timeout};

/// Time that a connection waits while the certificate authority refuses, or cannot be reached: attempts that begin within
/// it are waited for. Long enough for the authority to hear of a pod that has just started; half of what a peer has
/// for its side of a handshake (10 s).
pub const CERTIFICATE_PATIENCE: Duration = Duration::from_secs(5);

/// There is no certificate for a connection.
#[derive(Debug, Clone)]
pub enum WaitError {
    /// The authority refused, or cannot be reached.
    Refused(Arc<CertificateError>),
    /// The authority, or the way to it, took longer than this.
    Timeout(Duration),
}

/// Returns the certificate of `identity`. While there is none, further attempts are waited for; see
/// [`CERTIFICATE_PATIENCE`]. An authority that has been away for longer than that is not waited for at all.
///
/// # Errors
/// When the attempts failed, or took longer than `within`.
pub async fn wait_for(
    certificates: &CertificateManager,
    identity: &Identity,
    within: Duration,
) -> Result<Arc<WorkloadCertificate>, WaitError> {
    // Two bounds: attempts that fail are repeated until the first one, and an attempt that hangs is given up at the
    // second.
    let until = Instant::now() + CERTIFICATE_PATIENCE;
    match timeout(within, certificates.get_by(identity, Priority::RealTime, until)).await {
        Ok(certificate) => certificate.map_err(|e| WaitError::Refused(Arc::new(e))),
        Err(_) => Err(WaitError::Timeout(within)),
    }
}
