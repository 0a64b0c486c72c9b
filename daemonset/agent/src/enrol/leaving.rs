//! The way out of the mesh, one type per state: only the next step compiles.
//!
//! `Withdrawn -> Draining -> Drained -> gone`. Rules and entry stay while proxied connections live: they would be reset.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{Capture, Node, Redirection, Step, StepError};
use crate::pod::{LocalPod, PodNetns};

/// Pause between two looks at the connections of a pod that leaves.
pub(super) const DRAIN_POLL: Duration = Duration::from_millis(100);

/// Shortest time for which the proxy's listeners stay, when the grace period allows it: until the proxies of other
/// nodes have heard through discovery that the pod left, they dial its HBONE port.
pub(super) const PROPAGATION: Duration = Duration::from_secs(1);

/// The cluster no longer counts on the pod.
pub(super) struct Withdrawn(pub(super) Arc<PodNetns>);

/// New connections bypass the proxy; those it carries may end.
pub(super) struct Draining {
    pod_netns: Arc<PodNetns>,
    earliest: Instant,
    deadline: Instant,
}

/// Outcome of draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// The last proxied connection ended by itself.
    Empty,
    /// Connections are left and the grace period is over: they are cut.
    Expired,
}

/// Nothing is left to wait for.
pub(super) struct Drained(Arc<PodNetns>);

/// Answer of the proxies to a departure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dismissal {
    Confirmed,
    /// A proxy refused or did not answer. It is asked again: until then the pod is not reported as outside the mesh.
    Unconfirmed,
}

impl Withdrawn {
    /// `since`: when the pod began to leave, from which on its grace counts.
    pub(super) async fn stop_capturing<N: Node>(
        self,
        node: &N,
        pod: &LocalPod,
        since: Instant,
        grace: Duration,
    ) -> Result<Draining, StepError> {
        // The entry stays, with no direction captured: connections that were captured before still need it.
        node.put_entry(pod, &self.0, Capture::Off).await?;
        // From `since` and not from now: a step that was tried again does not lengthen the grace period.
        Ok(Draining { pod_netns: self.0, earliest: since + PROPAGATION.min(grace), deadline: since + grace })
    }

    /// For a pod whose processes are gone.
    pub(super) fn skip_draining(self) -> Drained {
        Drained(self.0)
    }
}

impl Draining {
    /// Cancel-safe: dropping the future leaves the pod as it is, and drained later or captured again.
    pub(super) async fn drain<N: Node>(self, node: &N) -> (Drained, Drain) {
        let empty = async {
            // Peers that have not heard yet dial the pod's HBONE port meanwhile, also when no connection is open at
            // this moment.
            sleep_until(self.earliest).await;
            // A count that cannot be read is not zero: the grace period ends the wait.
            while !matches!(node.proxied(&self.pod_netns).await, Ok(0)) {
                sleep(DRAIN_POLL).await;
            }
        };
        let drain = timeout_at(self.deadline, empty).await.map_or(Drain::Expired, |()| Drain::Empty);
        (Drained(self.pod_netns), drain)
    }
}

impl Drained {
    /// Takes the proxy's listeners, then link, rules and entry away, and reads back that nothing is left.
    ///
    /// For a pod whose user takes it out of the mesh, or that is deleted: a proxy that refuses or does not answer keeps no pod in
    /// the mesh. The next snapshot, at the latest, lacks the pod.
    pub(super) async fn remove<N: Node>(self, node: &N, pod: &LocalPod) -> Result<Dismissal, StepError> {
        let dismissal = match node.dismiss(pod).await {
            Ok(_) => Dismissal::Confirmed,
            Err(error) => {
                let (pod, code) = (pod.key.path(), error.code());
                tracing::warn!(
                    pod,
                    code,
                    %error,
                    "ztunnel has not confirmed that it stopped serving a pod; its routing is removed all the same, and ztunnel is asked again"
                );
                Dismissal::Unconfirmed
            }
        };
        undo(node, &self.0).await?;
        Ok(dismissal)
    }

    /// As [`Self::remove`], but nothing is removed before every proxy has confirmed.
    ///
    /// For a pod that has ended: no user has asked for plaintext, and somebody may still run in its namespace.
    ///
    /// `least`: number of proxies that have to confirm. Of a pod that an earlier agent enrolled it is 1, because a proxy that
    /// serves it may not have connected to this agent yet.
    pub(super) async fn remove_once_dismissed<N: Node>(
        self,
        node: &N,
        pod: &LocalPod,
        least: usize,
    ) -> Result<(), StepError> {
        // 0 answers from 0 proxies prove nothing for a pod that a proxy may serve.
        if node.dismiss(pod).await? < least {
            return Err(StepError::at(Step::Dismiss)("no ztunnel connection"));
        }
        undo(node, &self.0).await
    }
}

/// Link, rules, entry, in this order; the entry last, because it is what tells a restarted agent that there is something to undo.
pub(super) async fn undo<N: Node>(node: &N, pod_netns: &Arc<PodNetns>) -> Result<(), StepError> {
    // The link first: without it the kernel gives no connection to the proxy's listeners any more.
    node.detach(pod_netns).await?;
    node.remove_rules(pod_netns).await?;
    node.remove_entry(pod_netns).await?;
    // Asked of the kernel: that every removal was answered with success does not say that nothing is left.
    let left = node.leftovers(pod_netns).await?;
    if left.is_empty() { Ok(()) } else { Err(StepError::Leftovers { left }) }
}

/// The whole way out at once, without waiting for connections: for a node that leaves the mesh.
///
/// # Errors
/// Those of the step that failed; what came before it is done.
pub async fn unenrol_now<N: Node>(
    node: &N,
    pod: &LocalPod,
    pod_netns: Option<Arc<PodNetns>>,
    annotated: Option<Redirection>,
) -> Result<(), StepError> {
    // Also for a pod that only the cluster calls enrolled.
    if annotated.is_some() || pod_netns.is_some() {
        node.annotate(pod, None).await?;
    }
    match pod_netns {
        // A proxy that has not confirmed loses its connection with this process.
        Some(pod_netns) => Withdrawn(pod_netns).skip_draining().remove(node, pod).await.map(|_| ()),
        None => Ok(()),
    }
}
