//! How long an accepted tunnel may live by the certificate that its peer showed.

use identity::Leaf;
use std::time::{Duration, SystemTime};
use tokio::time::sleep;

/// Longest wait between two looks at the clock, which may be set meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// The two moments that count for a tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    /// The certificate has expired: no new stream.
    pub(super) not_after: SystemTime,
    /// A lifetime later: streams that are still open are cut.
    pub(super) cut_at: SystemTime,
}

impl Validity {
    /// Read from the peer's certificate.
    pub(super) fn of(leaf: &Leaf) -> Self {
        let lifetime = leaf.not_after.duration_since(leaf.not_before).unwrap_or_default();
        Self { not_after: leaf.not_after, cut_at: leaf.not_after.checked_add(lifetime).unwrap_or(leaf.not_after) }
    }
}

/// Returns once `moment` has passed on the wall clock; never for `None`. Safe to drop at any point.
pub(super) async fn passed(moment: Option<SystemTime>) {
    let Some(moment) = moment else { return std::future::pending().await };
    while let Ok(left) = moment.duration_since(SystemTime::now())
        && !left.is_zero()
    {
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
