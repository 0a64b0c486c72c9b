//! Lifetime of a tunnel, by the certificates that both sides showed.

use ca_client::CertificateManager;
use identity::Leaf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tls::WorkloadCertificate;
use tokio::time::sleep;

/// Longest wait between two looks at the clock, which may be set meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// Moments that count for an accepted tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// The certificate has expired: no new stream.
    pub not_after: SystemTime,
    /// A lifetime later: streams that are still open are cut.
    pub cut_at: SystemTime,
}

impl Validity {
    /// Read from the peer's certificate.
    pub fn of(leaf: &Leaf) -> Self {
        // A certificate that ends before it begins has no lifetime: its streams are cut when it expires.
        let lifetime = leaf.not_after.duration_since(leaf.not_before).unwrap_or_default();
        Self { not_after: leaf.not_after, cut_at: leaf.not_after.checked_add(lifetime).unwrap_or(leaf.not_after) }
    }
}

/// Returns a check of a tunnel that we opened: it may take new streams as long as neither certificate has expired, and
/// ours is the one that we would show today.
pub fn is_current(
    certificates: CertificateManager,
    own: Arc<WorkloadCertificate>,
    peer_not_after: Option<SystemTime>,
) -> impl Fn() -> bool {
    let until = peer_not_after.map_or(own.not_after(), |peer| peer.min(own.not_after()));
    move || {
        let renewed = || certificates.current(own.identity()).is_some_and(|current| !Arc::ptr_eq(&current, &own));
        // Asked for each new stream; the clock first, as the other question takes a lock.
        SystemTime::now() < until && !renewed()
    }
}

/// Returns once `moment` has passed on the wall clock; never for `None`. Safe to drop at any point.
pub async fn passed(moment: Option<SystemTime>) {
    let Some(moment) = moment else { return std::future::pending().await };
    while let Ok(left) = moment.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        // Timers count the time that passes, certificates name moments of the wall clock: whoever sets the clock moves
        // the moment.
        sleep(left.min(LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moment_that_has_passed_is_not_waited_for() {
        passed(Some(SystemTime::UNIX_EPOCH)).await;
        passed(Some(SystemTime::now() + Duration::from_millis(20))).await;
    }
}
