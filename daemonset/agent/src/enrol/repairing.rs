//! Enrolled pods whose proof no longer holds: the quick repair of their routing, and the alarms. When a pod is proved, and
//! which steps repair the rest, is in `actor`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::entering::PROOF_DEADLINE;
use super::{Fact, Node, Proof, Verdict, Watch};
use crate::metrics;
use crate::pod::{LocalPod, PodNetns};
use crate::report::View;

/// Shortest time between two repairs of a pod's routing after notifications, so that somebody who changes it again and again
/// costs the agent no more than 100 repairs a second.
pub(super) const MEND_PAUSE: Duration = Duration::from_millis(10);

/// Begins to watch the pod's routing. Without it the regular proof finds what notifications would have told, a little later.
pub(super) fn watch<N: Node>(node: &N, pod: &LocalPod, pod_netns: &Arc<PodNetns>) -> Option<N::Watch> {
    let watch = node.watch(pod_netns);
    if let Err(error) = &watch {
        metrics::unwatched();
        tracing::warn!(pod = pod.key.path(), %error, "failed to watch a pod's routing; changes are noticed by polling every few seconds");
    }
    watch.ok()
}

/// Waits for the next change to the pod's routing, and not before `quiet_until`; for ever without a watch. Cancel-safe.
pub(super) async fn disturbed<W: Watch>(watch: &mut Option<W>, quiet_until: Instant) {
    match watch {
        Some(watch) => {
            // Changes during the pause are not lost: the socket of the watch keeps them.
            sleep_until(quiet_until).await;
            watch.changed().await;
        }
        None => std::future::pending().await,
    }
}

/// Repairs the pod's routing after somebody has changed something in its namespace. False when it could not be repaired.
pub(super) async fn mend<N: Node>(node: &N, pod: &LocalPod, pod_netns: &Arc<PodNetns>) -> bool {
    match node.mend(pod, pod_netns).await {
        Ok(repaired) => {
            if !repaired.is_empty() {
                metrics::repair(Fact::Rules.name());
                let (pod, repaired) = (pod.key.path(), repaired.join(", "));
                tracing::warn!(pod, repaired, "another program changed the routing of an enrolled pod; repaired");
            }
            true
        }
        Err(error) => {
            tracing::warn!(pod = pod.key.path(), %error, "failed to repair the routing of an enrolled pod; proving it again");
            false
        }
    }
}

/// Pause between two looks for what else may take connections away from the proxy.
pub(super) const HAZARD_INTERVAL: Duration = Duration::from_secs(30);

/// Reports what else in the pod's namespace may take connections away from the proxy. What cannot be read stays as it was said.
pub(super) async fn report_hazards<N: Node>(node: &N, pod: &LocalPod, pod_netns: &Arc<PodNetns>, view: &View) {
    match timeout(PROOF_DEADLINE, node.hazards(pod_netns)).await {
        Ok(Ok(found)) => view.set_hazards(pod, found),
        // Only `debug`: hazards are hints, and the next look is 30 s away.
        Ok(Err(error)) => tracing::debug!(pod = pod.key.path(), %error, "failed to look for foreign hooks"),
        Err(_) => tracing::debug!(pod = pod.key.path(), "looking for foreign hooks takes too long"),
    }
}

/// Counts and logs what a proof has found to be repaired.
pub(super) fn count(pod: &LocalPod, proof: &Proof) {
    proof.failed().for_each(|fact| metrics::repair(fact.name()));
    let (pod, found) = (pod.key.path(), proof.complaint());
    tracing::warn!(pod, found, "checks of an enrolled pod fail; repairing");
}

/// Counts and logs that a pod keeps its annotation `enabled` although its proof does not hold.
pub(super) fn alarm(pod: &LocalPod, verdict: Verdict, found: &str) {
    let pod = pod.key.path();
    match verdict {
        Verdict::Holds => {}
        Verdict::Unverified => {
            metrics::unverified();
            tracing::warn!(
                pod,
                found,
                "failed to read checks of an enrolled pod; reading them again, peers still use HBONE"
            );
        }
        Verdict::Unserved => {
            metrics::unserved();
            tracing::warn!(
                pod,
                found,
                "ztunnel is not serving an enrolled pod; its traffic is blocked, and peers still use HBONE"
            );
        }
        Verdict::Blocked => {
            metrics::blocked();
            tracing::error!(
                pod,
                found,
                "routing of an enrolled pod does not lead to ztunnel; its traffic is blocked until that is repaired, and \
                 peers still use HBONE"
            );
        }
        Verdict::Open => {
            metrics::broken();
            tracing::error!(
                pod,
                found,
                "traffic of an enrolled pod may bypass ztunnel; it is being repaired, and peers still use HBONE"
            );
        }
    }
}
