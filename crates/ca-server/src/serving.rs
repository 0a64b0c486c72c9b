//! Keeps the control plane's own certificate fresh.

use std::time::{Duration, SystemTime};

use tls::control_plane::Acceptor;

use crate::current::CurrentIssuer;

/// Pause after a failed renewal; half a day of validity is left by then.
const RETRY: Duration = Duration::from_secs(60);
/// The certificates are valid for a day: half of it.
const RENEWAL: Duration = Duration::from_secs(12 * 3600);

/// Replaces `acceptor`'s certificate twice a day, and at once when another issuer is in use, for ever. Dropping it is safe.
pub async fn keep_fresh(mut issuer: CurrentIssuer, names: Vec<String>, acceptor: Acceptor) {
    let mut pause = RENEWAL;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = issuer.changed() => {}
        }
        pause = match issuer.get().serving_certificate(&names) {
            Ok(certificate) => {
                let left = certificate.not_after().duration_since(SystemTime::now()).unwrap_or_default();
                tracing::info!(?left, "control plane certificate renewed");
                acceptor.replace(certificate);
                // The root may end before the certificate would: then certificates are shorter, and renewed more often.
                RENEWAL.min(left / 2).max(RETRY)
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "failed to renew the control plane certificate; keeping the old one");
                RETRY
            }
        };
    }
}
