//! Keeps the control plane's own certificate fresh.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tls::control_plane::Acceptor;

use crate::issuer::Issuer;

/// Pause after a failed renewal; half a day of validity is left by then.
const RETRY: Duration = Duration::from_secs(60);
/// The certificates are valid for a day: half of it.
const RENEWAL: Duration = Duration::from_secs(12 * 3600);

/// Replaces `acceptor`'s certificate twice a day, for ever. Dropping it is safe.
pub async fn keep_fresh(issuer: Arc<Issuer>, names: Vec<String>, acceptor: Acceptor) {
    let mut pause = RENEWAL;
    loop {
        tokio::time::sleep(pause).await;
        pause = match issuer.serving_certificate(&names) {
            Ok(certificate) => {
                let left = certificate.not_after().duration_since(SystemTime::now()).unwrap_or_default();
                tracing::info!(?left, "control plane certificate renewed");
                acceptor.replace(certificate);
                RENEWAL.min(left / 2).max(RETRY)
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "failed to renew the control plane certificate; keeping the old one");
                RETRY
            }
        };
    }
}
