//! The way into the mesh, one type per state: only the next step compiles.
//!
//! `Located -> Steered -> Announced -> Proved -> Enrolled`. A step that fails consumes its state; the way is begun
//! again from the start, and every step finds its work done or does it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Capture, Node, Proof, Redirection, StepError, Verdict};
use crate::metrics;
use crate::pod::{LocalPod, PodNetns};

/// The namespace is known.
pub(super) struct Located(pub(super) Arc<PodNetns>);

/// Tag, entry, rules and link are in place. Nothing new is captured yet, unless it was before.
pub(super) struct Steered(Arc<PodNetns>);

/// The proxy has acknowledged its listeners, and new connections go to it.
pub(super) struct Announced(Arc<PodNetns>);

/// Everything was read back.
pub(super) struct Proved {
    pod_netns: Arc<PodNetns>,
    proof: Proof,
}

/// The cluster was told.
pub(super) struct Enrolled {
    pub(super) pod_netns: Arc<PodNetns>,
    pub(super) proof: Proof,
}

/// Longest wait for what is read back, which takes milliseconds. A proof that does not end says nothing.
pub(super) const PROOF_DEADLINE: Duration = Duration::from_secs(10);

/// [`Node::proof`] with an end.
pub(super) async fn prove<N: Node>(node: &N, pod: &LocalPod, pod_netns: &Arc<PodNetns>, since: Instant) -> Proof {
    metrics::proved();
    // Dropping a proof loses nothing: it only reads.
    let proof = timeout(PROOF_DEADLINE, node.proof(pod, pod_netns, since)).await;
    proof.unwrap_or_else(|_| Proof::unreadable(&format!("no answer within {PROOF_DEADLINE:?}")))
}

impl Located {
    /// The entry comes before the link and before the proxy's listeners: from then on the kernel notes them.
    pub(super) async fn steer<N: Node>(self, node: &N, pod: &LocalPod) -> Result<Steered, StepError> {
        // First: the kernel programs know the proxy by the tag of its cgroup. Without it they would not note its
        // listeners, and would capture its own connections.
        node.tag().await?;
        node.put_entry(pod, &self.0, Capture::Unchanged).await?;
        // Before capture begins: without rules marked packets do not reach the proxy, and are dropped on their way out
        // of the pod.
        node.put_rules(pod, &self.0).await?;
        node.attach(&self.0).await?;
        Ok(Steered(self.0))
    }
}

impl Steered {
    /// Capture begins with the acknowledgement, so that a running pod loses no connection on its way in. Without
    /// one it begins all the same: a pod that asks for the mesh is closed, not open, until the proxy is there.
    pub(super) async fn announce<N: Node>(self, node: &N, pod: &LocalPod) -> Result<Announced, StepError> {
        // Its error is returned only after the capture is on.
        let acknowledged = node.announce(pod, &self.0).await;
        // Both directions with one write of the map: no moment captures one of them only.
        node.put_entry(pod, &self.0, Capture::On).await?;
        acknowledged?;
        Ok(Announced(self.0))
    }
}

impl Announced {
    /// A proxy that had its listeners before the kernel knew the pod is caught up with once.
    pub(super) async fn prove<N: Node>(self, node: &N, pod: &LocalPod) -> Result<Proved, StepError> {
        let mut proof = prove(node, pod, &self.0, Instant::now()).await;
        if proof.verdict() == Verdict::Unserved {
            // The kernel notes listeners when they begin to listen. Those that were there before the entry have to be
            // looked for.
            node.catch_up().await?;
            proof = prove(node, pod, &self.0, Instant::now()).await;
        }
        Proved::from(self.0, proof)
    }
}

impl Proved {
    /// The only way to this state: a proof that holds.
    pub(super) fn from(pod_netns: Arc<PodNetns>, proof: Proof) -> Result<Self, StepError> {
        if proof.holds() { Ok(Self { pod_netns, proof }) } else { Err(StepError::Unproved { checks: proof.checks() }) }
    }

    /// Tells the cluster.
    pub(super) async fn annotate_enrolled<N: Node>(self, node: &N, pod: &LocalPod) -> Result<Enrolled, StepError> {
        node.annotate(pod, Some(Redirection::Enabled)).await?;
        Ok(self.already_annotated())
    }

    /// The cluster was told before.
    pub(super) fn already_annotated(self) -> Enrolled {
        Enrolled { pod_netns: self.pod_netns, proof: self.proof }
    }
}
