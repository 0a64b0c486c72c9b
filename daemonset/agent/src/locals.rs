//! Has the kernel forget further addresses of pods that are no longer used, so that a pod's share of them is not used up for
//! good. What is learnt, and how much, is decided by the kernel programs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ebpf_loader::{LoadError, Steering};

use crate::described::described;
use crate::metrics;

/// Pause between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// Time for which an address is known after the last connection that arrived for it. It is needed until the proxy has connected to the
/// application, which takes at most the proxy's deadlines for policy and dialling, some 30 s together.
const LIFETIME: Duration = Duration::from_secs(300);

/// Looks again and again, as long as the agent runs.
pub async fn keep_young(steering: Arc<Steering>) -> Infallible {
    let mut last_full = 0;
    loop {
        let steering = steering.clone();
        match tokio::task::spawn_blocking(move || steering.age_locals(LIFETIME)).await {
            Ok(Ok(aged)) => {
                metrics::further_addresses(aged.known, aged.pods_full);
                metrics::further_addresses_forgotten(aged.forgotten);
                if aged.pods_full > last_full {
                    tracing::warn!(
                        pods = aged.pods_full,
                        limit = ebpf_common::LOCALS_PER_POD,
                        "pods have learnt the maximum of further addresses; connections to their other addresses time out"
                    );
                }
                last_full = aged.pods_full;
            }
            Ok(Err(error)) => unread(&error),
            Err(error) => tracing::warn!(%error, "failed to expire learnt addresses of pods; trying again"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn unread(error: &LoadError) {
    tracing::warn!("failed to expire learnt addresses of pods; trying again: {}", described(error));
}
