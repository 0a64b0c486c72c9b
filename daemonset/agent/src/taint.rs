//! The startup taint of a node: pods that do not tolerate it are not scheduled there before the mesh works. Whoever makes nodes
//! sets it; the agent removes it, and never sets it.

use std::convert::Infallible;
use std::time::Duration;

use kube_cluster::{ApiServer, remove_taint};
use telemetry::readiness::Readiness;
use tokio::time::sleep;
use zds::server::Registry;

use crate::metrics;

/// Pause between two looks at whether the mesh works on this node.
const PAUSE: Duration = Duration::from_secs(1);

/// Pause after a look at the node that found no taint any more, or failed.
const RECHECK: Duration = Duration::from_secs(60);

/// Removes the taint whenever the node has it, the agent is ready, and a proxy has taken the node's pods.
pub async fn keep_removed(
    server: ApiServer,
    node: String,
    key: String,
    readiness: Readiness,
    registry: Registry,
) -> Infallible {
    loop {
        let is_connected = registry.connections().iter().any(|connection| connection.synced);
        if !is_connected || !readiness.pending().await.is_empty() {
            sleep(PAUSE).await;
            continue;
        }
        match remove_taint(&server, &node, &key).await {
            Ok(true) => {
                metrics::startup_taint_removed();
                tracing::info!(node, key, "removed the startup taint");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(node, key, "failed to remove the startup taint: {error}; trying again in {RECHECK:?}");
            }
        }
        sleep(RECHECK).await;
    }
}
